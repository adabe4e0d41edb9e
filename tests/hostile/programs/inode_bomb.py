# Makes files without content for as long as it can.
import os

print("begin", flush=True)
number = 0
while True:
    number += 1
    os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))

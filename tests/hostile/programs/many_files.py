# A hundred thousand files.
import os

os.mkdir("many")
for number in range(100_000):
    os.close(os.open(f"many/{number:06}", os.O_CREAT | os.O_WRONLY))
print("made")

# Takes memory in many small processes: none of them is the largest.
import os
import time

print("begin", flush=True)
for _ in range(30):
    if os.fork() == 0:
        kept = bytearray(os.urandom(1 << 20)) * 12
        time.sleep(60)
time.sleep(60)

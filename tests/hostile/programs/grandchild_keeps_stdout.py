# Ends at once; a grandchild in a session of its own keeps its output open and outlives it.
import os
import sys
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
        print("too late", flush=True)
    os._exit(0)
os.wait()
print("done")
sys.exit(0)

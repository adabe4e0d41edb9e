# A daemon that ignores all signals it can and writes on after its parent's end.
import os
import signal
import time

if os.fork() == 0:
    os.setsid()
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        open("later", "a").write("x")
        time.sleep(0.001)
time.sleep(0.2)
print("done")

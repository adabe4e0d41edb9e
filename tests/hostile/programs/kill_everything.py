# Kills all it may kill, its own children too.
import os
import signal
import subprocess

child = subprocess.Popen(["sleep", "60"])
os.kill(-1, signal.SIGKILL)
print("alone", child.wait())

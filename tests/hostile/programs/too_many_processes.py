# Starts children until it cannot, and does not deal with that.
import subprocess

children = []
while True:
    children.append(subprocess.Popen(["sleep", "60"]))

# Takes the working directory's permissions away.
import os

open("file", "w").write("x")
os.chmod(".", 0)
print("closed")

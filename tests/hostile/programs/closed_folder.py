# Takes the permissions of its folders away: of its own one, and of the working directory if it may.
import os

open("file", "w").write("x")
os.mkdir("mine")
open("mine/inside", "w").write("x")
os.chmod("mine", 0)
try:
    os.chmod(".", 0)
except PermissionError:
    print("not mine")
print("closed")

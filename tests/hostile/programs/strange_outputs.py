# Leaves everything behind that is no plain file, and names nobody can print.
import os
import socket

os.symlink("/etc/passwd", "link-to-passwd")
os.symlink(".", "loop")
os.symlink("/proc/1/environ", "link-to-environ")
os.mkfifo("pipe")
listener = socket.socket(socket.AF_UNIX)
listener.bind("socket")
open("plain", "w").write("p")
os.link("plain", "hard")
for name in ("CON", "NUL", "aux.txt", "-rf", "con\u00e9", "a\\..\\b"):
    open(name, "w").write("n")
for name in (b"new\nline", b"bad\xff", b"\x1b[31m", b"\xe2\x80\xaeright-to-left"):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
open("huge", "wb").truncate(1 << 40)
open("closed", "w").write("c")
os.chmod("closed", 0)
os.makedirs(".hidden")
open(".hidden/file", "w")
deep = "/".join("d" * 14)
os.makedirs(deep)
open(f"{deep}/file", "w")
try:
    open("../escaped", "w")
except OSError:
    print("no way out")
os.remove("main.py")
os.symlink("/etc/passwd", "main.py")

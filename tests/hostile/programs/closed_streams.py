# Closes what it could say anything with.
import os

for fd in (0, 1, 2):
    os.close(fd)
os._exit(0)

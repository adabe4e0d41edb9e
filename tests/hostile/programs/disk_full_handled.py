# Fills the scratch space, makes room and goes on.
import errno
import os

try:
    with open("big", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
os.remove("big")
open("small", "w").write("fits")

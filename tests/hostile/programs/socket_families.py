# Sockets of every family and kind.
import errno
import socket

made = set()
for family in range(46):
    for kind in (1, 2, 3, 4, 5, 6, 10):
        for protocol in (0, 1, 6, 17, 255):
            try:
                socket.socket(family, kind, protocol).close()
                made.add(family)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT and family != socket.AF_UNIX:
                    made.add((family, errno.errorcode[error.errno]))
print(made)

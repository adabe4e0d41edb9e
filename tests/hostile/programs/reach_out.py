# The metadata service, the API server, DNS, another pod and the sidecar's port; args: addresses with ports.
import errno
import socket
import sys

for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2)
        print(target, "open")
    except OSError as error:
        print(errno.errorcode.get(error.errno, str(error)))
try:
    socket.getaddrinfo("kubernetes.default.svc", 443)
    print("a name")
except OSError:
    print("no name")

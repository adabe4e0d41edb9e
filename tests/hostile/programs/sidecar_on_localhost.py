# For a pool with sockets: speaks to the pod's own sidecar, unsigned, in bulk and in nonsense.
import json
import socket
import urllib.error
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def status(path, body=None, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:8790{path}", data=body, headers=headers)
    try:
        return opener.open(request, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code


print(
    status("/v1/state"), status("/v1/retire", b"{}"), status("/v1/cancel", b"{}"), status("/v1/start", b"{}")
)
forged = {"KCR-Session-Uid": "x", "KCR-Epoch": "999999", "KCR-Expires": "9999999999", "KCR-Signature": "AA=="}
print(status("/v1/state", **forged), status("/v1/cancel", json.dumps({}).encode(), **forged))
flood = []
for _ in range(40):
    connection = socket.create_connection(("127.0.0.1", 8790), timeout=5)
    connection.sendall(b"GET /v1/state HTTP/1.1\r\nHost: x\r\n")
    flood.append(connection)
junk = socket.create_connection(("127.0.0.1", 8790), timeout=5)
junk.sendall(b"\0" * 100_000)
server = socket.create_server(("127.0.0.1", 0))
mine = socket.create_connection(server.getsockname(), timeout=5)
server.accept()[0].sendall(b"localhost is mine")
print(mine.recv(99).decode())

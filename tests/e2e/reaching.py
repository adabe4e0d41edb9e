"""What can be reached from somewhere: one program that tries many addresses at once, and another that
listens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from e2e.kube import Kube, Object

LISTENED: Final = (8080, 8081)
"""TCP ports of a listener."""
LISTENED_UDP: Final = (53, 8080)

LISTENER: Final = f"""
import socket, threading, time
def tcp(port):
    server = socket.create_server(('', port))
    while True:
        server.accept()[0].close()
def udp(port):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(('', port))
    while True:
        server.sendto(b'here', server.recvfrom(64)[1])
for kind, ports in ((tcp, {LISTENED}), (udp, {LISTENED_UDP})):
    for port in ports:
        threading.Thread(target=kind, args=(port,), daemon=True).start()
time.sleep(3600)
"""

WHILE_ASKED: Final = f"""
import os, sys, threading
def wait():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=wait).start()
{LISTENER}"""
"""A listener that ends with its input."""

# A packet that a policy drops is never answered: three seconds are two more tries of TCP's own.
PROBE: Final = """
import json, socket, sys, threading
found = {}
def udp(host, port):
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(1)
    asker.connect((host, port))
    for _ in range(3):
        try:
            asker.send(b'?')
            return asker.recv(16)
        except TimeoutError:
            pass
    raise TimeoutError('no answer')
def look(name, kind, host, port):
    try:
        if kind == 'name':
            socket.getaddrinfo(host, port)
        elif kind == 'udp':
            udp(host, port)
        else:
            socket.create_connection((host, port), 3).close()
        found[name] = 'open'
    except OSError as refused:
        found[name] = repr(refused)
asked = json.loads(sys.argv[1])
threads = [threading.Thread(target=look, args=(name, *target)) for name, target in asked.items()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Target:
    """Something to connect to."""

    host: str
    port: int
    kind: str = "tcp"
    """tcp, udp, or name: whether a name is resolved."""


Targets = Mapping[str, Target]
"""By a name for messages."""


@dataclass(frozen=True)
class Place:
    """A container whose image has Python: where connections come from."""

    namespace: str
    pod: str
    container: str

    @classmethod
    def of(cls, pod: Object, container: str) -> "Place":
        """A container of a pod."""
        return cls(pod["metadata"]["namespace"], pod["metadata"]["name"], container)


def argument(targets: Targets) -> str:
    """The probe's one argument."""
    return json.dumps({name: [target.kind, target.host, target.port] for name, target in targets.items()})


def reached(told: str) -> set[str]:
    """The names of what the probe has reached, by what it wrote."""
    return {name for name, how in json.loads(told).items() if how == "open"}


def reached_from(kube: Kube, place: Place, targets: Targets) -> set[str]:
    """The names of what can be reached from a place. No program of a user is asked: the probe is started in
    the container by `kubectl exec`."""
    command = ["--", "python", "-c", PROBE, argument(targets)]
    where = ["--namespace", place.namespace, "exec", place.pod, "--container", place.container]
    return reached(kube.kubectl(*where, *command).stdout)

"""The object store of the deployed system, seen from outside: through a port that kubectl forwards."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from minio import Minio

from e2e.deployment import NAMESPACE, SYSTEM_NAMESPACE
from e2e.kube import Kube
from e2e.waiting import eventually

SERVICE, SECRET, BUCKET, PORT = "kubecoderun-store", "kubecoderun-store", "kubecoderun", 7070


class ObjectStore:
    """Lists what sessions have in the store."""

    def __init__(self, client: Minio) -> None:
        self._client = client

    def objects(self, session: str) -> set[str]:
        """Names of the objects of one session."""
        prefix = f"kubecoderun/{NAMESPACE}/{session}/"
        return {
            str(found.object_name).removeprefix(prefix)
            for found in self._client.list_objects(BUCKET, prefix, recursive=True)
        }


@contextmanager
def object_store(kube: Kube) -> Iterator[ObjectStore]:
    """The store while its port is forwarded to a free one of this machine."""
    secret = kube.request("GET", f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{SECRET}")["data"]
    access, hidden = (base64.b64decode(secret[name]).decode() for name in ("access-key", "secret-key"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    forward = kube.forward(SYSTEM_NAMESPACE, f"service/{SERVICE}", f"{port}:{PORT}")
    try:
        eventually(lambda: _open(port), "the store's port is forwarded")
        yield ObjectStore(Minio(f"127.0.0.1:{port}", access, hidden, region="us-east-1", secure=False))
    finally:
        forward.terminate()
        forward.wait(10)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

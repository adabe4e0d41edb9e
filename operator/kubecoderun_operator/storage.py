"""Presigned URLs for a session's objects. Of objects the operator itself only ever reads results.

With the region given, minio-py signs without any request to the store.
"""

from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from minio import Minio

from kubecoderun_crds import names


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is and who signs; keys are left out of repr."""

    endpoint: str
    region: str
    bucket: str
    virtual_hosts: bool
    install_id: str


class Storage:
    """Signs for the objects of sessions, and of nothing else."""

    def __init__(self, address: StoreAddress, access_key: str, secret_key: str) -> None:
        url = urlsplit(address.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or url.path not in ("", "/"):
            raise ValueError("the store's endpoint must be http(s)://host[:port]")
        self._address = address
        self._client = Minio(
            url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            region=address.region,
            secure=url.scheme == "https",
        )
        if address.virtual_hosts:
            self._client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        else:
            self._client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    def code_url(self, namespace: str, session: str, seconds: float) -> str:
        """GET of the session's code, valid for so many seconds. A secret."""
        return self._client.presigned_get_object(
            self._address.bucket, self._key(namespace, session, names.CODE_OBJECT), _life(seconds)
        )

    def result_url(self, namespace: str, session: str, seconds: float) -> str:
        """PUT of the session's full result, valid for so many seconds. A secret."""
        return self._client.presigned_put_object(
            self._address.bucket, self._key(namespace, session, names.RESULT_OBJECT), _life(seconds)
        )

    def stored_result_url(self, namespace: str, session: str, seconds: float) -> str:
        """GET of that result, valid for so many seconds. A secret."""
        return self._client.presigned_get_object(
            self._address.bucket, self._key(namespace, session, names.RESULT_OBJECT), _life(seconds)
        )

    def _key(self, namespace: str, session: str, name: str) -> str:
        return names.object_key(self._address.install_id, namespace, session, name)


def _life(seconds: float) -> timedelta:
    """S3 allows one second to seven days."""
    return timedelta(seconds=min(max(1, int(seconds)), 7 * 86_400))

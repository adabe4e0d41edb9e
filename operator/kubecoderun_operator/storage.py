"""Grants for a session's objects: presigned URLs and forms. Nothing here talks to the store.

With the region given, minio-py signs without any request. A grant is a secret as long as it is valid.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import SplitResult, quote, urlsplit

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.datatypes import PostPolicy
from minio.helpers import queryencode
from minio.signer import presign_v4, sign_v4_s3
from minio.time import to_amz_date

from kubecoderun_crds import names
from kubecoderun_operator import slots
from kubecoderun_sidecar.protocol import FileSlot, FormTarget, OutputTarget

_LONGEST_SECONDS: Final = 7 * 86_400
"""S3 allows one second to seven days."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is, what our keys begin with, and how a pod uploads files: by one form for all of them,
    or by one presigned PUT for each."""

    endpoint: str
    region: str
    bucket: str
    virtual_hosts: bool
    install_id: str
    uploads: Literal["post", "put"] = "put"


class Storage:
    """Signs for the objects of sessions, and of nothing else."""

    def __init__(self, address: StoreAddress, access_key: str, secret_key: str) -> None:
        url = urlsplit(address.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or url.path not in ("", "/"):
            raise ValueError("the store's endpoint must be http(s)://host[:port]")
        self._address = address
        self._credentials = Credentials(access_key, secret_key)
        client = Minio(
            url.netloc,
            access_key=access_key,
            secret_key=secret_key,
            region=address.region,
            secure=url.scheme == "https",
        )
        if address.virtual_hosts:
            client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        else:
            client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        # The client knows the hosts of Amazon's regions; asking it once for each object would cost twice as
        # much as the signature.
        of_object = urlsplit(client.get_presigned_url("GET", address.bucket, "x"))
        self._bucket = of_object._replace(path=of_object.path.removesuffix("/x") or "/", query="")

    # --- for the sidecar ----------------------------------------------------------------------------

    def code_url(self, namespace: str, session: str, seconds: float) -> str:
        """GET of the session's code, valid for so many seconds."""
        return self._presigned("GET", self._key(namespace, session, names.CODE_OBJECT), seconds)

    def result_url(self, namespace: str, session: str, seconds: float) -> str:
        """PUT of the session's full result, valid for so many seconds."""
        return self._presigned("PUT", self._key(namespace, session, names.RESULT_OBJECT), seconds)

    def stored_result_url(self, namespace: str, session: str, seconds: float) -> str:
        """GET of that result, valid for so many seconds."""
        return self._presigned("GET", self._key(namespace, session, names.RESULT_OBJECT), seconds)

    def put_urls(self, namespace: str, session: str, objects: list[str], seconds: float) -> list[str]:
        """PUT of each of these objects of the session, valid for so many seconds."""
        keys = [self._key(namespace, session, name) for name in objects]
        return list(
            slots.presigned(self._bucket, keys, self._address.region, self._credentials, _life(seconds))
        )

    def value_url(self, namespace: str, session: str, name: str, seconds: float) -> str:
        """GET of a tool result of the session, valid for so many seconds."""
        return self._presigned("GET", self._key(namespace, session, name), seconds)

    def file_url(self, namespace: str, session: str, file_id: str, seconds: float) -> str:
        """GET of a file of the session, valid for so many seconds. Raises ValueError for what is no id."""
        if not names.is_file_id(file_id):
            raise ValueError("not the id of a file")
        return self._presigned("GET", self._key(namespace, session, file_id), seconds)

    def outputs(
        self, namespace: str, session: str, *, files: int, file_bytes: int, seconds: float
    ) -> OutputTarget:
        """Uploads of new files of the session, valid for so many seconds.

        A form takes any number of files of at most file_bytes, whose keys begin like those of the session's
        files. files: how many can be uploaded where there is a URL for each; their size is not bounded then.
        """
        id_prefix = names.file_id_prefix(session)
        key_prefix = names.session_prefix(self._address.install_id, namespace, session)
        if self._address.uploads == "put":
            ids = names.file_ids(session, files)
            keys = [key_prefix + id for id in ids]
            urls = slots.presigned(
                self._bucket, keys, self._address.region, self._credentials, _life(seconds)
            )
            return OutputTarget(id_prefix, slots=tuple(map(FileSlot, ids, urls)))
        expiry = datetime.now(UTC) + timedelta(seconds=_life(seconds))
        policy = PostPolicy(self._address.bucket, expiry)
        policy.add_starts_with_condition("key", key_prefix + id_prefix)
        policy.add_starts_with_condition("x-amz-meta-path", "")
        policy.add_content_length_range_condition(0, file_bytes)
        fields = policy.form_data(self._credentials, self._address.region)
        return OutputTarget(id_prefix, FormTarget(self._bucket.geturl(), key_prefix, fields))

    # --- for the operator itself --------------------------------------------------------------------

    def prefix(self, namespace: str, session: str = "") -> str:
        """What all keys of a session, or of all sessions of a namespace, begin with."""
        install_id = self._address.install_id
        if session:
            return names.session_prefix(install_id, namespace, session)
        return names.namespace_prefix(install_id, namespace)

    def request(
        self, method: str, query: Mapping[str, str], body: bytes = b"", *, key: str = ""
    ) -> tuple[str, dict[str, str]]:
        """URL and headers of a request about an object, or the bucket if there is no key; valid now."""
        pairs = sorted(f"{queryencode(name)}={queryencode(value)}" for name, value in query.items())
        path = f"{self._bucket.path.rstrip('/')}/{quote(key)}" if key else self._bucket.path
        url = self._bucket._replace(path=path, query="&".join(pairs))
        digest, now = hashlib.sha256(body).hexdigest(), datetime.now(UTC)
        headers = {"Host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(now)}
        if body:
            headers["Content-MD5"] = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self._address.region,
            headers=dict(headers),
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        return url.geturl(), {name: str(value) for name, value in signed.items()}

    # --- inside -------------------------------------------------------------------------------------

    def _presigned(self, method: str, key: str, seconds: float) -> str:
        signed: SplitResult = presign_v4(
            method=method,
            url=self._bucket._replace(path=f"{self._bucket.path.rstrip('/')}/{key}"),
            region=self._address.region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=_life(seconds),
        )
        return signed.geturl()

    def _key(self, namespace: str, session: str, name: str) -> str:
        return names.object_key(self._address.install_id, namespace, session, name)


def _life(seconds: float) -> int:
    return min(max(1, int(seconds)), _LONGEST_SECONDS)

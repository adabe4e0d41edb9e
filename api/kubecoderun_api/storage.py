"""The objects of sessions: programs, results and files that are too big for a resource."""

import asyncio
import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from yarl import URL

from kubecoderun_api.metrics import Metrics
from kubecoderun_api.object_writer import ObjectWriter
from kubecoderun_api.signing import Bucket, Signed, StoreAccess
from kubecoderun_api.transfer import Body, Bytes, Call, Reader, Reply, StoreError, Transfer
from kubecoderun_crds import names

Json = dict[str, Any]
_THREAD_BYTES: Final = 1024 * 1024
_NOT_FOUND: Final = frozenset({404})
_READ_ANSWERS: Final = frozenset({404, 416})


class Store:
    """Objects of sessions of one namespace. Everything raises StoreError if the store cannot do it."""

    def __init__(
        self, access: StoreAccess | None, metrics: Metrics, *, install_id: str, namespace: str, seconds: float
    ) -> None:
        self._install_id = install_id
        self._namespace = namespace
        self._bucket = Bucket(access) if access else None
        self._transfer = Transfer(metrics, seconds=seconds, ca_file=access.ca_file if access else None)

    async def open(self) -> None:
        """Make the connection pool. Needs a running event loop."""
        await self._transfer.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._transfer.close()

    # --- programs and results -----------------------------------------------------------------------

    async def put_code(self, session: str, code: bytes) -> Json:
        """Store a program; returns the session's codeRef."""
        digest = await _sha256(code)
        await self._object(session, names.CODE_OBJECT).put(Bytes(code))
        return {"bytes": len(code), "sha256": digest}

    async def put_value(self, session: str, name: str, value: bytes) -> Json:
        """Store a tool result; returns the session's valueRef."""
        reference = {"bytes": len(value), "sha256": await _sha256(value)}
        await self._object(session, name).put(Bytes(value))
        return reference

    async def get_value(self, session: str, name: str, reference: Mapping[str, Any]) -> bytes:
        """The input of a tool call that the session has a reference to."""
        value = (await self._object(session, name).call("GET")).content
        if len(value) != reference["bytes"] or await _sha256(value) != reference["sha256"]:
            raise StoreError("a stored value is not the one that was promised")
        return value

    async def get_result(self, session: str) -> Json:
        """The full result the sidecar has kept."""
        raw = (await self._object(session, names.RESULT_OBJECT).call("GET")).content
        try:
            result = json.loads(raw)
        except ValueError:
            result = None
        if not isinstance(result, dict):
            raise StoreError("the stored result is not a JSON object")
        return result

    # --- files --------------------------------------------------------------------------------------

    def write_file(self, session: str, file: str, path: str) -> ObjectWriter:
        """Begin to store the file with that id; its path goes along, for people who look into the store."""
        return ObjectWriter(self._object(session, file, {names.METADATA_PATH: _as_header(path)}))

    async def read_file(self, session: str, file: str, byte_range: str | None) -> Reader:
        """Begin to read a file, or the part that an HTTP Range names: status 200, 206, 404 or 416."""
        headers = {"Range": byte_range} if byte_range else {}
        return await self._object(session, file).read(headers)

    async def file_size(self, session: str, file: str) -> int | None:
        """How many bytes the store has of a file; None if it has no such object."""
        return await self._object(session, file).size()

    async def remove_file(self, session: str, file: str) -> None:
        """Delete a file's bytes; fine if there are none."""
        await self._object(session, file).remove()

    async def find(self, prefix: str) -> list[tuple[str, str]]:
        """Session and name of the objects (at most 1000) of all sessions whose name begins like that."""
        start = names.session_prefix(self._install_id, self._namespace, prefix).removesuffix("/")
        query = {"list-type": "2", "max-keys": "1000", "prefix": start}
        bucket = self._open_bucket()
        reply = await self._transfer.call(
            Call(
                "GET",
                lambda lifetime: bucket.sign_bucket("GET", lifetime, query),
                session=prefix,
                about="list",
            )
        )
        home = start.removesuffix(prefix)
        return [
            (session, name)
            for key in _texts(reply.content, "Key")
            for session, _, name in [key.removeprefix(home).partition("/")]
            if key.startswith(home) and "/" not in name
        ]

    def _open_bucket(self) -> Bucket:
        if self._bucket is None:
            raise StoreError("no object store is configured")
        return self._bucket

    def _object(self, session: str, name: str, metadata: Mapping[str, str] | None = None) -> "_Object":
        key = names.object_key(self._install_id, self._namespace, session, name)
        return _Object(self._open_bucket(), self._transfer, key, session, name, metadata or {})


class _Object:
    """Requests about one object. Implements object_writer.Objects."""

    def __init__(
        self,
        bucket: Bucket,
        transfer: Transfer,
        key: str,
        session: str,
        name: str,
        metadata: Mapping[str, str],
    ) -> None:
        self._bucket = bucket
        self._transfer = transfer
        self._key = key
        self._session = session
        self._name = name
        self._metadata = metadata

    async def call(self, method: str, **options: Any) -> Reply:
        """One request with a short answer; options as in `_call`."""
        return await self._transfer.call(self._call(method, **options))

    async def read(self, headers: Mapping[str, str]) -> Reader:
        """Begin to read it; 404 and 416 are answers too."""
        return await self._transfer.read(self._call("GET", headers=headers, accepted=_READ_ANSWERS))

    async def size(self) -> int | None:
        """Its size in bytes; None if it does not exist."""
        reply = await self.call("HEAD", accepted=_NOT_FOUND)
        if reply.status in _NOT_FOUND:
            return None
        length = reply.headers.get("Content-Length", "")
        if not length.isdigit():
            raise StoreError("the store does not tell the size of an object")
        return int(length)

    async def put(self, body: Body) -> None:
        await self.call("PUT", body=body, metadata=self._metadata)

    async def begin(self) -> str:
        reply = await self.call("POST", query={"uploads": ""}, body=Bytes(b""), metadata=self._metadata)
        ids = _texts(reply.content, "UploadId")
        if len(ids) != 1 or not ids[0]:
            raise StoreError("the store does not tell the id of an upload")
        return ids[0]

    async def put_part(self, upload: str, number: int, body: Body) -> str:
        query = {"partNumber": str(number), "uploadId": upload}
        etag = (await self.call("PUT", query=query, body=body)).headers.get("ETag")
        if not etag:
            raise StoreError("the store does not tell the ETag of a part")
        return etag

    async def complete(self, upload: str, etags: list[str], size: int) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = Bytes(f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode())
        reply = await self.call("POST", query={"uploadId": upload}, body=body, accepted=_NOT_FOUND)
        # After an attempt that succeeded without an answer, the next one finds no upload any more. And S3 may
        # say 200 before it knows, and tell of an error in the body.
        doubtful = reply.status in _NOT_FOUND or _root(reply.content) == "Error"
        if doubtful and await self.size() != size:
            raise StoreError("the store could not put the parts together", reply.status)

    async def abort(self, upload: str) -> None:
        await self.call("DELETE", query={"uploadId": upload}, accepted=_NOT_FOUND)

    async def remove(self) -> None:
        await self.call("DELETE", accepted=_NOT_FOUND)

    def _call(
        self,
        method: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        accepted: frozenset[int] = frozenset(),
        metadata: Mapping[str, str] | None = None,
    ) -> Call:
        def sign(lifetime: timedelta) -> URL | Signed:
            if metadata:
                return self._bucket.sign_with(method, self._key, metadata, query)
            return self._bucket.sign(method, self._key, lifetime, query)

        return Call(
            method,
            sign,
            session=self._session,
            about=self._name,
            body=body,
            headers=headers or {},
            accepted=accepted,
        )


def _as_header(text: str) -> str:
    """Text as metadata of an object: ASCII as it is, all else as in RFC 2047, which is what S3's own tools
    read."""
    if text.isascii() and not text.startswith("=?") and text.strip() == text:
        return text
    return f"=?UTF-8?B?{b64encode(text.encode()).decode()}?="


def _texts(document: bytes, tag: str) -> list[str]:
    """Contents of all elements with that name, in whatever XML namespace."""
    return [element.text or "" for element in _parse(document).iter() if _local(element) == tag]


def _root(document: bytes) -> str:
    """Name of the outermost element; empty without any document."""
    return _local(_parse(document)) if document.strip() else ""


def _parse(document: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(document)
    except ElementTree.ParseError:
        raise StoreError("the store's answer is not XML") from None


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


async def _sha256(data: bytes) -> str:
    """Hash in a thread if it would hold up the others (hashing releases the interpreter lock)."""
    if len(data) <= _THREAD_BYTES:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()

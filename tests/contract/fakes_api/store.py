"""An object store that does what S3 does for presigned requests, and remembers what it was asked.

Tests look at `objects`, `uploads` and `asked`, and break things with the fields under "faults".
"""

import asyncio
import hashlib
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from contract.fakes_api.serving import serve

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Upload:
    """A multipart upload in progress."""

    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class FakeStore:
    """Objects by `/bucket/key`, uploads by id."""

    objects: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    """`x-amz-meta-path` by `/bucket/key`, as it was sent with an object or the start of an upload."""
    uploads: dict[str, Upload] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    """How often each operation was asked for: put, part, begin, complete, abort, delete, get, head, list."""
    queries: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    # faults
    statuses: list[int] = field(default_factory=list)
    """Answered to the next requests instead of doing them."""
    fail: Callable[[str], int | None] = lambda operation: None
    """Called with every operation: a status to answer with instead, 0 to cut the connection, or None."""
    early: Callable[[str], None] = lambda operation: None
    """Called with every operation before it waits for `open`."""
    mute: set[str] = field(default_factory=set)
    """Operations that are done once more, but never answered: the connection is cut."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: requests wait after their body has been read."""
    cut_after: int | None = None
    """How many bytes of a body that is read are sent before the connection is cut."""

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def files(self) -> dict[str, bytes]:
        """Objects by the last part of their key."""
        return {key.rpartition("/")[2]: content for key, content in self.objects.items()}

    @property
    def empty(self) -> bool:
        return not self.objects and not self.uploads

    async def handle(self, request: web.Request) -> web.StreamResponse:
        operation = _operation(request)
        self.asked[operation] += 1
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        body = await request.read()
        self.early(operation)
        await self.open.wait()
        status = self.statuses.pop(0) if self.statuses else self.fail(operation)
        if status == 0:
            return _cut(request)
        if status is not None:
            return web.Response(status=status)
        in_header = "Signature=" in request.headers.get("Authorization", "")
        if not in_header and "X-Amz-Signature" not in request.query:
            return web.Response(status=403)
        answer: web.StreamResponse = await getattr(self, f"_{operation}")(request, body)
        if operation in self.mute:
            self.mute.discard(operation)
            return _cut(request)
        return answer

    async def _put(self, request: web.Request, body: bytes) -> web.StreamResponse:
        self.objects[request.path] = body
        self.metadata[request.path] = request.headers.get("x-amz-meta-path", "")
        return web.Response(headers={"ETag": _etag(body)})

    async def _begin(self, request: web.Request, _: bytes) -> web.StreamResponse:
        name = f"upload/{len(self.queries)}+"
        self.uploads[name] = Upload(request.path)
        self.metadata[request.path] = request.headers.get("x-amz-meta-path", "")
        return _xml(f"<InitiateMultipartUploadResult {XMLNS}><UploadId>{name}</UploadId>")

    async def _part(self, request: web.Request, body: bytes) -> web.StreamResponse:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or upload.key != request.path:
            return web.Response(status=404)
        upload.parts[int(request.query["partNumber"])] = body
        return web.Response(headers={"ETag": _etag(body)})

    async def _complete(self, request: web.Request, body: bytes) -> web.StreamResponse:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or upload.key != request.path:
            return web.Response(status=404)
        wanted = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>(.*?)</ETag>", body.decode())
        parts = [upload.parts[int(number)] for number, _ in wanted]
        assert [etag for _, etag in wanted] == [_etag(part) for part in parts]
        assert all(len(part) >= 5 * 1024 * 1024 for part in parts[:-1])
        del self.uploads[request.query["uploadId"]]
        self.objects[request.path] = b"".join(parts)
        return _xml(f"<CompleteMultipartUploadResult {XMLNS}><Key>x</Key>")

    async def _abort(self, request: web.Request, _: bytes) -> web.StreamResponse:
        found = self.uploads.pop(request.query["uploadId"], None)
        return web.Response(status=404 if found is None else 204)

    async def _delete(self, request: web.Request, _: bytes) -> web.StreamResponse:
        self.objects.pop(request.path, None)
        return web.Response(status=204)

    async def _head(self, request: web.Request, _: bytes) -> web.StreamResponse:
        found = self.objects.get(request.path)
        if found is None:
            return web.Response(status=404)
        return web.Response(headers={"Content-Length": str(len(found)), "ETag": _etag(found)})

    async def _get(self, request: web.Request, _: bytes) -> web.StreamResponse:
        found = self.objects.get(request.path)
        if found is None:
            return web.Response(status=404)
        headers = {
            "ETag": _etag(found),
            "Content-Type": "binary/x-from-the-store",
            "x-amz-internal": "secret",
        }
        status, content = 200, found
        if wanted := request.headers.get("Range"):
            window = _window(wanted, len(found))
            if window is None:
                return web.Response(status=416)
            status, content = 206, found[window]
            headers["Content-Range"] = f"bytes {window.start}-{window.stop - 1}/{len(found)}"
        headers["Content-Length"] = str(len(content))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await response.write(content[: self.cut_after])
        if self.cut_after is not None:
            return _cut(request)
        await response.write_eof()
        return response

    async def _list(self, request: web.Request, _: bytes) -> web.StreamResponse:
        prefix = f"{request.path.rstrip('/')}/{request.query['prefix']}"
        bucket = request.path.rstrip("/") + "/"
        keys = sorted(key.removeprefix(bucket) for key in self.objects if key.startswith(prefix))
        contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
        return _xml(f"<ListBucketResult {XMLNS}><Prefix>{request.query['prefix']}</Prefix>{contents}")


def _operation(request: web.Request) -> str:
    query = request.query
    if request.method == "GET":
        return "list" if "list-type" in query else "get"
    if request.method == "PUT":
        return "part" if "partNumber" in query else "put"
    if request.method == "POST":
        return "begin" if "uploads" in query else "complete"
    if request.method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    return request.method.lower()


def _window(wanted: str, size: int) -> slice | None:
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last or size - 1) + 1, size)
    return slice(start, stop) if start < stop else None


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _xml(text: str) -> web.Response:
    tag = re.match(r"<(\w+)", text)
    assert tag is not None
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return web.Response(text=f"{head}{text}</{tag[1]}>", content_type="application/xml")


def _cut(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


@asynccontextmanager
async def object_store(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeStore]:
    """A running store."""
    store = FakeStore()
    app = web.Application(client_max_size=2**28)
    app.router.add_route("*", "/{key:.*}", store.handle)
    async with serve(app, tls) as url:
        store.url = url
        yield store

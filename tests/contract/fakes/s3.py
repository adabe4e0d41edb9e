"""An object store as far as the operator talks to one: lists with pages and prefixes, removal of objects.

It checks signatures by making them again, and its clock is its own.
"""

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from aiohttp import web
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from minio.time import from_iso8601utc

ACCESS_KEY, SECRET_KEY, REGION, BUCKET = "test-access", "test-secret", "us-east-1", "kubecoderun"
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass
class FakeS3:
    """Objects of one bucket by key, with the time at which they were written."""

    objects: dict[str, float] = field(default_factory=dict)
    now: float = 1_800_000_000.0
    """The store's clock."""
    url: str = ""
    statuses: list[int] = field(default_factory=list)
    """Answered to the next requests, instead of doing what they ask."""
    uploads: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Uploads in parts by id: the key, and when it was begun."""
    undeletable: set[str] = field(default_factory=set)
    page_size: int = 1000
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Method and prefix, or the number of keys, of each request."""
    answer: bytes | None = None
    """Answered instead of a list."""

    def put(self, key: str, age: float = 0.0) -> None:
        """An object that was written so many seconds ago."""
        self.objects[key] = self.now - age

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if (wrong := _signature(request, body)) is not None:
            return web.Response(status=403, text=f"<Error><Code>{wrong}</Code></Error>")
        response = self._answer(request, body)
        response.headers["Date"] = format_datetime(datetime.fromtimestamp(self.now, UTC), usegmt=True)
        return response

    def _answer(self, request: web.Request, body: bytes) -> web.Response:
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), text="<Error><Code>Injected</Code></Error>")
        if request.method == "DELETE":
            key = request.path.removeprefix(f"/{BUCKET}/")
            self.calls.append(("DELETE", key))
            found = self.uploads.get(request.query["uploadId"], ("", 0.0))[0] == key
            if found:
                del self.uploads[request.query["uploadId"]]
            return web.Response(status=204 if found else 404)
        if request.method == "POST" and "delete" in request.query:
            return self._remove(body)
        self.calls.append(("GET", request.query.get("prefix", "")))
        if self.answer is not None:
            return web.Response(body=self.answer)
        return self._unfinished(request) if "uploads" in request.query else self._list(request)

    def _unfinished(self, request: web.Request) -> web.Response:
        query = request.query
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        entries = sorted(
            (key, id, at) for id, (key, at) in self.uploads.items() if key.startswith(query["prefix"])
        )
        rest = [entry for entry in entries if entry[:2] > after]
        page = rest[: min(self.page_size, int(query["max-uploads"]))]
        inner = f"<IsTruncated>{str(len(rest) > len(page)).lower()}</IsTruncated>"
        if len(rest) > len(page):
            inner += f"<NextKeyMarker>{escape(page[-1][0])}</NextKeyMarker>"
            inner += f"<NextUploadIdMarker>{escape(page[-1][1])}</NextUploadIdMarker>"
        for key, id, at in page:
            begun = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            inner += (
                f"<Upload><Key>{escape(key)}</Key><UploadId>{escape(id)}</UploadId>"
                f"<Initiated>{begun}</Initiated></Upload>"
            )
        return web.Response(
            text=f'<ListMultipartUploadsResult xmlns="{_SPACE}">{inner}</ListMultipartUploadsResult>'
        )

    def _list(self, request: web.Request) -> web.Response:
        prefix, delimiter = request.query["prefix"], request.query.get("delimiter", "")
        entries: dict[str, str] = {}
        for key in sorted(self.objects):
            if not key.startswith(prefix):
                continue
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if found:
                common = prefix + head + delimiter
                entries[common] = f"<CommonPrefixes><Prefix>{escape(common)}</Prefix></CommonPrefixes>"
            else:
                at = datetime.fromtimestamp(self.objects[key], UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                entries[key] = (
                    f"<Contents><Key>{escape(key)}</Key><LastModified>{at}</LastModified><Size>1</Size></Contents>"
                )
        size = min(self.page_size, int(request.query["max-keys"]))
        after = request.query.get("continuation-token", "")
        rest = [key for key in sorted(entries) if key > after]
        page = rest[:size]
        more = f"<IsTruncated>{str(len(rest) > size).lower()}</IsTruncated>"
        if len(rest) > size:
            more += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        inner = "".join(entries[key] for key in page)
        return web.Response(text=f'<ListBucketResult xmlns="{_SPACE}">{inner}{more}</ListBucketResult>')

    def _remove(self, body: bytes) -> web.Response:
        root = ElementTree.fromstring(body)
        keys = [found.text or "" for found in root.iter(f"{{{_SPACE}}}Key")]
        self.calls.append(("POST", str(len(keys))))
        errors = ""
        for key in keys:
            if key in self.undeletable:
                errors += f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code></Error>"
            else:
                self.objects.pop(key, None)
        return web.Response(text=f'<DeleteResult xmlns="{_SPACE}">{errors}</DeleteResult>')


def _signature(request: web.Request, body: bytes) -> str | None:
    """What is wrong with the signature of a request."""
    names = ("Host", "x-amz-content-sha256", "x-amz-date", "Content-MD5")
    headers = {name: request.headers[name] for name in names if name in request.headers}
    digest = hashlib.sha256(body).hexdigest()
    if headers.get("x-amz-content-sha256") != digest:
        return "XAmzContentSHA256Mismatch"
    stamp = headers["x-amz-date"]
    date = from_iso8601utc(f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:11]}:{stamp[11:13]}:{stamp[13:15]}Z")
    assert date is not None
    made = sign_v4_s3(
        method=request.method,
        url=urlsplit(f"http://{request.host}{request.rel_url.raw_path_qs}"),
        region=REGION,
        headers=dict(headers),
        credentials=Credentials(ACCESS_KEY, SECRET_KEY),
        content_sha256=digest,
        date=date,
    )
    return None if made["Authorization"] == request.headers.get("Authorization") else "SignatureDoesNotMatch"


@asynccontextmanager
async def fake_s3() -> AsyncIterator[FakeS3]:
    """A running store."""
    store = FakeS3()
    app = web.Application()
    app.router.add_route("*", f"/{BUCKET}", store.handle)
    app.router.add_route("*", f"/{BUCKET}/{{key:.+}}", store.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield store
    finally:
        await runner.cleanup()

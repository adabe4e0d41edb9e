"""An object store that answers as badly as a test wants."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

Respond = Callable[["Call", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A form as it came: its fields in order, and the bytes of its last one, `file`."""

    fields: dict[str, str]
    file: bytes


class FakeStore:
    """Keeps what is put or posted; `faults` are played first, one per request, instead of an honest answer.
    With `keep_alive` a connection serves any number of requests, otherwise it is closed after the first."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.forms: dict[str, Form] = {}
        """Posted objects, by key."""
        self.faults: list[Respond] = []
        self.calls: list[Call] = []
        self.connections = 0
        self.keep_alive = True
        self.at_once = 0
        """Most requests that were being answered at a time."""
        self.delay = 0.0
        self._busy = 0
        self.base = ""

    def url(self, name: str) -> str:
        """A presigned URL; the signature is the secret that must appear nowhere."""
        return f"{self.base}/{name}?X-Amz-Signature=s3cr3t"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                call = await _read(reader)
                self.calls.append(call)
                self._busy += 1
                self.at_once = max(self.at_once, self._busy)
                try:
                    await asyncio.sleep(self.delay)
                    fault = self.faults.pop(0) if self.faults else None
                    await (fault or self._honest)(call, writer)
                    await writer.drain()
                finally:
                    self._busy -= 1
                # A fault may be half an answer.
                if fault is not None or not self.keep_alive:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _honest(self, call: Call, writer: asyncio.StreamWriter) -> None:
        name = call.target.split("?")[0].lstrip("/")
        if call.method == "PUT":
            self.objects[name] = call.body
            writer.write(head(200, 0))
            return
        if call.method == "POST":
            form = read_form(call)
            self.forms[form.fields["key"]] = form
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        data = self.objects.get(name)
        if data is None:
            writer.write(head(404, 0))
            return
        start = int(call.headers.get("range", "bytes=0-")[6:].rstrip("-"))
        status = 206 if "range" in call.headers else 200
        extra = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n" if status == 206 else ""
        writer.write(head(status, len(data) - start, extra))
        for position in range(start, len(data), 1 << 18):
            writer.write(data[position : position + (1 << 18)])
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Call:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
    method, target, _version = lines[0].split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
    return Call(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def read_form(call: Call) -> Form:
    """A multipart body, read as strictly as a store would."""
    kind, _, boundary = call.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    fields: dict[str, str] = {}
    opening = b"--" + boundary.encode()
    body = call.body
    while True:
        assert body.startswith(opening + b"\r\n"), body[:100]
        part_head, _, body = body[len(opening) + 2 :].partition(b"\r\n\r\n")
        named = re.fullmatch(rb'Content-Disposition: form-data; name="([^"]+)"(.*)', part_head, re.DOTALL)
        assert named is not None, part_head
        if named[1] == b"file":
            assert body.endswith(b"\r\n" + opening + b"--\r\n"), "file comes last"
            return Form(fields, body[: -len(opening) - 6])
        value, _, body = body.partition(b"\r\n" + opening)
        body = opening + body
        fields[named[1].decode()] = value.decode()


def head(status: int, length: int, extra: str = "") -> bytes:
    """Status line and headers."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{extra}\r\n".encode()


def status(code: int, extra: str = "") -> Respond:
    """Answer with a bare status."""

    async def respond(_call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(head(code, 0, extra))

    return respond


def says(data: bytes) -> Respond:
    """Answer with exactly these bytes, then hang up."""

    async def respond(_call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return respond


def resets() -> Respond:
    """Hang up without a word."""

    async def respond(_call: Call, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    return respond


def silence() -> Respond:
    """Never answer."""

    async def respond(_call: Call, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    return respond


@asynccontextmanager
async def fake_store(tls: ssl.SSLContext | None = None) -> AsyncGenerator[FakeStore]:
    """A store on a port of its own."""
    store = FakeStore()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await store.serve(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    store.base = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield store
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

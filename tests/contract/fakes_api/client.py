"""A plain HTTP/1.1 client that shows what libraries hide: raw paths, when bytes come, who closes."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass
class Reply:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    raw: bytes
    """The body, without chunk framing."""
    chunks: list[tuple[float, bytes]]
    """Each chunk and its time in seconds since the request; one for a body with a length."""
    seconds: float

    @property
    def json(self) -> Json:
        return json.loads(self.raw)

    @property
    def spaces(self) -> list[float]:
        """When the spaces came."""
        return [moment for moment, data in self.chunks if data == b" "]


class Connection:
    """One TCP connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(*self._address, limit=2**24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        length: bool = True,
    ) -> None:
        """Write a request; without `length` as one chunk. A length or an encoding in `headers` stands."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if {"Content-Length", "Transfer-Encoding"} & set(headers or {}):
            pass
        elif body and length:
            lines.append(f"Content-Length: {len(body)}")
        elif body:
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif method == "POST":
            lines.append("Content-Length: 0")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await self.writer.drain()

    async def reply(self, method: str = "GET") -> Reply:
        """Read one response."""
        started = time.monotonic()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        chunks: list[tuple[float, bytes]] = []
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                data = (await self.reader.readexactly(size + 2))[:-2]
                chunks.append((time.monotonic() - started, data))
            await self.reader.readline()
        elif method != "HEAD" and int(headers.get("content-length", "0")):
            data = await self.reader.readexactly(int(headers["content-length"]))
            chunks.append((time.monotonic() - started, data))
        raw = b"".join(data for _, data in chunks)
        return Reply(int(head[0].split()[1]), headers, raw, chunks, time.monotonic() - started)

    def abort(self) -> None:
        """Leave at once, whatever is still to be sent."""
        self.writer.transport.abort()

    async def closed(self, seconds: float = 1.0) -> bool:
        """Whether the server closes the connection within that time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False

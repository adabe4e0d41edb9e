"""HTTP/1.1 towards the object store: kept connections, one request at a time on each.

Heads go through h11. Bodies whose length is known do not: they flow as plain bytes through one fixed buffer
per connection, which costs neither memory nor copies. Every wait is bounded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11

CONNECT_SECONDS = 2.0
IDLE_SECONDS = 10.0
"""Longest wait for one piece of a body, or for an answer, or for the store to take a piece."""
BUFFER_BYTES = 1 << 18
"""Per connection; also the longest piece of a body."""
_GATHERED_BYTES = 64 << 10
"""Up to this size the parts of a request are copied together and sent at once."""

Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads."""

    host: str
    port: int
    secure: bool
    host_header: str
    path: str


class Connection(asyncio.BufferedProtocol):
    """One connection to the store."""

    def __init__(self) -> None:
        self.used = False
        """It has carried an exchange before."""
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._filled = 0
        """Bytes of the buffer that have arrived."""
        self._taken = 0
        """Bytes of the buffer that the reader has, or has had."""
        self._reading = True
        self._ended = False
        self._error: BaseException | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    async def open(cls, target: Target, tls: ssl.SSLContext | None, seconds: float) -> Connection:
        """Connect within so many seconds; OSError (ssl.SSLError is one) or TimeoutError when that is
        impossible."""
        async with asyncio.timeout(seconds):
            _transport, connection = await asyncio.get_running_loop().create_connection(
                cls, target.host, target.port, ssl=tls
            )
        return connection

    @property
    def alive(self) -> bool:
        """Nothing has come since the last exchange, not even its end."""
        return not self._ended and self._filled == self._taken

    @property
    def arrived(self) -> bool:
        """There is something to read, or the end."""
        return self._ended or self._filled > self._taken

    async def read(self) -> memoryview:
        """What has arrived next, empty at the end of the stream. Valid until the next call."""
        if self._taken == self._filled:
            self._taken = self._filled = 0
            self._readable.clear()
            if not self._reading and self._transport is not None and not self._ended:
                self._reading = True
                self._transport.resume_reading()
            if not self._ended:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._readable.wait()
        if self._error is not None and self._taken == self._filled:
            raise self._error
        piece = self._buffer[self._taken : self._filled]
        self._taken = self._filled
        return piece

    async def write(self, *parts: Data) -> None:
        """Send, and wait until the kernel has everything: `parts` may change afterwards."""
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection is closed")
        for part in parts:
            self._transport.write(part)
        if not self._writable.is_set():
            async with asyncio.timeout(IDLE_SECONDS):
                await self._writable.wait()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        # Everything but 0 would let `write` return while the transport still refers to its parts. With TLS
        # they have been encrypted by then, and 0 is a limit that asyncio never sees the buffer under.
        secure = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1 if secure else 0)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == len(self._buffer) and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()
        self._readable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._writable.set()

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._error = self._error or error
        self._readable.set()


class Exchange:
    """One request and its answer."""

    def __init__(
        self, connection: Connection, target: Target, method: str, headers: list[tuple[str, str]]
    ) -> None:
        self._connection = connection
        self._http = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method=method, target=target.path, headers=[("Host", target.host_header), *headers]
        )
        self._unsent = bytearray(self._http.send(request) or b"")
        """Small parts are gathered here."""
        self._length: int | None = None
        self._left = 0
        self._keep = False
        self.answered = False
        """The store has begun to answer."""

    @property
    def reusable(self) -> bool:
        """The answer has been read to its end, and another request may follow."""
        return self._keep and not self._left

    async def send(self, part: Data) -> bool:
        """Send the next part of the body, which may change afterwards. False: the store answers already, so
        it does not want the rest."""
        if self._connection.arrived:
            return False
        if len(self._unsent) + len(part) <= _GATHERED_BYTES:
            self._unsent += part
            return True
        gathered, self._unsent = self._unsent, bytearray()
        await self._connection.write(gathered, part)
        return True

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (lower-case names) of the answer, once the request has been sent."""
        if self._unsent:
            await self._connection.write(self._unsent)
            self._unsent = bytearray()
        while not isinstance(event := self._http.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                await self._receive()
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the answer broke off")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        self._frame(event, headers)
        return event.status_code, headers

    async def body(self) -> AsyncIterator[Data]:
        """The answer's body, in pieces of bounded size; each is valid until the next one is asked for."""
        if self._length is None:
            async for framed in self._framed_body():
                yield framed
            return
        piece: Data = self._http.trailing_data[0]
        while self._left:
            if not piece:
                piece = await self._connection.read()
                if not piece:
                    raise h11.RemoteProtocolError("the answer broke off")
            if len(piece) > self._left:
                self._keep = False
                piece = piece[: self._left]
            self._left -= len(piece)
            yield piece
            piece = b""

    async def drop_body(self) -> None:
        """Read to the end of a short body nobody wants, so that the connection can be used again."""
        if self._length is not None and self._length <= BUFFER_BYTES:
            async for _piece in self.body():
                pass

    async def _framed_body(self) -> AsyncIterator[bytes]:
        """A body without a length: in chunks, or up to the end of the connection."""
        while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                raise h11.RemoteProtocolError("the answer broke off")

    async def _receive(self) -> None:
        piece = await self._connection.read()
        self.answered = self.answered or len(piece) > 0
        self._http.receive_data(bytes(piece))

    def _frame(self, answer: h11.Response, headers: dict[str, str]) -> None:
        """How long the body is, and what may come after it."""
        if answer.status_code in (204, 304):
            self._length = 0
        elif "transfer-encoding" not in headers and "content-length" in headers:
            self._length = int(headers["content-length"])
        self._left = self._length or 0
        kept = answer.http_version == b"1.1" and "close" not in headers.get("connection", "").lower()
        self._keep = kept and self._length is not None

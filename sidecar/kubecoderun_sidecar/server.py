"""The HTTP/1.1 server of a pod: keep-alive connections with everything bounded that a stranger can send.

Bodies come before signatures are checked (the signature covers the body), so sizes, times, connections and
the memory of all bodies together have limits, and connections that never proved themselves give way first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from kubecoderun_sidecar.answers import Refusal
from kubecoderun_sidecar.protocol import MAX_BODY_BYTES

MAX_CONNECTIONS = 32
MAX_HEADER_BYTES = 16 << 10
"""Headers longer than this may pass when they come in one piece, those longer than twice this never do."""
SMALL_BODY_BYTES = 64 << 10
"""Bodies up to this size are always read; larger ones share LARGE_BODIES_BYTES."""
LARGE_BODIES_BYTES = 4 << 20
REQUEST_SECONDS = 10.0
"""From opening a connection to the first byte, and from the first byte of a request to its last."""
IDLE_SECONDS = 7200.0
"""Between requests: operators keep a connection to every warm pod, opened long before it is needed."""
WRITE_SECONDS = 10.0
"""A reader that takes nothing for so long is cut off; its run goes on."""
_READ_BYTES = 16 << 10
_LINGER_SECONDS = 1.0

JSON = b"application/json"


class HangUpError(Exception):
    """The client has left, so nothing more can be said on this connection."""


class _RejectedError(Exception):
    """A request that is answered before it is read to its end; the connection closes after that."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.error)
        self.status = status
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One client connection, one request at a time. Handlers answer with `reply`, or `send` pieces."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trusted = False
        """Set by the handler once a signature was good."""
        self.busy = False
        """A request is being read or answered."""
        self.last_used = time.monotonic()
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        self._reserved = 0
        self._patience = REQUEST_SECONDS

    def abort(self) -> None:
        """Cut the connection."""
        self._writer.transport.abort()

    async def reply(self, status: int, body: bytes = b"", *, close: bool = False) -> None:
        """A whole JSON answer in one write."""
        headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
        if close:
            headers.append((b"connection", b"close"))
        await self._write(self._head(status, headers) + self._data(body) + self._end())

    async def send(self, piece: bytes, content_type: bytes, *, last: bool) -> None:
        """A piece of a chunked 200 answer, in one write with what has to come before and after it.
        HangUpError when the client is gone."""
        head = b""
        if self._http.our_state is h11.SEND_RESPONSE:
            headers = [(b"content-type", content_type), (b"transfer-encoding", b"chunked")]
            head = self._head(200, headers)
        await self._write(head + self._data(piece) + (self._end() if last else b""))

    async def serve(self) -> None:
        """Answer requests until the client leaves or breaks the rules."""
        try:
            while self._http.our_state is h11.IDLE:
                try:
                    request = await self._read_request()
                    await self._server.handle(request, self)
                finally:
                    self._release()
                self.busy = False
                self._patience = IDLE_SECONDS
                self._next_cycle()
        except _RejectedError as error:
            await self._reject(error.status, error.refusal)
        except h11.RemoteProtocolError as error:
            await self._reject(error.error_status_hint, Refusal("bad_request", "this is not HTTP/1.1"))

    def _next_cycle(self) -> None:
        """Make ready for another request, if both sides keep the connection."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    # -- reading

    async def _read_request(self) -> Request:
        """The next request, whole; HangUpError when there is none, TimeoutError when it takes too long."""
        if not self._http.trailing_data[0]:
            async with asyncio.timeout(self._patience):
                self._http.receive_data(await self._reader.read(_READ_BYTES))
        self.busy = True
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                raise HangUpError
            self.last_used = time.monotonic()
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
            self._check_length(headers)
            if self._http.they_are_waiting_for_100_continue:
                await self._write(
                    self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            body = bytearray()
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                raise HangUpError
        return Request(head.method.decode("ascii"), head.target.decode("ascii"), headers, bytes(body))

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    def _check_length(self, headers: dict[str, str]) -> None:
        """Refuse a body that is too long before reading it, and reserve room for a long one."""
        if "transfer-encoding" in headers:
            raise _RejectedError(411, Refusal("length_required", "send a Content-Length"))
        length = int(headers.get("content-length", "0"))
        if length > MAX_BODY_BYTES:
            raise _RejectedError(413, Refusal("too_large", f"a body has at most {MAX_BODY_BYTES} bytes"))
        if length > SMALL_BODY_BYTES:
            if self._server.large_bodies + length > LARGE_BODIES_BYTES:
                raise _RejectedError(503, Refusal("busy", "too many large requests at once"))
            self._reserved = length
            self._server.large_bodies += length

    def _release(self) -> None:
        self._server.large_bodies -= self._reserved
        self._reserved = 0

    # -- writing

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        return self._http.send(h11.Response(status_code=status, headers=headers)) or b""

    def _data(self, body: bytes) -> bytes:
        return self._http.send(h11.Data(data=body)) or b"" if body else b""

    def _end(self) -> bytes:
        return self._http.send(h11.EndOfMessage()) or b""

    async def _write(self, data: bytes) -> None:
        self.last_used = time.monotonic()
        if self._writer.transport.is_closing():
            raise HangUpError
        self._writer.write(data)
        # Nearly always the kernel has taken everything already.
        if self._writer.transport.get_write_buffer_size():
            async with asyncio.timeout(WRITE_SECONDS):
                await self._writer.drain()

    async def _reject(self, status: int, refusal: Refusal) -> None:
        """Say why, then let the client read it: closing with bytes unread would take the answer back."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self.reply(status, refusal.to_json(), close=True)
        self._writer.write_eof()
        async with asyncio.timeout(_LINGER_SECONDS):
            while await self._reader.read(_READ_BYTES):
                pass


Handler = Callable[[Request, Connection], Awaitable[None]]


class Server:
    """Accepts connections and gives their requests to `handle`, which answers each exactly once."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.large_bodies = 0
        """Bytes reserved for bodies over SMALL_BODY_BYTES that are being read or handled."""
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str | None, port: int) -> int:
        """Start to listen; the port it is, for a `port` of 0. OSError when it is taken."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=_READ_BYTES, backlog=64)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop to listen, and cut all connections."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            writer.transport.abort()
            return
        connection = Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            await connection.serve()
        except (HangUpError, TimeoutError, OSError):
            # The client left, or was too slow. What it asked for goes on without it.
            return
        except asyncio.CancelledError:
            # Only the end of the process cancels connections, and asyncio would report it as an error.
            return
        finally:
            self._connections.discard(connection)
            writer.close()

    def _make_room(self) -> bool:
        """Cut the connection that has been quiet longest: of those that never carried a signed request, or
        else of those that carry none now."""
        strangers = [connection for connection in self._connections if not connection.trusted]
        expendable = strangers or [connection for connection in self._connections if not connection.busy]
        if not expendable:
            return False
        oldest = min(expendable, key=lambda connection: connection.last_used)
        self._connections.discard(oldest)
        oldest.abort()
        return True

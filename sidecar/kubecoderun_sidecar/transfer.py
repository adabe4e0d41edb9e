"""Moves objects between the store and memory: presigned GET and PUT over a small HTTP/1.1 client.

Bodies stream in both directions, so memory does not grow with them. Every wait and every retry is bounded,
and every failure is one TransferError that never holds a URL (it is a secret).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import h11

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
"""Longest wait for one piece of a body, or for an answer, or for the store to take a piece."""
BACKOFF_SECONDS = (0.1, 0.4, 1.2)
"""Pauses between attempts, each plus up to as much again; their number bounds the retries."""
CHUNK_BYTES = 64 << 10

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class TransferError(Exception):
    """A transfer failed for good: `code_unavailable` (the object is not what was promised) or
    `store_unavailable` (the store did not answer, or refused)."""

    def __init__(self, error: Literal["code_unavailable", "store_unavailable"], message: str) -> None:
        super().__init__(message)
        self.error = error
        self.message = message


class _TransientError(Exception):
    """One attempt failed in a way that another may not."""


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    secure: bool
    host_header: str
    path: str


def _parse(url: str) -> _Target:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TransferError("store_unavailable", "the store's URL is malformed") from None
    valid = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or not valid:
        raise TransferError("store_unavailable", "the store's URL is malformed")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.hostname, port or (443 if secure else 80), secure, parts.netloc, path)


class Store:
    """The object store, through presigned URLs. `ca_file`: what its certificate is checked against."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str, size: int, sha256: str) -> AsyncGenerator[bytes]:
        """Yield an object's bytes; the last thing it does is to check size and hash.

        A broken transfer goes on where it stopped. Raises TransferError.
        """
        target = _parse(url)
        digest = hashlib.sha256()
        done = 0
        for attempt in range(len(BACKOFF_SECONDS) + 1):
            try:
                async with self._exchange(target, "GET", _range(done)) as exchange:
                    await exchange.send_head()
                    status, headers = await exchange.head()
                    skip = _check_download(status, headers, done, size)
                    async for chunk in exchange.body():
                        piece = chunk[skip:]
                        skip -= min(skip, len(chunk))
                        done += len(piece)
                        if done > size:
                            raise TransferError("code_unavailable", "the object is longer than promised")
                        digest.update(piece)
                        if piece:
                            yield piece
                break
            except _TransientError as error:
                if 0 < size == done:
                    break
                await _pause(attempt, error)
        if done != size or digest.hexdigest() != sha256:
            raise TransferError("code_unavailable", "the object is not the one that was promised")

    async def put(
        self, url: str, size: int, parts: Callable[[], AsyncIterator[bytes]], content_type: str
    ) -> None:
        """Upload `size` bytes; `parts` gives them from the start, once per attempt. Raises TransferError."""
        target = _parse(url)
        headers = [("Content-Type", content_type), ("Content-Length", str(size))]
        for attempt in range(len(BACKOFF_SECONDS) + 1):
            try:
                async with self._exchange(target, "PUT", headers) as exchange:
                    await exchange.send_head()
                    async for chunk in parts():
                        await exchange.send(chunk)
                    await exchange.send_end()
                    status, _headers = await exchange.head()
                if status not in (200, 201, 204):
                    _refuse(status, "upload")
                return
            except _TransientError as error:
                await _pause(attempt, error)

    @asynccontextmanager
    async def _exchange(
        self, target: _Target, method: str, headers: list[tuple[str, str]]
    ) -> AsyncIterator[_Exchange]:
        """One connection with one request; whatever breaks on it becomes a _TransientError."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    target.host,
                    target.port,
                    ssl=self._context() if target.secure else None,
                    limit=CHUNK_BYTES,
                )
            yield _Exchange(reader, writer, target, method, headers)
        except ssl.SSLCertVerificationError:
            raise TransferError("store_unavailable", "the store's certificate is not trusted") from None
        except TimeoutError:
            raise _TransientError("the store did not answer in time") from None
        except h11.ProtocolError:
            raise _TransientError("the store's answer broke off or is not HTTP") from None
        except OSError as error:
            raise _TransientError(f"the connection to the store failed ({type(error).__name__})") from None
        finally:
            if writer is not None:
                writer.transport.abort()

    def _context(self) -> ssl.SSLContext:
        # Only made when needed: the system's certificates take megabytes.
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError:
                raise TransferError("store_unavailable", "the store's CA file cannot be read") from None
        return self._tls


class _Exchange:
    """One request and its answer on a fresh connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: _Target,
        method: str,
        headers: list[tuple[str, str]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        always = [("Host", target.host_header), ("Connection", "close")]
        self._request = h11.Request(method=method, target=target.path, headers=[*always, *headers])

    async def send_head(self) -> None:
        """Send the request line and headers; with no body to come (GET), the whole request."""
        data = self._http.send(self._request) or b""
        if self._request.method == b"GET":
            data += self._http.send(h11.EndOfMessage()) or b""
        await self._write(data)

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body."""
        await self._write(self._http.send(h11.Data(data=chunk)) or b"")

    async def send_end(self) -> None:
        """End the body."""
        await self._write(self._http.send(h11.EndOfMessage()) or b"")

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(IDLE_SECONDS):
            await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (lower-case names) of the answer."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
                return event.status_code, headers

    async def body(self) -> AsyncIterator[bytes]:
        """The answer's body, in pieces of bounded size."""
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(IDLE_SECONDS):
                self._http.receive_data(await self._reader.read(CHUNK_BYTES))
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise h11.RemoteProtocolError("the answer broke off")
        assert not isinstance(event, type)
        return event


def _range(done: int) -> list[tuple[str, str]]:
    return [("Range", f"bytes={done}-")] if done else []


def _check_download(status: int, headers: dict[str, str], done: int, size: int) -> int:
    """How many bytes of the body to skip; raises for an answer that is not the rest of the object."""
    if status == 206 and done:
        if not headers.get("content-range", "").startswith(f"bytes {done}-"):
            raise TransferError("store_unavailable", "the store answered another range")
        return 0
    if status != 200:
        _refuse(status, "download")
    length = headers.get("content-length", str(size))
    if length != str(size):
        raise TransferError("code_unavailable", "the object has another size than promised")
    return done


def _refuse(status: int, what: str) -> None:
    """Raise for a status that is no success. Redirects are refused too: the URL is signed for one host."""
    message = f"the store refused the {what} with status {status}"
    if status in _TRANSIENT_STATUS:
        raise _TransientError(message)
    if what == "download" and status in (404, 410):
        raise TransferError("code_unavailable", "the object does not exist")
    raise TransferError("store_unavailable", message)


async def _pause(attempt: int, error: _TransientError) -> None:
    """Wait before the next attempt; TransferError when that was the last."""
    if attempt >= len(BACKOFF_SECONDS):
        raise TransferError("store_unavailable", str(error))
    # Pods that lost the same store must not come back in step.
    await asyncio.sleep(BACKOFF_SECONDS[attempt] * (1 + os.urandom(1)[0] / 255))


async def whole(data: bytes) -> AsyncIterator[bytes]:
    """`data` in pieces, for `Store.put`."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]

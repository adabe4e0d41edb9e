"""Requests to the object store, tried again while that may help. Bytes flow through aiohttp, piece by piece.

Signed URLs are never logged: failures are told by status or type alone.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp
from yarl import URL

from kubecoderun_api import log
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.signing import Signed
from kubecoderun_api.watching import backoff

PIECE_BYTES: Final = 64 * 1024
_CONNECTIONS: Final = 512
"""At once; a download holds one for as long as its client takes."""
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""The sidecar keeps at most 1 MiB of each stream of a result; the rest is room for JSON escapes."""
_UNREACHED_SECONDS: Final = 3.0
"""A store that takes no connection for so long is not there: somebody waits, and is told now."""
_CONNECT_SECONDS: Final = 1.5
_BUSY: Final = frozenset({408, 429})
_READING: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = {"Accept-Encoding": "identity"}
"""What is stored is what is wanted, byte by byte."""

Sign = Callable[[timedelta], URL | Signed]
"""Makes the URL of one attempt, valid for that long, perhaps with headers."""
T = TypeVar("T")


class StoreError(Exception):
    """The object store could not do it within the time limit, or there is none. Holds no URL and no name."""

    def __init__(self, cause: str, status: int = 0) -> None:
        super().__init__(cause)
        self.status = status
        """HTTP status of the store's last answer; 0 if there was none."""


class _Retry(StoreError):  # noqa: N818
    """This attempt failed, the next may not."""


class Body(Protocol):
    """What a request carries; can be read from the beginning once per attempt."""

    @property
    def size(self) -> int:
        """Bytes of all pieces together."""

    def pieces(self) -> Iterator[bytes]:
        """The content, at most PIECE_BYTES at a time."""


class Bytes:
    """A body that is in memory as a whole."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """See Body."""
        return len(self._content)

    def pieces(self) -> Iterator[bytes]:
        """See Body."""
        for start in range(0, len(self._content), PIECE_BYTES):
            yield self._content[start : start + PIECE_BYTES]


@dataclass(frozen=True)
class Call:
    """One request, however often it is tried."""

    method: str
    sign: Sign
    session: str
    """The session it is about, for the log."""
    about: str
    """The object it is about, for the log: an id or a word of ours."""
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[int] = frozenset()
    """Statuses beside 2xx that are an answer, not a failure."""


@dataclass(frozen=True)
class Reply:
    """A complete answer of the store."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Reader:
    """An answer whose content is read as it is wanted; little is read ahead. To be closed in any case."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content. Raises StoreError if it ends early."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StoreError(type(error).__name__) from None

    def close(self) -> None:
        """Give the connection back; if there is more to come, cut it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Transfer:
    """The connections to the store."""

    def __init__(self, metrics: Metrics, *, seconds: float, ca_file: Path | None) -> None:
        """`seconds` bounds one call with all its attempts, and each silence while an object is read."""
        self._metrics = metrics
        self._seconds = seconds
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool. Needs a running event loop."""
        tls = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
        connector = aiohttp.TCPConnector(ssl=tls, limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, headers=_HEADERS, auto_decompress=False)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(self, call: Call) -> Reply:
        """Send a request and read the whole answer. Raises StoreError."""

        async def attempt(url: URL | Signed, seconds: float) -> Reply:
            limit = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
            async with await self._send(call, url, limit) as response:
                return Reply(response.status, response.headers, await _read_bounded(response))

        return await self._persist(call, attempt)

    async def read(self, call: Call) -> Reader:
        """Send a request and leave it to the caller to read the content. Raises StoreError."""

        async def attempt(url: URL | Signed, seconds: float) -> Reader:
            async with asyncio.timeout(seconds):
                limit = aiohttp.ClientTimeout(
                    total=None, sock_read=self._seconds, sock_connect=_CONNECT_SECONDS
                )
                return Reader(await self._send(call, url, limit))

        return await self._persist(call, attempt)

    async def _send(
        self, call: Call, where: URL | Signed, limit: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """One attempt, up to the headers of an answer that is not a failure."""
        if self._session is None:
            raise StoreError("the store is not open")
        url, headers = (where.url, dict(where.headers)) if isinstance(where, Signed) else (where, {})
        headers |= call.headers
        if call.body is not None:
            headers["Content-Length"] = str(call.body.size)
        response = await self._session.request(
            call.method,
            url,
            data=None if call.body is None else _flow(call.body),
            headers=headers,
            timeout=limit,
            allow_redirects=False,
        )
        status = response.status
        if status < 300 or status in call.accepted:
            return response
        response.close()
        if status >= 500 or status in _BUSY:
            raise _Retry(f"status {status}", status)
        raise StoreError(f"status {status}", status)

    async def _persist(self, call: Call, attempt: Callable[[URL | Signed, float], Awaitable[T]]) -> T:
        """Try until the time limit as long as that may help."""
        deadline = time.monotonic() + self._seconds
        reached_by = min(deadline, time.monotonic() + _UNREACHED_SECONDS)
        reached = False
        failures = 0
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            failure: StoreError
            try:
                url = call.sign(timedelta(seconds=max(60.0, left + 30.0)))
                return await attempt(url, left)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                failure = _Retry(type(error).__name__)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure, reached = _Retry(type(error).__name__), True
            except StoreError as error:
                failure, reached = error, True
            failures += 1
            delay = backoff(failures)
            log.event(
                "store_failed",
                level=log.WARNING,
                session=call.session,
                method=call.method,
                object=call.about,
                cause=str(failure),
            )
            if not isinstance(failure, _Retry) or time.monotonic() + delay >= (
                deadline if reached else reached_by
            ):
                self._metrics.store_failures.labels("from" if call.method in _READING else "to").inc()
                raise StoreError(str(failure), failure.status) from None
            await asyncio.sleep(delay)


async def _flow(body: Body) -> AsyncIterator[bytes]:
    for piece in body.pieces():
        yield piece


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, total = [], 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > _MAX_ANSWER_BYTES:
            raise StoreError("the answer is longer than any that is expected")
        parts.append(chunk)
    return b"".join(parts)

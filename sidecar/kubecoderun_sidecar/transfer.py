"""Moves objects between the store and memory through presigned URLs and POST policies.

Bodies stream in both directions, so memory does not grow with them. Every wait and every retry is bounded,
and every failure is one TransferError that never holds a URL or a form's fields (they are secrets).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Literal
from urllib.parse import urlsplit

import h11

from kubecoderun_sidecar import metrics
from kubecoderun_sidecar.exchange import CONNECT_SECONDS, Connection, Data, Exchange, Target
from kubecoderun_sidecar.form import build_form
from kubecoderun_sidecar.protocol import FormTarget

BACKOFF_SECONDS = (0.1, 0.4, 1.2)
"""Pauses between attempts, each plus up to as much again; their number bounds the retries."""
UNREACHED_SECONDS = 3.0
"""A store that takes no connection for so long is not there: somebody waits, and is told now."""
_STILL_UNREACHED_SECONDS = 0.3
_SHORTEST_SECONDS = 0.1
_REMEMBERED_SECONDS = 10.0
"""For so long the next transfers give up sooner, so that a run with many objects waits once."""
CHUNK_BYTES = 64 << 10
_MAX_IDLE = 4
"""Connections that are kept for the next request."""

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})

Parts = Callable[[], AsyncGenerator[Data]]
"""Gives a body from its start, once per attempt; each piece need only be valid until the next."""


class TransferError(Exception):
    """A transfer failed for good: `object_unavailable` (the object is not what was promised) or
    `store_unavailable` (the store did not answer, or refused). `lasting`: it has been tried again and again,
    so what comes next is not likely to succeed either."""

    def __init__(
        self,
        error: Literal["object_unavailable", "store_unavailable"],
        message: str,
        *,
        lasting: bool = False,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.message = message
        self.lasting = lasting


class _TransientError(Exception):
    """One attempt failed in a way that another may not. `stale`: only because a kept connection had been
    closed meanwhile. `unreached`: no connection was made at all."""

    def __init__(self, message: str, *, stale: bool = False, unreached: bool = False) -> None:
        super().__init__(message)
        self.stale = stale
        self.unreached = unreached


class Store:
    """The object store. `ca_file`: what its certificate is checked against."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._unreached_at = -_REMEMBERED_SECONDS

    async def fetch(self, url: str, size: int, sha256: str | None = None) -> AsyncGenerator[Data]:
        """Yield an object's bytes, each piece valid until the next one is asked for; the last thing it does
        is to check size and hash.

        A broken transfer goes on where it stopped. Raises TransferError.
        """
        target = _parse(url)
        digest = hashlib.sha256()
        done = 0
        tries = self._tries()
        while True:
            try:
                async with self._exchange(target, "GET", _range(done), tries) as exchange:
                    status, headers = await exchange.head()
                    skip = _check_download(status, headers, done, size)
                    async for chunk in exchange.body():
                        piece = chunk[skip:]
                        skip -= min(skip, len(chunk))
                        done += len(piece)
                        if done > size:
                            raise TransferError("object_unavailable", "the object is longer than promised")
                        if sha256 is not None:
                            digest.update(piece)
                        if piece:
                            yield piece
                break
            except _TransientError as error:
                if 0 < size == done:
                    break
                await self._pause(tries, error)
        if done != size or sha256 not in (None, digest.hexdigest()):
            raise TransferError("object_unavailable", "the object is not the one that was promised")

    async def put(
        self, url: str, size: int, parts: Parts, content_type: str, *, attempts: int | None = None
    ) -> None:
        """Upload `size` bytes to a presigned URL. `attempts`: at most so many, by default one more than there
        are pauses. Raises TransferError, or what `parts` raises."""
        headers = [("Content-Type", content_type), ("Content-Length", str(size))]
        await self._upload("PUT", url, headers, parts, attempts)

    async def post(
        self,
        target: FormTarget,
        file_id: str,
        path: str,
        size: int,
        parts: Parts,
        *,
        attempts: int | None = None,
    ) -> None:
        """Upload one file of `size` bytes by a POST policy. Raises as `put` does."""
        form = build_form(target.fields, target.key_prefix + file_id, path, secrets.token_hex(24))
        length = len(form.before) + size + len(form.after)
        headers = [("Content-Type", form.content_type), ("Content-Length", str(length))]

        async def body() -> AsyncGenerator[Data]:
            yield form.before
            async with aclosing(parts()) as pieces:
                async for piece in pieces:
                    yield piece
            yield form.after

        await self._upload("POST", target.url, headers, body, attempts)

    def close(self) -> None:
        """Close the kept connections: whoever has a burst of requests behind them calls this."""
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    async def _upload(
        self, method: str, url: str, headers: list[tuple[str, str]], parts: Parts, attempts: int | None
    ) -> None:
        target = _parse(url)
        tries = self._tries(attempts)
        while True:
            try:
                async with self._exchange(target, method, headers, tries) as exchange:
                    complete = await _send_all(exchange, parts)
                    status, _headers = await exchange.head()
                    if status not in (200, 201, 204):
                        _refuse(status, "upload")
                    if not complete:
                        raise _TransientError("the store answered before it had the whole object")
                    await exchange.drop_body()
                return
            except _TransientError as error:
                await self._pause(tries, error)

    def _tries(self, most: int | None = None) -> _Tries:
        missing = time.monotonic() - self._unreached_at < _REMEMBERED_SECONDS
        return _Tries(_STILL_UNREACHED_SECONDS if missing else UNREACHED_SECONDS, most)

    async def _pause(self, tries: _Tries, error: _TransientError) -> None:
        try:
            await tries.pause(error)
        except TransferError:
            if error.unreached:
                self._unreached_at = time.monotonic()
            raise

    @asynccontextmanager
    async def _exchange(
        self, target: Target, method: str, headers: list[tuple[str, str]], tries: _Tries
    ) -> AsyncIterator[Exchange]:
        """One request on a kept connection or a new one; whatever breaks on it becomes a _TransientError."""
        connection: Connection | None = None
        exchange: Exchange | None = None
        try:
            connection = self._kept(target) or await Connection.open(
                target, self._context() if target.secure else None, tries.connect_seconds()
            )
            tries.reached()
            self._unreached_at = -_REMEMBERED_SECONDS
            exchange = Exchange(connection, target, method, headers)
            yield exchange
            metrics.STORE.inc(f"{method} answered")
            if exchange.reusable:
                self._keep(target, connection)
                connection = None
        except ssl.SSLCertVerificationError:
            message = "the store's certificate is not trusted"
            raise TransferError("store_unavailable", message, lasting=True) from None
        except TimeoutError:
            metrics.STORE.inc(f"{method} failed")
            if connection is None:
                raise _TransientError("the store takes no connection", unreached=True) from None
            raise _TransientError("the store did not answer in time") from None
        except (h11.ProtocolError, OSError) as error:
            stale = connection is not None and connection.used
            stale = stale and exchange is not None and not exchange.answered
            metrics.STORE.inc(f"{method} {'stale' if stale else 'failed'}")
            if isinstance(error, h11.ProtocolError):
                message = "the store's answer broke off or is not HTTP"
            else:
                message = f"the connection to the store failed ({type(error).__name__})"
            raise _TransientError(message, stale=stale, unreached=connection is None) from None
        finally:
            if connection is not None:
                connection.abort()

    def _kept(self, target: Target) -> Connection | None:
        connections = self._idle.get((target.host, target.port, target.secure), [])
        while connections:
            connection = connections.pop()
            if connection.alive:
                connection.used = True
                return connection
            connection.abort()
        return None

    def _keep(self, target: Target, connection: Connection) -> None:
        connections = self._idle.setdefault((target.host, target.port, target.secure), [])
        if connection.alive and len(connections) < _MAX_IDLE:
            connections.append(connection)
        else:
            connection.abort()

    def _context(self) -> ssl.SSLContext:
        # Only made when needed: the system's certificates take megabytes.
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError:
                raise TransferError("store_unavailable", "the store's CA file cannot be read") from None
        return self._tls


class _Tries:
    """Counts the attempts of one transfer, and waits between them. `seconds`: after so long without any
    connection there is no further one."""

    def __init__(self, seconds: float, most: int | None = None) -> None:
        self._left = len(BACKOFF_SECONDS) if most is None else min(most - 1, len(BACKOFF_SECONDS))
        self._made = 0
        self._until: float | None = time.monotonic() + seconds

    def reached(self) -> None:
        """The store is there."""
        self._until = None

    def connect_seconds(self) -> float:
        """How long the next connection may take."""
        return min(CONNECT_SECONDS, max(_SHORTEST_SECONDS, self._remaining()))

    async def pause(self, error: _TransientError) -> None:
        """Wait before the next attempt; TransferError when that was the last."""
        if error.stale:
            return
        if not self._left or self._remaining() < _SHORTEST_SECONDS:
            raise TransferError("store_unavailable", str(error), lasting=True)
        self._left -= 1
        metrics.RETRIES.inc()
        seconds = BACKOFF_SECONDS[self._made]
        self._made += 1
        # Pods that lost the same store must not come back in step.
        await asyncio.sleep(min(seconds * (1 + os.urandom(1)[0] / 255), self._remaining()))

    def _remaining(self) -> float:
        return math.inf if self._until is None else self._until - time.monotonic()


def _parse(url: str) -> Target:
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
    return Target(parts.hostname, port or (443 if secure else 80), secure, parts.netloc, path)


async def _send_all(exchange: Exchange, parts: Parts) -> bool:
    """Send a body; False when the store answers before it has all of it."""
    async with aclosing(parts()) as pieces:
        async for piece in pieces:
            if not await exchange.send(piece):
                return False
    return True


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
        raise TransferError("object_unavailable", "the object has another size than promised")
    return done


def _refuse(status: int, what: str) -> None:
    """Raise for a status that is no success. Redirects are refused too: the URL is signed for one host."""
    message = f"the store refused the {what} with status {status}"
    if status in _TRANSIENT_STATUS:
        raise _TransientError(message)
    if what == "download" and status in (404, 410):
        raise TransferError("object_unavailable", "the object does not exist")
    raise TransferError("store_unavailable", message)


async def whole(data: bytes) -> AsyncGenerator[Data]:
    """`data` in pieces, for `Store.put`."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]

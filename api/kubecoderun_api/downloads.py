"""Sends the content of a file as fast as the client takes it; little of it is ever in memory."""

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubecoderun_api import filenames, log
from kubecoderun_api.connection import BrokenOff, Exchange, wait_until_left
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.session_files import SessionFile
from kubecoderun_api.transfer import Reader, StoreError

_RANGE: Final = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")
"""One range; requests for several get the whole, as HTTP allows."""
_FROM_THE_STORE: Final = ("content-length", "content-range")


def wanted_range(file: SessionFile, headers: Mapping[str, str]) -> str | None:
    """The part of a file that a request asks for, in the words of its Range header; None for all of it.

    `headers` finds names in lower case. A condition for another state of the file means all of it, and an
    empty file has no parts (stores disagree about what its last bytes are).
    """
    wanted = headers.get("range", "").strip()
    if not file.size or headers.get("if-range", file.etag) != file.etag or not _RANGE.fullmatch(wanted):
        return None
    return wanted


def headers_of(file: SessionFile) -> dict[str, str]:
    """Headers of every answer with the content of a file, without those that tell of its length.

    Clients show them to browsers: the type is only a guess from the name, and never to be improved upon.
    """
    headers = {
        "content-type": filenames.content_type(file.path),
        "content-disposition": filenames.disposition(file.path),
        "etag": file.etag,
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
    }
    return headers | ({"x-read-only": "true"} if file.read_only else {})


class Download(Response):
    """The answer to a GET. Closes the reader in the end."""

    def __init__(
        self,
        file: SessionFile,
        reader: Reader,
        metrics: Metrics,
        exchange: Exchange,
        *,
        requested_at: float,
        stall_seconds: float,
    ) -> None:
        """`requested_at` in the event loop's time. A client that takes nothing for `stall_seconds` is given
        up."""
        super().__init__()
        self._file = file
        self._reader = reader
        self._metrics = metrics
        self._exchange = exchange
        self._requested_at = requested_at
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI). An answer that cannot be completed is broken off, and raises."""
        sending = asyncio.create_task(self._send(send))
        left = asyncio.create_task(wait_until_left(receive))
        try:
            await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                self._exchange.left_after = asyncio.get_running_loop().time() - self._requested_at
        finally:
            sending.cancel()
            left.cancel()
            await asyncio.wait({sending})
            self._reader.close()

    async def _send(self, send: Send) -> None:
        told = self._reader.headers
        headers = headers_of(self._file) | {
            name: told[name] for name in _FROM_THE_STORE if told.get(name) is not None
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self._reader.status, "headers": raw})
        try:
            async for piece in self._reader.pieces():
                async with asyncio.timeout(self._stall_seconds):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._metrics.download_bytes.inc(len(piece))
        except (StoreError, TimeoutError) as error:
            cause = str(error) if isinstance(error, StoreError) else "the client takes nothing"
            log.event(
                "download_broken",
                level=log.WARNING,
                session=self._file.session,
                object=self._file.id,
                cause=cause,
            )
            raise BrokenOff from None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

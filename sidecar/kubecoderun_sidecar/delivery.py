"""Everything one run needs, as the frames that bring it to the runner: input files, code, standard input.

Objects are fetched as they are handed on. While one flows, the next few are asked for already, so that many
small ones do not cost a round trip each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.fields import encode_object
from kubecoderun_sidecar.frames import CHUNK_BYTES, PIECE_BYTES, encode_frame, frame_header
from kubecoderun_sidecar.paths import first_conflict
from kubecoderun_sidecar.protocol import InlineCode, InputFile, PrepareRequest
from kubecoderun_sidecar.transfer import Store, TransferError

AHEAD = 4
"""Objects that are asked for at a time."""


class InputFailedError(Exception):
    """An input file cannot be fetched, or be there: its place among those that were looked at, and why.

    `of_all`: among all of the request, not only those that are fetched.
    """

    def __init__(self, place: int, cause: TransferError, *, of_all: bool = False) -> None:
        super().__init__(cause.message)
        self.place = place
        self.of_all = of_all
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that are written together. `last`: after them the runner has everything."""

    parts: list[Data]
    last: bool = False


def check_paths(inputs: Iterable[InputFile]) -> None:
    """Raise InputFailedError for a file that cannot stand beside those before it."""
    place = first_conflict([file.path for file in inputs])
    if place is not None:
        error = TransferError("object_unavailable", "another input file has this path, or is a folder of it")
        raise InputFailedError(place, error, of_all=True)


def head_of(request: PrepareRequest, *, again: bool = False) -> dict[str, object]:
    """Frame R. again: other runs may follow in this pod."""
    limits, code = request.limits, request.code
    return {
        "language": request.language,
        "args": list(request.args),
        "env": dict(request.env),
        "timeoutSeconds": limits.timeout_seconds,
        "stdinBytes": len(request.stdin.encode("utf-8")),
        "codeBytes": len(code.text.encode("utf-8")) if isinstance(code, InlineCode) else code.bytes,
        "inputs": len(request.inputs),
        "inputBytes": sum(file.bytes for file in request.inputs),
        "files": {
            "count": limits.files,
            "bytes": limits.file_bytes,
            "totalBytes": limits.total_file_bytes,
        },
        "outputBytes": limits.printed_bytes,
        "tools": [tool.to_wire() for tool in request.tools],
        **({"again": True} if again else {}),
    }


async def batches(store: Store, request: PrepareRequest, *, again: bool = False) -> AsyncGenerator[Batch]:
    """The frames of one delivery. The first come only when the first object has begun to arrive; the last
    thing done is to check the code's hash. again: as for `head_of`.

    Raises InputFailedError, or TransferError about the code.
    """
    parts: list[Data] = [encode_frame(b"R", encode_object(head_of(request, again=again)))]
    async with aclosing(_Ahead(_sources(store, request))) as ahead:
        for place, file in enumerate(request.inputs):
            named = {"path": file.path, "bytes": file.bytes, "readOnly": file.read_only}
            parts.append(encode_frame(b"N", encode_object(named)))
            try:
                async with aclosing(ahead.take()) as pieces:
                    async for piece in pieces:
                        yield Batch([*parts, *_frames(b"D", piece, PIECE_BYTES)])
                        parts = []
            except TransferError as error:
                raise InputFailedError(place, error) from None
        stdin = _frames(b"I", request.stdin.encode("utf-8"), CHUNK_BYTES)
        if isinstance(request.code, InlineCode):
            code = request.code.text.encode("utf-8")
            yield Batch([*parts, *_frames(b"C", code, CHUNK_BYTES), *stdin], last=True)
            return
        left = request.code.bytes
        async with aclosing(ahead.take()) as pieces:
            async for piece in pieces:
                left -= len(piece)
                # The runner may confirm as soon as it has the last byte, while the hash is being checked.
                yield Batch(
                    [*parts, *_frames(b"C", piece, CHUNK_BYTES), *([] if left else stdin)], last=not left
                )
                parts = []
        if not request.code.bytes:
            yield Batch([*parts, *stdin], last=True)


def _sources(store: Store, request: PrepareRequest) -> Iterator[AsyncGenerator[Data]]:
    for file in request.inputs:
        yield store.fetch(file.url, file.bytes)
    if not isinstance(request.code, InlineCode):
        yield store.fetch(request.code.url, request.code.bytes, request.code.sha256)


def _frames(kind: bytes, data: Data, size: int) -> list[Data]:
    """`data` as frames of at most `size` bytes, without copying it; nothing for no data."""
    view = memoryview(data)
    parts: list[Data] = []
    for start in range(0, len(view), size):
        piece = view[start : start + size]
        parts += (frame_header(kind, len(piece)), piece)
    return parts


class _Ahead:
    """Downloads in the order they are wanted, the next few of them begun."""

    def __init__(self, sources: Iterator[AsyncGenerator[Data]]) -> None:
        self._sources = sources
        self._begun: deque[_Download] = deque()

    def take(self) -> AsyncGenerator[Data]:
        """The pieces of the next one."""
        while len(self._begun) < AHEAD and (source := next(self._sources, None)) is not None:
            self._begun.append(_Download(source))
        return self._begun.popleft().pieces()

    async def aclose(self) -> None:
        """Give up those that have begun."""
        for download in self._begun:
            await download.close()


class _Download:
    """One object, whose first piece is being waited for from the beginning."""

    def __init__(self, source: AsyncGenerator[Data]) -> None:
        self._source = source
        self._first = asyncio.get_running_loop().create_task(self._next())

    async def pieces(self) -> AsyncGenerator[Data]:
        try:
            piece = await self._first
            while piece is not None:
                yield piece
                piece = await self._next()
        finally:
            await self.close()

    async def close(self) -> None:
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._source.aclose()

    async def _next(self) -> Data | None:
        return await anext(self._source, None)

"""One object on its way into the store, of unknown length, with no more than two parts in memory.

What fits into one part is stored by one PUT; more than that by a multipart upload, part by part. While a part
is being sent the next one fills up; whoever writes waits if that is faster than the store.

Nothing is interrupted half-way: a request that has begun ends by itself, also if the writer is given up, so
that `discard` knows what there is to take away.
"""

import asyncio
import mmap
from collections.abc import Coroutine, Iterator
from typing import Any, Final, Protocol

from kubecoderun_api.transfer import PIECE_BYTES, Body

PART_BYTES: Final = 8 * 1024 * 1024
"""Size of every part but the last (S3 wants at least 5 MiB and allows 10,000 parts)."""
MAX_OBJECT_BYTES: Final = 10_000 * PART_BYTES


class Objects(Protocol):
    """The requests that a writer needs, about one object. All raise StoreError."""

    async def put(self, body: Body) -> None:
        """Store the object as a whole."""

    async def begin(self) -> str:
        """Begin a multipart upload; returns its id."""

    async def put_part(self, upload: str, number: int, body: Body) -> str:
        """Store one part, counted from 1; returns its ETag."""

    async def complete(self, upload: str, etags: list[str], size: int) -> None:
        """Make the object of that size out of its parts."""

    async def abort(self, upload: str) -> None:
        """Take away the parts; fine if there are none."""

    async def remove(self) -> None:
        """Take away the object; fine if there is none."""


class Part:
    """Room for one part, outside of the interpreter's heap.

    Memory is touched only as far as it is used, and given back at once and as a whole. Implements Body.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, PART_BYTES)
        self._filled = 0

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self._filled

    @property
    def room(self) -> int:
        """Bytes that still fit."""
        return PART_BYTES - self._filled

    def add(self, data: memoryview) -> None:
        """Append bytes that fit."""
        self._memory[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def pieces(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        for start in range(0, self._filled, PIECE_BYTES):
            yield self._memory[start : min(start + PIECE_BYTES, self._filled)]

    def clear(self) -> None:
        """Be empty again."""
        self._filled = 0

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        self._filled = 0


class ObjectWriter:
    """Takes the content of one object. Ends with either `finish` or `discard`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._parts = [Part(), Part()]
        """The one that fills up, then the one that is sent."""
        self._flight: asyncio.Task[Any] | None = None
        """The request under way, or the last one."""
        self._upload: str | None = None
        self._etags: list[str] = []
        self._stored = False
        """Whether the object may exist."""
        self.size = 0
        """Bytes written so far."""

    async def write(self, data: bytes) -> None:
        """Append to the object. Raises StoreError if the store has failed, now or on earlier bytes."""
        view = memoryview(data)
        self.size += len(view)
        while view:
            filling = self._parts[0]
            if not filling.room:
                await self._send_part()
                continue
            fitting = view[: filling.room]
            filling.add(fitting)
            view = view[len(fitting) :]

    async def finish(self) -> None:
        """Complete the object. Raises StoreError; the object may exist nevertheless."""
        if self._flight is None:
            self._stored = True
            await self._do(self._objects.put(self._parts[0]))
        else:
            await self._send_part()
            await self._landed()
            self._stored = True
            await self._do(self._objects.complete(self._upload_id(), self._etags, self.size))
            self._upload = None
        self._close()

    async def discard(self) -> None:
        """Take away whatever has been stored. Raises StoreError if the store does not do it."""
        if self._flight is not None:
            await asyncio.wait({self._flight})
            if not self._flight.cancelled():
                self._flight.exception()
        self._close()
        upload, self._upload = self._upload, None
        try:
            if upload is not None:
                await self._objects.abort(upload)
        finally:
            if self._stored:
                await self._objects.remove()

    async def _send_part(self) -> None:
        """Let the full part go, as soon as the one before has arrived."""
        await self._landed()
        if self._upload is None:
            await self._do(self._begin())
        self._parts.reverse()
        self._parts[0].clear()
        self._flight = asyncio.create_task(self._put_part(self._parts[1]))

    async def _begin(self) -> None:
        self._upload = await self._objects.begin()

    async def _put_part(self, part: Part) -> None:
        number = len(self._etags) + 1
        self._etags.append(await self._objects.put_part(self._upload_id(), number, part))

    def _upload_id(self) -> str:
        if self._upload is None:
            raise RuntimeError("no upload has been begun")
        return self._upload

    async def _landed(self) -> None:
        if self._flight is not None:
            await asyncio.shield(self._flight)

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._flight = asyncio.create_task(work)
        await self._landed()

    def _close(self) -> None:
        for part in self._parts:
            part.close()

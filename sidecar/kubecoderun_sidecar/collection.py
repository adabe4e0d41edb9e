"""Brings the files of a finished program from the runner to the object store.

Small files are taken whole and uploaded side by side; large ones flow through, and are taken again for
another attempt. What fails costs its own file only; when the runner is gone or the store takes nothing any
more, what has been collected so far stands.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from kubecoderun_sidecar.answers import OutputFile, SkipReason
from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.form import CONTENT_TYPE
from kubecoderun_sidecar.listing import ListedFile
from kubecoderun_sidecar.observer import RuntimeLostError
from kubecoderun_sidecar.protocol import OutputTarget
from kubecoderun_sidecar.pulling import UnreadableError
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.transfer import Parts, Store, TransferError

SMALL_BYTES = 256 << 10
SIDE_BY_SIDE = 4
"""Uploads of small files at a time; they bound the memory."""
_FAILURES = 3
"""After so many uploads in a row that failed for good, no more are tried."""
_ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 8


class Collector:
    """Collects the listed files of one run. `target` gives the newest grant: they expire."""

    def __init__(
        self,
        link: RuntimeLink,
        store: Store,
        files: list[ListedFile],
        target: Callable[[], OutputTarget | None],
    ) -> None:
        self._link = link
        self._store = store
        self._files = files
        self._target = target
        self._places = asyncio.Semaphore(SIDE_BY_SIDE)
        self._failures = 0
        self._patient = True
        """Uploads are repeated; not any more after one that was repeated in vain."""
        self.collected: dict[int, OutputFile] = {}
        """By place in the list."""
        self.failed: dict[int, SkipReason] = {}

    async def collect(self, seconds: float) -> None:
        """Work through the list, for so long at most. Raises nothing: what is missing is `failed`."""
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as uploads:
                for place, file in enumerate(self._files):
                    if self._link.lost or self._failures >= _FAILURES:
                        break
                    await self._one(place, file, uploads)
        except TimeoutError:
            pass
        reason: SkipReason = "unreadable" if self._link.lost else "store"
        for place in range(len(self._files)):
            if place not in self.collected:
                self.failed.setdefault(place, reason)

    async def _one(self, place: int, file: ListedFile, uploads: asyncio.TaskGroup) -> None:
        """Upload one file, or leave that to a task of `uploads`."""
        if file.bytes > SMALL_BYTES:
            await self._upload(place, file, lambda: self._link.pull(file))
            return
        await self._places.acquire()
        data = bytearray()
        try:
            async with aclosing(self._link.pull(file)) as pieces:
                async for piece in pieces:
                    data += piece
        except (UnreadableError, RuntimeLostError):
            self.failed[place] = "unreadable"
            self._places.release()
            return
        uploads.create_task(self._upload_small(place, file, data))

    async def _upload_small(self, place: int, file: ListedFile, data: bytearray) -> None:
        async def parts() -> AsyncGenerator[Data]:
            yield data

        try:
            await self._upload(place, file, parts)
        finally:
            self._places.release()

    async def _upload(self, place: int, file: ListedFile, parts: Parts) -> None:
        target = self._target()
        attempts = None if self._patient else 1
        try:
            if target is None:
                raise TransferError("store_unavailable", "there is no grant to upload with")
            if target.form is not None:
                file_id = target.id_prefix + _random_id()
                await self._store.post(target.form, file_id, file.path, file.bytes, parts, attempts=attempts)
            elif place < len(target.slots):
                slot = target.slots[place]
                file_id = slot.id
                await self._store.put(slot.url, file.bytes, parts, CONTENT_TYPE, attempts=attempts)
            else:
                self.failed[place] = "count"
                return
        except (UnreadableError, RuntimeLostError):
            self.failed[place] = "unreadable"
        except TransferError as error:
            self.failed[place] = "store"
            self._failures += 1
            self._patient = self._patient and not error.lasting
        else:
            self._failures = 0
            self.collected[place] = OutputFile(file_id, file.path, file.bytes, file.replaces)


def _random_id() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))

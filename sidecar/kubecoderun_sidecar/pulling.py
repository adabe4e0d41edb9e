"""One file on its way from the runner: what has come of it, and who waits for it. No I/O."""

from __future__ import annotations

import asyncio

from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.frames import FrameDecoder
from kubecoderun_sidecar.listing import ListedFile


class UnreadableError(Exception):
    """A listed file cannot be read, or is not what it was."""


class Pull:
    """Holds the piece that is being used. The link feeds it, and reads nothing more while it is held."""

    def __init__(self, file: ListedFile, decoder: FrameDecoder) -> None:
        self.file = file
        self.piece: Data | None = None
        self.over = False
        """The last byte has come, or the word that it cannot be read."""
        self._unreadable = False
        self._abandoned = False
        self._changed = asyncio.Event()
        self._decoder = decoder
        decoder.data_left = file.bytes

    def add(self, piece: Data) -> None:
        """The next bytes."""
        self._decoder.data_left -= len(piece)
        self.over = not self._decoder.data_left
        if not self._abandoned:
            self.piece = piece
        self._changed.set()

    def fail(self) -> None:
        """It cannot be read."""
        self.over = self._unreadable = True
        self._changed.set()

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._changed.set()

    def abandon(self) -> None:
        """Nobody wants it any more, but the rest still comes."""
        self.piece, self._abandoned = None, True

    async def next(self, seconds: float) -> Data | None:
        """The next piece; None when the wait ended without one. UnreadableError, or TimeoutError after so
        many seconds of silence."""
        await self.change(seconds)
        self.check()
        return self.piece

    def check(self) -> None:
        """Raise UnreadableError if the runner has said so."""
        if self._unreadable:
            raise UnreadableError

    async def change(self, seconds: float) -> None:
        """Wait until something comes; TimeoutError when nothing does."""
        async with asyncio.timeout(seconds):
            await self._changed.wait()
        self._changed.clear()

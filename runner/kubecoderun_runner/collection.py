"""Hands the files of a finished program to the sidecar: the list first, then whatever it asks for."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Final

from kubecoderun_runner import frames
from kubecoderun_runner.inputs import Delivered
from kubecoderun_runner.listing import Found, Listing, list_outputs
from kubecoderun_runner.orders import FileLimits
from kubecoderun_runner.workspace import open_file

_DELETED_BYTES: Final = 32 << 10
"""Room for the paths of deleted inputs in one frame."""
_PROMPT_SECONDS: Final = 0.02
"""The end of a program travels together with the list of its files, unless that takes longer than this."""


class Collection:
    """The outputs of one run."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._listing = Listing()
        self._pull: _Pull | None = None
        self._buffer = bytearray()

    @property
    def pulling(self) -> bool:
        """A file is being handed over."""
        return self._pull is not None

    def announce(
        self,
        ended: bytes,
        source: str,
        inputs: Mapping[str, Delivered],
        limits: FileLimits,
        send: Callable[[bytes], None],
        seen: dict[str, Delivered] | None = None,
    ) -> None:
        """Look for files and send frame X (`ended`), L for each file, and Z. `seen` as for list_outputs."""
        waiting = [ended]
        late = time.monotonic() + _PROMPT_SECONDS

        def pulse() -> None:
            if waiting and time.monotonic() > late:
                send(waiting.pop())

        self._listing = listing = list_outputs(self._folder, source, inputs, limits, pulse, seen)
        waiting += [frames.encode_json(b"L", path=file.path, bytes=file.bytes) for file in listing.files]
        skipped = [{"path": path, "reason": reason} for path, reason in listing.skipped]
        deleted = _first(listing.deleted, _DELETED_BYTES)
        waiting.append(
            frames.encode_json(b"Z", skipped=skipped, skippedCount=listing.skipped_count, deleted=deleted)
        )
        send(b"".join(waiting))

    def take(self, index: int) -> bytes:
        """Begin with a listed file: what to send at once, if anything. FrameError when there is none."""
        if self._pull is not None or index >= len(self._listing.files):
            raise frames.FrameError("a file that was not listed, or two at a time")
        self._pull = _Pull(index, self._folder, self._listing.files[index])
        return b"" if self._pull.readable else self._unreadable()

    def piece(self) -> bytes | memoryview:
        """The next frame of the file; valid until this is called again."""
        pull = self._pull
        if pull is None:
            return b""
        if not self._buffer:
            self._buffer = bytearray(frames.HEADER_BYTES + frames.PIECE_BYTES)
        frame = pull.read(self._buffer)
        if frame is None:
            return self._unreadable()
        if not pull.left:
            pull.close()
            self._pull = None
        return frame

    def close(self) -> None:
        """Nobody will ask any more."""
        if self._pull is not None:
            self._pull.close()
            self._pull = None

    def _unreadable(self) -> bytes:
        pull, self._pull = self._pull, None
        if pull is None:
            return b""
        pull.close()
        return frames.encode_json(b"U", index=pull.index)


def _first(paths: list[str], room: int) -> list[str]:
    """As many of the paths as take so many bytes in JSON."""
    for count, path in enumerate(paths):
        room -= len(json.dumps(path)) + 1
        if room < 0:
            return paths[:count]
    return paths


class _Pull:
    """One file on its way to the sidecar."""

    def __init__(self, index: int, folder: int, found: Found) -> None:
        self.index = index
        self.left = found.bytes
        self._fd = -1
        try:
            self._fd = open_file(folder, found.path)
            status = os.fstat(self._fd)
        except OSError:
            self.readable = False
            return
        # Processes that the kernel has not let go of yet may still change files.
        as_listed = (status.st_size, status.st_ino, status.st_mtime_ns) == (
            found.bytes,
            found.inode,
            found.modified,
        )
        self.readable = as_listed and stat.S_ISREG(status.st_mode)

    def read(self, buffer: bytearray) -> memoryview | None:
        """The next frame, in `buffer`; None when the file is not what it was."""
        length = min(self.left, frames.PIECE_BYTES)
        frame = memoryview(buffer)[: frames.HEADER_BYTES + length]
        frame[: frames.HEADER_BYTES] = frames.header(b"D", length)
        rest = frame[frames.HEADER_BYTES :]
        try:
            while rest:
                count = os.readv(self._fd, [rest])
                if not count:
                    return None
                rest = rest[count:]
        except OSError:
            return None
        self.left -= length
        return frame

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

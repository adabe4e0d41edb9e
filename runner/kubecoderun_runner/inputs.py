"""Files that are put into the working directory before a program starts, and what they looked like then."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Final

from kubecoderun_runner.orders import InputFile
from kubecoderun_runner.workspace import create, remove_if_same, write_all

_MODES: Final = {False: 0o644, True: 0o444}
_AGE_SECONDS: Final = 2
"""Inputs are dated a little before their delivery, so that whatever the program writes into them carries
another time: file systems count it in steps of some milliseconds."""

Stamp = tuple[int, int, int, int]


def stamp_of(status: os.stat_result) -> Stamp:
    """What differs once somebody has written to a file, or put another in its place."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Delivered:
    """An input as the program found it."""

    read_only: bool
    stamp: Stamp


class Inputs:
    """Takes input files one after the other: `begin`, then `write` until `left` is 0."""

    def __init__(self, folder: int, *, replace: bool = False) -> None:
        """replace: files of earlier programs may be there."""
        self._folder = folder
        self._replace = replace
        self._file: InputFile | None = None
        self._fd = -1
        self.left = 0
        """Bytes that are still to come of the file that is being written."""
        self.delivered: dict[str, Delivered] = {}

    def begin(self, file: InputFile) -> None:
        """Make the file; OSError when the folder is full or the path is not possible."""
        self._fd = create(self._folder, file.path, _MODES[file.read_only], replace=self._replace)
        self._file, self.left = file, file.bytes
        self._finish_if_whole()

    def write(self, piece: memoryview) -> None:
        """Take the next bytes, at most `left`; OSError when the folder is full."""
        write_all(self._fd, piece)
        self.left -= len(piece)
        self._finish_if_whole()

    def withdraw(self) -> None:
        """Remove a file that has not arrived whole, as nothing more will come of it."""
        file, self._file = self._file, None
        if file is not None:
            inode = os.fstat(self._fd).st_ino
            os.close(self._fd)
            self._fd, self.left = -1, 0
            remove_if_same(self._folder, file.path, inode)

    def _finish_if_whole(self) -> None:
        if self.left or self._file is None:
            return
        dated = (time.time_ns() // 1_000_000_000 - _AGE_SECONDS) * 1_000_000_000
        os.utime(self._fd, ns=(dated, dated))
        self.delivered[self._file.path] = Delivered(self._file.read_only, stamp_of(os.fstat(self._fd)))
        os.close(self._fd)
        self._file, self._fd = None, -1

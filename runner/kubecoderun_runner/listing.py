"""Finds the files a program has made or changed. Nothing of what it left behind can make this long or large.

All processes of the program are dead by then. Only plain files count: links, pipes, sockets and devices are
nobody's result. Folders whose name begins with a dot, and `__pycache__`, hold what programs keep for
themselves.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from bisect import insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kubecoderun_runner.inputs import Delivered, stamp_of
from kubecoderun_runner.orders import FileLimits
from kubecoderun_runner.paths import MAX_SEGMENTS, is_proper, visible
from kubecoderun_runner.workspace import FOLDER, open_file

MAX_ENTRIES: Final = 100_000
"""Directory entries that are looked at."""
MAX_SECONDS: Final = 5.0
MAX_SKIPPED: Final = 20
"""Skipped files that are named."""
_PULSE_ENTRIES: Final = 256
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""No such entry, or something else in its place. What cannot be opened for another reason is still there."""


@dataclass(frozen=True, order=True)
class Found:
    """A file to hand back. Ordered by path, of which there is only one each."""

    path: str
    bytes: int
    inode: int
    modified: int
    """mtime in nanoseconds."""


@dataclass
class Listing:
    """What is handed back, and what is not: the first MAX_SKIPPED by path and reason, and how many."""

    files: list[Found] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0
    deleted: list[str] = field(default_factory=list)
    """Inputs that are no more, without those that are read-only."""

    def skip(self, path: str, reason: str) -> None:
        """Note a file or folder that is left out."""
        self.skipped_count += 1
        _keep_first(self.skipped, (visible(path), reason), MAX_SKIPPED)


class _EnoughError(Exception):
    """There is more than can be looked at."""


def list_outputs(
    folder: int,
    source: str,
    inputs: Mapping[str, Delivered],
    limits: FileLimits,
    pulse: Callable[[], None],
    seen: dict[str, Delivered] | None = None,
) -> Listing:
    """Look through the working directory `folder`. `source` is the program's own file; `pulse` is called now
    and then while it takes long. Of more files than `limits` allow, the first by path are taken. `seen` gets
    every file that was looked at, for comparison after another program."""
    search = _Search(source, inputs, limits, pulse)
    search.seen = seen
    try:
        search.walk(folder, "", 1)
    except _EnoughError:
        search.listing.skip(search.where or ".", "count")
    listing, total = search.listing, 0
    for found in search.candidates:
        if total + found.bytes > limits.total_bytes:
            listing.skip(found.path, "total")
        else:
            total += found.bytes
            listing.files.append(found)
    unseen = (path for path, known in inputs.items() if path not in search.met and not known.read_only)
    listing.deleted = sorted(path for path in unseen if _is_gone(folder, path))
    return listing


def _is_gone(folder: int, path: str) -> bool:
    """Whether there is no plain file of that path any more."""
    try:
        fd = open_file(folder, path)
    except OSError as error:
        return error.errno in _GONE
    try:
        return not stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


class _Search:
    def __init__(
        self, source: str, inputs: Mapping[str, Delivered], limits: FileLimits, pulse: Callable[[], None]
    ) -> None:
        self._source = source
        self._inputs = inputs
        self._limits = limits
        self._pulse = pulse
        self._entries = 0
        self._give_up = time.monotonic() + MAX_SECONDS
        self.seen: dict[str, Delivered] | None = None
        self.where = ""
        """The folder that is being looked through."""
        self.candidates: list[Found] = []
        self.met: set[str] = set()
        """Inputs that are still plain files."""
        self.listing = Listing()

    def walk(self, folder: int, prefix: str, depth: int) -> None:
        """Look through one folder, whose entries have paths of `depth` segments, and those below it."""
        below: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._count(prefix)
                    if self._is_folder(prefix, entry):
                        below.append(entry.name)
        except OSError:
            self.listing.skip(prefix.rstrip("/") or ".", "unreadable")
        for name in below:
            self._descend(folder, prefix + name, name, depth + 1)

    def _is_folder(self, prefix: str, entry: os.DirEntry[str]) -> bool:
        """Whether to look into it later; files are looked at now."""
        try:
            if entry.is_dir(follow_symlinks=False):
                return not entry.name.startswith(".") and entry.name != "__pycache__"
            if entry.is_file(follow_symlinks=False):
                self._consider(prefix + entry.name, entry.stat(follow_symlinks=False))
        except OSError:
            self.listing.skip(prefix + entry.name, "unreadable")
        return False

    def _descend(self, folder: int, path: str, name: str, depth: int) -> None:
        if depth > MAX_SEGMENTS:
            self.listing.skip(path, "depth")
            return
        try:
            below = os.open(name, FOLDER, dir_fd=folder)
        except OSError:
            self.listing.skip(path, "unreadable")
            return
        try:
            self.walk(below, f"{path}/", depth)
        finally:
            os.close(below)

    def _count(self, where: str) -> None:
        self._entries += 1
        self.where = where.rstrip("/")
        if self._entries > MAX_ENTRIES:
            raise _EnoughError
        if self._entries % _PULSE_ENTRIES == 0:
            self._pulse()
            if time.monotonic() > self._give_up:
                raise _EnoughError

    def _consider(self, path: str, status: os.stat_result) -> None:
        if path == self._source:
            return
        known = self._inputs.get(path)
        if known is not None:
            self.met.add(path)
        if self.seen is not None:
            self.seen[path] = Delivered(known is not None and known.read_only, stamp_of(status))
        if known is not None and (known.read_only or known.stamp == stamp_of(status)):
            return
        if not is_proper(path):
            self.listing.skip(path, "path")
        elif status.st_size > self._limits.bytes:
            self.listing.skip(path, "size")
        else:
            found = Found(path, status.st_size, status.st_ino, status.st_mtime_ns)
            dropped = _keep_first(self.candidates, found, self._limits.count)
            if dropped is not None:
                self.listing.skip(dropped.path, "count")


_Item = TypeVar("_Item", Found, tuple[str, str])


def _keep_first(kept: list[_Item], item: _Item, count: int) -> _Item | None:
    """Add to a sorted list that keeps the first `count`; what has no room any more."""
    if len(kept) >= count and (not kept or item > kept[-1]):
        return item
    insort(kept, item)
    return kept.pop() if len(kept) > count else None

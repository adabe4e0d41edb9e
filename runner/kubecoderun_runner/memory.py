"""How much memory the container uses, so that a program can be ended before the container is.

Where the limit is reached the kernel kills: on cgroup v2 the kubelet lets it end the whole container, the
runner included. A program that we end first still hands over its output and files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

CGROUP_ROOT: Final = "/sys/fs/cgroup"
_LEAST_MARGIN: Final = 4 << 20
_LARGEST_MARGIN: Final = 32 << 20
_UNLIMITED: Final = 1 << 60
"""cgroup v1 calls no limit the largest page-aligned number."""
_BYTES_PER_SECOND: Final = 4 << 30
"""Faster than one processor can fill fresh pages: until that would have used up the rest, nobody looks."""
_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25


@dataclass(frozen=True)
class _Layout:
    """Where a version of cgroups says it."""

    limit: str
    usage: str
    statistics: str
    reclaimable: tuple[str, ...]


_LAYOUTS: Final = (
    _Layout("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
    _Layout(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        ("total_inactive_file", "total_active_file"),
    ),
)


class MemoryGauge:
    """The memory of this container."""

    def __init__(self, root: str, layout: _Layout, limit: int) -> None:
        self.limit = limit
        """Bytes at which the kernel kills."""
        self._root = root
        self._layout = layout

    def usage(self) -> int:
        """All that counts, what the kernel can take back included. OSError or ValueError when unreadable."""
        return int(_read(self._root, self._layout.usage))

    def needed(self) -> int:
        """What counts and cannot be taken back: everything but the pages of files on disks. Files in memory
        are no such files."""
        usage, back = self.usage(), 0
        for line in _read(self._root, self._layout.statistics).splitlines():
            name, _, value = line.partition(" ")
            if name in self._layout.reclaimable:
                back += int(value)
        return max(0, usage - back)


def find_gauge(root: str = CGROUP_ROOT) -> MemoryGauge | None:
    """The gauge of this container; None where it has no limit, or no cgroup that can be read."""
    for layout in _LAYOUTS:
        try:
            text = _read(root, layout.limit).strip()
            limit = _UNLIMITED if text == "max" else int(text)
            gauge = MemoryGauge(root, layout, limit)
            gauge.needed()
        except (OSError, ValueError):
            continue
        return gauge if limit < _UNLIMITED else None
    return None


def margin_of(limit: int) -> int:
    """How far from its limit a container is full for us: a thirty-second part, from 4 to 32 MiB."""
    return max(_LEAST_MARGIN, min(_LARGEST_MARGIN, limit // 32))


class MemoryWatch:
    """Looks as often as needed: the nearer to the limit, the sooner again."""

    def __init__(self, gauge: MemoryGauge | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._gauge = gauge
        self._clock = clock
        self._full = 0 if gauge is None else gauge.limit - margin_of(gauge.limit)
        self.next_look = float("inf") if gauge is None else 0.0
        """On the monotonic clock."""

    @property
    def limit(self) -> int | None:
        """Bytes that the container can use at most; None without a bound."""
        return None if self._gauge is None else self._gauge.limit

    def exceeded(self) -> bool:
        """Whether the container is full; False until it is time to look."""
        gauge, now = self._gauge, self._clock()
        if gauge is None or now < self.next_look:
            return False
        try:
            used = gauge.usage()
            if used >= self._full:
                used = gauge.needed()
        except (OSError, ValueError):
            self.next_look = now + _LONGEST_PAUSE
            return False
        rest = (self._full - used) / _BYTES_PER_SECOND
        self.next_look = now + min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, rest))
        return used >= self._full


def _read(root: str, name: str) -> str:
    with open(f"{root}/{name}", encoding="ascii") as file:
        return file.read()

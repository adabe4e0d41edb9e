"""The front end's memory while it works, in its own words: the kubelet measures only every ten seconds."""

import threading
from collections.abc import Iterable, Mapping
from http.client import HTTPException

from e2e.frontend import FrontEnd

RESIDENT, STARTED = "process_resident_memory_bytes", "process_start_time_seconds"
EVERY_SECONDS = 0.05
BEFORE = 5
"""Samples that are taken before the work begins."""
Sample = tuple[float, float]
"""When the process that answered was started, which tells replicas apart, and its resident bytes."""


def sample(text: str) -> Sample:
    """The sample in the text of /metrics. Raises KeyError when there is none."""
    values: Mapping[str, float] = dict(_values(text.splitlines()))
    return values[STARTED], values[RESIDENT]


def _values(lines: Iterable[str]) -> Iterable[tuple[str, float]]:
    for line in lines:
        name, _, value = line.partition(" ")
        if name in (STARTED, RESIDENT):
            yield name, float(value)


def growth(before: Iterable[Sample], during: Iterable[Sample]) -> float | None:
    """Bytes by which the process that grew most exceeded its size before; None if none was seen twice."""
    largest = peaks(before)
    found = [peak - largest[process] for process, peak in peaks(during).items() if process in largest]
    return max(found, default=None)


def peaks(samples: Iterable[Sample]) -> dict[float, float]:
    """The largest sample of each process."""
    found: dict[float, float] = {}
    for process, size in samples:
        found[process] = max(size, found.get(process, 0.0))
    return found


class MemoryWatch:
    """Samples the front end's memory while the block runs."""

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end, self._stop = front_end, threading.Event()
        self._before: list[Sample] = []
        self._during: list[Sample] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._before = [self._ask() for _ in range(BEFORE)]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def samples(self) -> int:
        """How often it was looked during the block."""
        return len(self._during)

    def growth_mib(self) -> float:
        """Growth in MiB. Raises RuntimeError when no process was seen before as well as during the block."""
        found = growth(self._before, self._during)
        if found is None:
            raise RuntimeError("the front end's memory could not be sampled")
        return round(found / (1 << 20), 1)

    def _collect(self) -> None:
        while not self._stop.is_set():
            try:
                self._during.append(self._ask())
            except (OSError, HTTPException):
                continue  # busy for a moment: the next one counts
            finally:
                self._stop.wait(EVERY_SECONDS)

    def _ask(self) -> Sample:
        return sample(self._front_end.call("GET", "/metrics", headers={}, timeout=10.0).body.decode())

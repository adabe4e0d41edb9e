"""The sidecar's own numbers, in Prometheus' text form. A library for that would cost each pod megabytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

CONTENT_TYPE: Final = b"text/plain; version=0.0.4"


class Counter:
    """A number that only rises, one for each value of its label if it has one. Labels take values that are
    fixed in the code only: words of ours, never a program's or a caller's."""

    def __init__(self, name: str, meaning: str, label: str = "") -> None:
        self.name = f"kubecoderun_sidecar_{name}"
        self._meaning = meaning
        self._label = label
        self._values: dict[str, float] = {} if label else {"": 0}

    def inc(self, value: str = "", amount: float = 1) -> None:
        """Add to the number of a label's value."""
        self._values[value] = self._values.get(value, 0) + amount

    def value(self, value: str = "") -> float:
        """The number."""
        return self._values.get(value, 0)

    def lines(self) -> Iterator[str]:
        """As Prometheus reads it."""
        yield f"# HELP {self.name} {self._meaning}"
        yield f"# TYPE {self.name} counter"
        for value, number in sorted(self._values.items()):
            label = f'{{{self._label}="{value}"}}' if self._label else ""
            yield f"{self.name}{label} {number:.15g}"


REQUESTS: Final = Counter("requests_total", "Requests by path; those of no path of ours are other.", "path")
REFUSED: Final = Counter("unauthorized_total", "Requests without a good signature.")
RUNS: Final = Counter("runs_total", "Programs that have ended, by reason.", "reason")
OUTPUT: Final = Counter("output_bytes_total", "Bytes that programs have printed.", "stream")
STORE: Final = Counter(
    "store_exchanges_total", "Requests to the object store, by method and what came of them.", "exchange"
)
RETRIES: Final = Counter("store_retries_total", "Attempts after the first of a transfer.")
RUNTIME_LOST: Final = Counter("runtime_lost_total", "Runners that were given up or went away.")
COUNTERS: Final = (REQUESTS, REFUSED, RUNS, OUTPUT, STORE, RETRIES, RUNTIME_LOST)


def render() -> bytes:
    """All numbers, and the memory of this process."""
    lines = [line for counter in COUNTERS for line in counter.lines()]
    lines += [
        "# HELP process_resident_memory_bytes Memory of this process.",
        "# TYPE process_resident_memory_bytes gauge",
        f"process_resident_memory_bytes {_resident_bytes()}",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

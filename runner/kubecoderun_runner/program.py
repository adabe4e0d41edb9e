"""One run of a program: its streams, its deadline, how it ended."""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from kubecoderun_runner.launch import Process

DRAIN_SECONDS: Final = 5.0
"""How long output is still collected when all processes have been killed: their pipes end at once, unless
a process is stuck inside the kernel."""
_OOM_COUNTERS: Final = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


@dataclass
class Ending:
    """How the main process ended, and why."""

    exit_code: int | None
    signal: str | None


def ending_of(status: int) -> Ending:
    """Read a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return Ending(None, signal.Signals(number).name)
        except ValueError:  # real-time signals between the named ones
            return Ending(None, f"SIGRTMIN+{number - signal.SIGRTMIN}")
    return Ending(os.WEXITSTATUS(status), None)


def oom_kills(counters: tuple[str, ...] = _OOM_COUNTERS) -> int:
    """How often the kernel killed for memory in this container; 0 where it does not say."""
    for path in counters:
        try:
            with open(path, encoding="ascii") as lines:
                for line in lines:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except (OSError, ValueError):
            continue
    return 0


def cpu_seconds_of(pid: int) -> float:
    """Processor time a live process has used so far; 0 when it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # the name in parentheses may contain anything; utime and stime are the 12th and 13th field
            # after it
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass
class Run:
    """A program that has been started."""

    process: Process
    stdin: memoryview
    """What is still to be written to its standard input."""
    timeout_seconds: float
    used_before: float
    """Processor seconds its interpreter had used when it was still a spare."""
    output_bytes: int
    """How much it may print."""
    started: float = field(default_factory=time.monotonic)
    ending: Ending | None = None
    timed_out: bool = False
    cancelled: bool = False
    limit: str | None = None
    """The limit it met: `memory` or `output`, for which it was ended, or `disk`."""
    printed: int = 0
    """Bytes of its output so far."""
    ended: float = 0.0
    drain_until: float = 0.0
    waiting_since: float | None = None
    """Since when it waits for results of tool calls; that does not count for its time limit."""
    waited: float = 0.0
    """How long it has waited before, in seconds."""
    _cpu_seconds: float = 0.0
    _max_rss_kib: int = 0
    _oom_before: int = field(default_factory=oom_kills)

    @property
    def deadline(self) -> float:
        """When something has to be done about it, on the monotonic clock; infinity while it waits for tools,
        which the sidecar bounds."""
        if self.drain_until:
            return self.drain_until
        if self.waiting_since is not None:
            return math.inf
        return self.started + self.timeout_seconds + self.waited

    def waits(self, waiting: bool) -> None:
        """It begins or ends waiting for tools."""
        if waiting:
            self.waiting_since = time.monotonic()
        elif self.waiting_since is not None:
            self.waited += time.monotonic() - self.waiting_since
            self.waiting_since = None

    @property
    def alive(self) -> bool:
        """It has neither ended nor been told to."""
        return self.ending is None and not self.drain_until

    def count(self, usage: resource.struct_rusage) -> None:
        """Add what one of its processes has used, including that one's own reaped children."""
        self._cpu_seconds += usage.ru_utime + usage.ru_stime
        self._max_rss_kib = max(self._max_rss_kib, usage.ru_maxrss)

    def stopping(self) -> None:
        """All its processes have been told to end."""
        if not self.drain_until:
            self.drain_until = time.monotonic() + DRAIN_SECONDS

    def main_ended(self, status: int) -> None:
        """Its first process has ended."""
        self.ending = ending_of(status)
        self.ended = time.monotonic()

    def report(self) -> dict[str, object]:
        """The fields of frame X."""
        ending = self.ending or Ending(None, "SIGKILL")
        failed = ending.exit_code != 0 and not (self.timed_out or self.cancelled)
        if failed and self.limit != "memory" and oom_kills() > self._oom_before:
            self.limit = "memory"
        return {
            "exitCode": ending.exit_code,
            "signal": ending.signal,
            "timedOut": self.timed_out,
            "cancelled": self.cancelled,
            "oom": failed and self.limit == "memory",
            "limit": self.limit if failed else None,
            "cpuSeconds": round(max(0.0, self._cpu_seconds - self.used_before), 6),
            "maxRssBytes": self._max_rss_kib * 1024,
            "wallSeconds": round((self.ended or time.monotonic()) - self.started, 6),
        }


def kill_everything() -> None:
    """End every process in this PID namespace but ourselves: nothing a program started can escape.

    Only ever as PID 1, where kill(-1) means "all of this container".
    """
    if os.getpid() != 1:
        raise RuntimeError("only PID 1 may end everything")
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return


def processes_but(shadow: int) -> bool:
    """Whether there are processes in this PID namespace besides ourselves and `shadow`."""
    spared = {"1", str(shadow)}
    return any(entry.isdecimal() and entry not in spared for entry in os.listdir("/proc"))

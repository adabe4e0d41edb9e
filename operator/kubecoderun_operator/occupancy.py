"""Who may use the pod of a workspace now, who waits for it, and when nobody has used it for too long. Pure:
no clock, no I/O.

One run at a time, first come first served by the time at which the sessions were created. Waiting counts as
use, so a workspace does not end under a run that has been accepted. Times are seconds since 1970.
"""

from bisect import insort
from dataclasses import dataclass, field
from typing import Final

from kubecoderun_crds.reasons import Reason
from kubecoderun_crds.workspaces import PoolWorkspaces, WorkspaceRequest

MOST_WAITING: Final = 16
"""Runs that may wait for their turn; more are refused at once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds without use after which a workspace ends, and its longest life."""

    idle: float
    life: float


def terms(asked: WorkspaceRequest | None, pool: PoolWorkspaces) -> Terms:
    """What a workspace asks for, within what its pool allows."""
    asked = asked or WorkspaceRequest()
    life = min(asked.max_lifetime_seconds or pool.max_lifetime_seconds, pool.max_lifetime_seconds)
    return Terms(min(asked.idle_timeout_seconds or pool.idle_timeout_seconds, life), life)


@dataclass(order=True, slots=True)
class _Waiting:
    expected: int
    created: float
    version: int
    arrival: int
    run: str = field(compare=False)


class Occupancy:
    """The turns of one workspace. Runs are known by the uid of their session."""

    def __init__(self, terms: Terms, now: float) -> None:
        self.terms = terms
        self.began = now
        self.last_used = now
        self.current: str | None = None
        """The run whose turn it is."""
        self.opened = False
        """Whether the pod has ever been there."""
        self._open = False
        self._expected: str | None = None
        self._queue: list[_Waiting] = []
        self._arrivals = 0

    # --- what happens -----------------------------------------------------------------------------

    def plan(self, terms: Terms, began: float, last_used: float) -> None:
        """Its life began then, and it was used last at that time."""
        self.terms, self.began, self.last_used = terms, began, max(began, last_used)

    def open(self) -> None:
        """The pod is there."""
        self.opened = self._open = True

    def expect(self, run: str) -> None:
        """An earlier operator has given this run the pod: nobody else comes before it has shown up and
        left."""
        self._expected = run
        for entry in self._queue:
            entry.expected = int(entry.run != run)
        self._queue.sort()

    def expect_no_longer(self, run: str) -> None:
        """That run has not shown up."""
        if self._expected == run and all(entry.run != run for entry in self._queue):
            self._expected = None

    def enter(self, run: str, created: float, version: int = 0) -> bool:
        """Put a run into the queue; False if too many wait already. Again is fine.

        version: of its session when it was seen first, which tells those of one second apart.
        """
        if run == self.current or any(entry.run == run for entry in self._queue):
            return True
        if len(self._queue) >= MOST_WAITING and run != self._expected:
            return False
        self._arrivals += 1
        insort(self._queue, _Waiting(int(run != self._expected), created, version, self._arrivals, run))
        return True

    def next(self, now: float) -> str | None:
        """The run whose turn begins now; None while another one has it, or nobody may or wants to."""
        if not self._open or self.current is not None or not self._queue:
            return None
        first = self._queue[0].run
        if self._expected is not None:
            if first != self._expected:
                return None
        elif now >= self.ends_at:
            return None
        self._queue.pop(0)
        self.current, self._expected = first, None
        return first

    def leave(self, run: str, now: float) -> None:
        """The run is over, or does not want to wait any longer."""
        if self.current == run:
            self.current = None
        else:
            self._queue = [entry for entry in self._queue if entry.run != run]
        if self._expected == run:
            self._expected = None
        self.last_used = max(self.last_used, now)

    def close(self) -> list[str]:
        """No further turns: the runs that have waited in vain. The current one stays until it leaves."""
        self._open = False
        waited = [entry.run for entry in self._queue]
        self._queue = []
        return waited

    # --- views ------------------------------------------------------------------------------------

    @property
    def ends_at(self) -> float:
        """When the longest life is over."""
        return self.began + self.terms.life

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def used(self) -> bool:
        """Whether a run is in progress, waits or is on its way."""
        return self.current is not None or bool(self._queue) or self._expected is not None

    def over(self, now: float) -> Reason | None:
        """Why the workspace has to end now; None if it goes on. A run in progress keeps it from ending."""
        if not self._open or self.current is not None or self._expected is not None:
            return None
        if now >= self.ends_at:
            return Reason.MAX_LIFETIME
        if not self._queue and now >= self.last_used + self.terms.idle:
            return Reason.IDLE_TIMEOUT
        return None

    def look_at(self) -> float | None:
        """When `over` may next have another answer without anything happening."""
        if not self._open or self.current is not None or self._expected is not None:
            return None
        return self.ends_at if self._queue else min(self.ends_at, self.last_used + self.terms.idle)

"""How many pods a pool makes, and which it takes away. Pure: no clock, no I/O.

    wanted unassigned = min(replicas + waiting sessions, maxPods - assigned - terminating)

Pods that were asked for but are not yet seen count as there (`Expectations`), so a late watch cannot lead
to a pod too many. Failures slow the making down (`Brake`), so a wrong image or a full quota cannot turn
into a hot loop. And a pool can be told how fast it may use up pods (`Pace`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from kubecoderun_operator.allocator import Counts
from kubecoderun_operator.members import Member

FIRST_BATCH: Final = 1
LARGEST_BATCH: Final = 64
"""Creates in flight at once; batches double from the first to the largest as long as creates succeed."""
PROVEN_SECONDS: Final = 10.0
"""A pod that has been ready this long shows that its template works."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the pool's owner wants."""

    replicas: int
    max_pods: int
    revision: str
    max_unavailable: int | None
    """Ready warm pods that may be missing during a rolling update; None replaces old pods only as they are
    used."""
    starts_per_minute: int | None = None
    """None: no bound."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again if nothing else happens before (same clock as now)."""

    create: int = 0
    retire: tuple[Member, ...] = ()
    again_at: float | None = None
    paced: bool = False
    """More pods are wanted than may be begun now."""


class Expectations:
    """Pods that were asked for and not yet seen, by name. An entry that stays unanswered expires."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._asked: dict[str, float] = {}

    def ask(self, name: str, now: float) -> None:
        """A create of this pod is about to be sent."""
        self._asked[name] = now

    def settle(self, name: str) -> None:
        """The pod was seen, or the API server said that there is none."""
        self._asked.pop(name, None)

    def expire(self, now: float) -> list[str]:
        """Give up the entries older than the limit; their names, because such a pod may still turn up."""
        late = [name for name, at in self._asked.items() if at <= now - self._seconds]
        for name in late:
            del self._asked[name]
        return late

    def next_expiry(self) -> float | None:
        """When the oldest entry expires."""
        oldest = min(self._asked.values(), default=None)
        return None if oldest is None else oldest + self._seconds

    def __contains__(self, name: str) -> bool:
        return name in self._asked

    def __len__(self) -> int:
        return len(self._asked)


class Pace:
    """How many pods may be begun now: a bucket that holds one reserve, and is refilled evenly."""

    def __init__(self) -> None:
        self._begun = 0.0
        """Pods begun, less those that time has made up for since."""
        self._at = 0.0

    def left(self, target: Target, now: float) -> int | None:
        """How many pods may be begun now; None: as many as are needed."""
        if target.starts_per_minute is None:
            self._begun, self._at = 0.0, now
            return None
        made_up = max(0.0, now - self._at) * target.starts_per_minute / 60
        self._begun, self._at = max(0.0, self._begun - made_up), now
        return max(0, math.floor(self._burst(target) - self._begun + 1e-6))

    def begin(self, count: int) -> None:
        """So many pods are being begun."""
        self._begun += count

    def next_at(self, target: Target, now: float) -> float | None:
        """When one more may be begun, if none may now."""
        if target.starts_per_minute is None:
            return None
        return now + max(0.0, self._begun - self._burst(target) + 1) * 60 / target.starts_per_minute

    @staticmethod
    def _burst(target: Target) -> int:
        return max(1, target.replicas)


class Brake:
    """Slow start and back-off. Failures in a row double the pause; a pod made since that works ends the
    row."""

    def __init__(self, first_pause: float, longest_pause: float) -> None:
        self._first = first_pause
        self._longest = longest_pause
        self._failed_at = 0.0
        self.batch = FIRST_BATCH
        self.failures = 0
        self.until = 0.0

    def blocked(self, now: float) -> bool:
        """Whether a pause lasts."""
        return now < self.until

    def created(self) -> None:
        """A batch of creates succeeded: the next one may be twice as large."""
        self.batch = min(self.batch * 2, LARGEST_BATCH)

    def failed(self, now: float, at_least: float = 0.0) -> None:
        """A create or a pod failed: pause, at_least so many seconds. Failures within one pause count once."""
        self.batch = FIRST_BATCH
        self._failed_at = now
        if self.blocked(now):
            return
        pause = min(self._first * 2**self.failures, self._longest)
        self.failures += 1
        self.until = now + max(pause, at_least)

    def proof(self, pod: Member, now: float, *, serves: bool = False) -> bool:
        """Whether this pod shows that failures are over: it was made since the last one, and serves a session
        or has been ready for a while. Pods that were there before say nothing."""
        made_since = pod.created >= math.floor(self._failed_at)
        lasts = pod.usable and now - (pod.ready_since or now) >= PROVEN_SECONDS
        if not made_since or not (serves or lasts):
            return False
        self.failures = 0
        return True

    def reset(self) -> None:
        """There is a new template: old failures say nothing about it."""
        self.batch, self.failures, self.until, self._failed_at = FIRST_BATCH, 0, 0.0, 0.0


def wanted(target: Target, counts: Counts) -> int:
    """How many pods without a session there should be, ready or not."""
    room = target.max_pods - counts.assigned - (counts.terminating - counts.leaving)
    return max(0, min(target.replicas + counts.waiting, room))


def plan(
    target: Target,
    counts: Counts,
    expected: int,
    brake: Brake,
    failed: Callable[[Member], bool],
    now: float,
    most: int | None = None,
) -> Plan:
    """The next step towards the target. most: how many pods may be begun now, see `Pace`.

    A reserved pod still counts as unassigned, because its label says so until the pod patch, and so does one
    that was taken out of service until its deletion is seen: their replacements are made after that. Failed
    pods keep their place until the pause is over, which bounds how many there can be.
    """
    want = wanted(target, counts)
    have = len(counts.free) + counts.reserved + counts.leaving + expected
    blocked = brake.blocked(now)
    # A reserved pod is about to leave by itself: it is no reason to take another one away.
    retire = _victims(target, counts, len(counts.free) - want, failed, spare_failed=blocked)
    missing = max(0, want - have)
    create = 0 if blocked else min(missing, brake.batch, missing if most is None else most)
    waits_for_brake = blocked and (want > have or any(failed(member) for member in counts.free))
    paced = not blocked and most is not None and missing > most
    return Plan(create, tuple(retire), brake.until if waits_for_brake else None, paced)


def _victims(
    target: Target, counts: Counts, surplus: int, failed: Callable[[Member], bool], *, spare_failed: bool
) -> list[Member]:
    order = sorted(counts.free, key=lambda member: _rank(member, target.revision, failed))
    victims = order[: max(0, surplus)]
    rest = order[len(victims) :]
    if not spare_failed:
        victims += [member for member in rest if failed(member)]
    if target.max_unavailable is not None:
        victims += _outdated(target, counts, [member for member in rest if not failed(member)], victims)
    return victims


def _rank(member: Member, revision: str, failed: Callable[[Member], bool]) -> tuple[int, bool, float]:
    """Who goes first: pending, then failed, then ready; of those old revisions first, then the newest."""
    broken = failed(member)
    kind = 1 if broken else (2 if member.usable else 0)
    return kind, member.revision == revision, -member.created


def _outdated(target: Target, counts: Counts, rest: Iterable[Member], gone: list[Member]) -> list[Member]:
    """Pods of an older revision that can go now: those that are not ready, and so many ready ones as may
    miss."""
    old = [member for member in rest if member.revision != target.revision]
    going = {member.uid for member in gone}
    ready = sum(1 for member in counts.free if member.usable and member.uid not in going) + counts.reserved
    # Not `wanted`: that shrinks with each pod being removed, and the floor would sink with it.
    floor = min(target.replicas, target.max_pods - counts.assigned) - (target.max_unavailable or 0)
    spare = max(0, ready - max(0, floor))
    idle = [member for member in old if not member.usable]
    return idle + [member for member in old if member.usable][:spare]

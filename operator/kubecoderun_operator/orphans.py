"""Which sessions in the store are to be emptied because there is no such session any more. Pure.

Two kinds go: those that an earlier look has seen with their session, which is gone now; and those that nobody
has ever seen, twice in a row, whose newest object is old. An upload in progress has no session yet, so the
age keeps it safe. If a large part of all would go, something else is wrong (another cluster's store, a
restored database, a wrong setting) and none goes.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Final

HANDFUL: Final = 10
"""So many may always go: in a small store they would be a large part of all."""


def bound(total: int, share: float) -> float:
    """How many of so many may go at once, if that is at most this part of all."""
    return max(float(HANDFUL), share * total)


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds since the newest object of a session that was seen, and of one that never was; and the largest
    part of all that may go at once."""

    seen_seconds: float
    unseen_seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What the looks so far have found in one namespace."""

    seen: frozenset[str] = frozenset()
    """Names in the store whose session existed at some look."""
    alone: frozenset[str] = frozenset()
    """Names in the store that had no session at the last look."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Names in the store that may go, if their objects are old enough; with the age that they need."""

    total: int
    ages: Mapping[str, float] = field(default_factory=dict)


def look(memory: Memory, stored: Set[str], sessions: Set[str], terms: Terms) -> tuple[Suspects, Memory]:
    """Compare what the store has with the sessions there are; what to remember for the next look.

    sessions must have been listed after stored, so that a session that was made meanwhile is among them.
    """
    alone = frozenset(stored - sessions)
    seen = frozenset(name for name in stored if name in sessions or name in memory.seen)
    ages = {
        name: terms.seen_seconds if name in memory.seen else terms.unseen_seconds
        for name in sorted(alone)
        if name in memory.seen or name in memory.alone
    }
    return Suspects(len(stored), ages), Memory(seen, alone)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which names to empty of objects older than so many seconds; none if too many would go."""

    empty: Mapping[str, float]
    refused: int = 0
    """How many would have gone."""


def decide(suspects: Suspects, newest: Mapping[str, float | None], terms: Terms) -> Plan:
    """newest: seconds since the newest object of each suspect that was looked at; None if it has none.

    Suspects that were not looked at count as if they would go, and do not.
    """
    old = {}
    for name, needed in suspects.ages.items():
        age = newest.get(name)
        if age is not None and age >= needed:
            old[name] = needed
    would_go = len(old) + len(suspects.ages.keys() - newest.keys())
    if would_go > bound(suspects.total, terms.share):
        return Plan({}, would_go)
    return Plan(old)

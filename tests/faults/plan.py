"""Which requests and watch events are to suffer what: seeded, so that a run can be repeated. No I/O.

A plan is a list of rules. For a request or an event the first rule that matches and whose turn it is decides.
Whether it is the turn of the k-th match of a rule depends on the seed, the rule and k alone, not on the clock
or on what other rules did.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class RequestFault(StrEnum):
    """What happens to a request that is not a watch, or to the opening of one."""

    DELAY = "delay"
    """It reaches the API server late."""
    REFUSE = "refuse"
    """It does not reach the API server; the answer is an error status."""
    RESET = "reset"
    """It does not reach the API server; the connection breaks."""
    LOSE = "lose"
    """The API server carries it out; the answer is held back for a while, then the connection breaks."""
    DECEIVE = "deceive"
    """The API server carries it out; the answer is an error status all the same."""


class EventFault(StrEnum):
    """What happens to one event of a watch."""

    DELAY = "delay"
    """It comes late, and so do all after it."""
    DROP = "drop"
    """It never comes; the watch goes on as if there had been none."""
    REPEAT = "repeat"
    """It comes twice."""
    SWAP = "swap"
    """It comes after the next one, or after a while if there is no next one."""
    CUT = "cut"
    """The connection breaks before it; a watch from the last version shows it again."""
    GONE = "gone"
    """The watch ends with 410 before it: only a list shows it."""
    ERROR = "error"
    """The watch ends with 500 before it."""
    FREEZE = "freeze"
    """It and all after it wait for a while, without the connection breaking."""


@dataclass(frozen=True)
class Match:
    """Which requests or events a rule is about. Empty: all."""

    methods: frozenset[str] = frozenset()
    path: str = ""
    """Regular expression, searched for in the path without its query."""
    agent: str = ""
    """Regular expression, searched for in the User-Agent."""
    types: frozenset[str] = frozenset()
    """Types of events: ADDED, MODIFIED, DELETED."""

    def hits(self, method: str, path: str, agent: str, event: str = "") -> bool:
        return (
            (not self.methods or method in self.methods)
            and (not self.types or event in self.types)
            and re.search(self.path, path) is not None
            and re.search(self.agent, agent) is not None
        )


@dataclass(frozen=True)
class Rule:
    """One kind of misfortune, and how often it strikes."""

    fault: RequestFault | EventFault
    match: Match = field(default_factory=Match)
    share: float = 1.0
    """Of the matches, 0 to 1."""
    most: int | None = None
    """Never more often than that."""
    seconds: tuple[float, float] = (0.0, 0.0)
    """How long it lasts, drawn evenly between the two."""
    status: int = 500
    """For REFUSE and DECEIVE."""
    retry_after: int | None = None
    """Header of such an answer."""


@dataclass(frozen=True)
class Stroke:
    """A fault that strikes now, and for how many seconds."""

    rule: Rule
    seconds: float

    @property
    def fault(self) -> RequestFault | EventFault:
        return self.rule.fault


class Plan:
    """The rules, and how often each has matched and struck so far."""

    def __init__(self, seed: int = 0, rules: Sequence[Rule] = ()) -> None:
        self.seed = seed
        self.rules = tuple(rules)
        self.struck: Counter[str] = Counter()
        """How often each fault has struck."""
        self._matched = [0] * len(self.rules)
        self._strokes = [0] * len(self.rules)

    def for_request(self, method: str, path: str, agent: str) -> Stroke | None:
        """What happens to this request; None for nothing."""
        return self._draw(RequestFault, method, path, agent, "")

    def for_event(self, path: str, agent: str, event: str) -> Stroke | None:
        """What happens to this event of a watch of this path; None for nothing."""
        return self._draw(EventFault, "GET", path, agent, event)

    def _draw(
        self, kind: type[RequestFault | EventFault], method: str, path: str, agent: str, event: str
    ) -> Stroke | None:
        for index, rule in enumerate(self.rules):
            if not isinstance(rule.fault, kind) or not rule.match.hits(method, path, agent, event):
                continue
            self._matched[index] += 1
            chance = Random(f"{self.seed}/{index}/{self._matched[index]}")
            if chance.random() >= rule.share or self._strokes[index] == rule.most:
                continue
            self._strokes[index] += 1
            self.struck[rule.fault] += 1
            return Stroke(rule, chance.uniform(*rule.seconds))
        return None

"""Whether the node of a run is still there, while nothing comes from its sidecar. Pure.

A silent sidecar says little: a busy machine or a pause holds it up for seconds, and its program goes on all
the same. Connections, however, are taken by the kernel of the node, whatever its processes do. So the
operator knocks: only where nothing is heard *and* no connection is taken, several times in a row, is the node
gone. What happens while the operator itself is held up is no evidence.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

KNOCK_SECONDS: Final = 0.6
"""How long a knock waits for the kernel of the node, and the pause from one to the next."""
_FIRST_AFTER: Final = 1.5
"""A heartbeat comes each second: from here on one is late."""
_HELD_UP: Final = 0.5
"""A knock that took so much longer than it may was not watched: its end says nothing."""
_IN_A_ROW: Final = 4
_REFUSED_IN_A_ROW: Final = 2
_REASSURED_FOR: Final = 2.0
"""Pause after a knock that was taken."""


class Knock(StrEnum):
    """What became of an attempt to connect."""

    TAKEN = "taken"
    """The node is there, and something in the pod listens."""
    REFUSED = "refused"
    """The node is there, and nothing listens: the sidecar has ended, or its pod."""
    SILENT = "silent"
    """No answer at all, or no way to the node."""


class Verdict(StrEnum):
    """What is to be thought of a node."""

    THERE = "there"
    SIDECAR_GONE = "sidecar gone"
    NODE_GONE = "node gone"


@dataclass(slots=True)
class Presence:
    """What is known of one node. Times are seconds of a steady clock."""

    heard: float
    """When something last came."""
    patience: float
    """Seconds of silence after which a node that takes no connections is gone."""
    _silent: int = 0
    _refused: int = 0
    _next: float = 0.0

    def hear(self, now: float) -> None:
        """Something has come from the sidecar."""
        self.heard = now
        self._silent = self._refused = 0
        self._next = 0.0

    def knocked(self, knock: Knock, began: float, ended: float) -> None:
        """An attempt to connect, made between these moments."""
        if ended - began > KNOCK_SECONDS + _HELD_UP:
            self._silent = self._refused = 0
            return
        self._silent = self._silent + 1 if knock is Knock.SILENT else 0
        self._refused = self._refused + 1 if knock is Knock.REFUSED else 0
        self._next = began + (_REASSURED_FOR if knock is Knock.TAKEN else KNOCK_SECONDS)

    def next_knock(self) -> float:
        """When to knock next."""
        return max(self._next, self.heard + _FIRST_AFTER)

    def verdict(self, now: float) -> Verdict:
        """What to think, going by all that happened."""
        if self._refused >= _REFUSED_IN_A_ROW:
            return Verdict.SIDECAR_GONE
        if self._silent >= _IN_A_ROW and now - self.heard >= self.patience:
            return Verdict.NODE_GONE
        return Verdict.THERE

"""How much one tenant may do: runs per minute, and at once. No I/O, no clock: callers say what time it is.

A tenant's rate is a bucket of tokens that fills steadily; each run takes one. A run that finds none may take
the next ones in advance and wait until they are there, if that is soon; so whoever came first is first.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of each tenant, in one process. 0 means no limit."""

    per_minute: float = 0.0
    burst: int = 1
    """Runs that may come at once after a quiet time."""
    at_once: int = 0
    longest_wait: float = 1.0
    """Seconds that a run may be held back rather than refused."""

    def share(self, processes: int) -> "Limits":
        """What one of so many processes may admit, so that all together keep the limits about."""
        if processes == 1:
            return self
        return Limits(
            per_minute=self.per_minute / processes,
            burst=max(math.ceil(self.burst / processes), 1),
            at_once=math.ceil(self.at_once / processes),
            longest_wait=self.longest_wait,
        )


@dataclass(frozen=True)
class Go:
    """The run may begin after so many seconds."""

    after: float = 0.0


@dataclass(frozen=True)
class Stop:
    """The run may not begin; asking again makes sense after so many seconds."""

    retry_after: float


class Bucket:
    """The tokens of one tenant."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._tokens = float(limits.burst)
        self._at = now

    def take(self, now: float) -> Go | Stop:
        """Ask for one token; a refusal takes none. `now` in seconds, never smaller than before."""
        if self._limits.per_minute <= 0:
            return Go()
        rate = self._limits.per_minute / 60
        self._tokens = min(self._tokens + (now - self._at) * rate, float(self._limits.burst))
        self._at = now
        after = max(1.0 - self._tokens, 0.0) / rate
        if after > self._limits.longest_wait:
            return Stop(after)
        self._tokens -= 1.0
        return Go(after)

    def give_back(self) -> None:
        """Return a token that was taken for a run that did not begin."""
        self._tokens += 1.0

    def is_full(self, now: float) -> bool:
        """Whether a new bucket would be no different."""
        rate = self._limits.per_minute / 60
        return self._tokens + (now - self._at) * rate >= self._limits.burst

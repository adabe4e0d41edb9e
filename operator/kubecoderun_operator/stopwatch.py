"""How long each part of serving a session took."""

import time

from kubecoderun_operator import metrics
from kubecoderun_operator.orders import Session


class Stopwatch:
    """Starts when it is made; each mark ends one part."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        """On the monotonic clock."""
        self._marks: dict[str, float] = {}

    def mark(self, part: str) -> None:
        """This part of the work is done."""
        self._marks[part] = time.monotonic()

    def tell(self, session: Session, reason: str, start: str) -> dict[str, float]:
        """Count the session in the metrics; milliseconds of each part and in total, for the log."""
        metrics.SESSIONS.labels(session.namespace, session.pool, reason, start).inc()
        took, before = {}, self.began
        for part, at in self._marks.items():
            took[part], before = at - before, at
        took["total"] = before - self.began
        for part, seconds in took.items():
            metrics.PHASE_SECONDS.labels(session.pool, part).observe(seconds)
        return {f"{part}_ms": round(seconds * 1000, 1) for part, seconds in took.items()}

"""Writes the status of a pool: only what differs, and not more often than anybody reads it."""

import logging
import time
from http import HTTPStatus
from typing import Any

from kubecoderun_operator import conditions, metrics
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError
from kubecoderun_operator.conditions import Facts
from kubecoderun_operator.log import about
from kubecoderun_operator.notices import Subject
from kubecoderun_operator.outcomes import timestamp
from kubecoderun_operator.sizing import wanted
from kubecoderun_operator.tools import Tools

logger = logging.getLogger(__name__)


class StatusReport:
    """The status of one pool as it stands in the cluster, and when it may be written next."""

    def __init__(self, namespace: str, name: str, uid: str, status: dict[str, Any], tools: Tools) -> None:
        self.status = status
        """What was last read or written."""
        self._namespace, self._name, self._uid = namespace, name, uid
        self._cluster, self._notices = tools.cluster, tools.notices
        self._interval = tools.settings.pool_status_seconds
        self._written = float("-inf")
        self._differs_since: float | None = None

    async def write(self, facts: Facts) -> float | None:
        """Write the status if it differs: at once if somebody waits for the change, otherwise later.

        Returns the seconds after which to call again, or None if all is written. While a run takes a pod and
        gets it replaced, the status differs for a second or two; waiting spares both writes.
        """
        self._set_gauges(facts)
        now = time.monotonic()
        made = conditions.status(facts, self.status, timestamp(time.time()))
        if made == self.status:
            self._differs_since = None
            return None
        if self._differs_since is None:
            self._differs_since = now
        due = max(self._written, self._differs_since) + self._interval
        if now < due and not conditions.urgent(self.status, made):
            return due - now
        try:
            await self._cluster.write_pool_status(self._namespace, self._name, self._uid, made)
        except ApiUnreachableError:
            return self._interval
        except ApiError as error:
            # 404, or 422 for another uid: the pool is gone, and its event is on the way.
            level = logging.DEBUG if error.status == HTTPStatus.NOT_FOUND else logging.ERROR
            where = about(namespace=self._namespace, pool=self._name, cause=str(error))
            logger.log(level, "a pool's status was refused", extra=where)
        for reason, message in conditions.announcements(self.status, made):
            self._notices.post(Subject(self._namespace, self._name, self._uid), reason, message)
        self.status, self._written, self._differs_since = made, time.monotonic(), None
        return None

    def _set_gauges(self, facts: Facts) -> None:
        counts = facts.counts
        states = {
            "ready": counts.ready,
            "unassigned": len(counts.free) + counts.reserved,
            "assigned": counts.assigned,
            "terminating": counts.terminating,
            "desired": wanted(facts.target, counts),
        }
        metrics.pool_gauges(self._namespace, self._name, states, counts.waiting)

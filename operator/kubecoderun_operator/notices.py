"""Events on pools, for whoever looks at the cluster with kubectl: what keeps a pool from getting pods, and
runs that were lost. None for a session that ends as sessions should.

A reason that comes again becomes a count of the Event that is there, which is not written often.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from kubecoderun_crds import names
from kubecoderun_crds.printable import printable
from kubecoderun_crds.reasons import EVENT_MEANINGS, NORMAL_EVENTS, EventReason
from kubecoderun_operator.background import Background
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError
from kubecoderun_operator.log import about
from kubecoderun_operator.outcomes import timestamp

logger = logging.getLogger(__name__)

_MEMORY_SECONDS: Final = 3000.0
"""The API server forgets an Event an hour after its last change; then another one is made."""
_MOST_CHARACTERS: Final = 1000
"""Of a message; the API server takes 1024."""


class EventWriter(Protocol):
    """The requests for it; `Cluster` has them."""

    async def create_event(self, body: dict[str, Any]) -> object: ...
    async def patch_event(self, namespace: str, name: str, changes: dict[str, Any]) -> object: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The pool that an Event is about."""

    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Notice:
    """One Event, as it is to stand in the cluster."""

    name: str
    subject: Subject
    reason: EventReason
    first: float
    last: float = 0.0
    message: str = ""
    count: int = 0
    written: int = 0
    writing: bool = False


class Notices:
    """Posts Events, in the background."""

    def __init__(self, writer: EventWriter, background: Background, instance: str, interval: float) -> None:
        """instance: who posts, for people. interval: least seconds between two writes of the same Event."""
        self._writer = writer
        self._background = background
        self._instance = instance
        self._interval = interval
        self._notices: dict[tuple[str, EventReason], _Notice] = {}

    def post(self, subject: Subject, reason: EventReason, message: str) -> None:
        """Say that this has happened to a pool."""
        now, key = time.time(), (subject.uid, reason)
        notice = self._notices.get(key)
        if notice is None or now - notice.last > _MEMORY_SECONDS:
            notice = self._notices[key] = _Notice(_event_name(subject.name), subject, reason, now)
        notice.last, notice.count = now, notice.count + 1
        notice.message = printable(message or EVENT_MEANINGS[reason], _MOST_CHARACTERS)
        if not notice.writing:
            notice.writing = True
            self._background.spawn(self._write(notice), f"event {reason} of {subject.name}")

    def forget(self, uid: str) -> None:
        """The pool is gone."""
        self._notices = {key: found for key, found in self._notices.items() if key[0] != uid}

    async def _write(self, notice: _Notice) -> None:
        try:
            while notice.written < notice.count:
                count = notice.count
                await self._write_once(notice, count)
                notice.written = count
                await asyncio.sleep(self._interval)
        except (ApiError, ApiUnreachableError) as error:
            # The condition of the pool, or the status of the session, says the same.
            where = about(pool=notice.subject.name, reason=str(notice.reason), cause=str(error))
            logger.warning("an event was not posted", extra=where)
        finally:
            notice.writing = False

    async def _write_once(self, notice: _Notice, count: int) -> None:
        changes = {"count": count, "lastTimestamp": _second(notice.last), "message": notice.message}
        if notice.written:
            try:
                await self._writer.patch_event(notice.subject.namespace, notice.name, changes)
                return
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
        await self._writer.create_event(self._body(notice) | changes)

    def _body(self, notice: _Notice) -> dict[str, Any]:
        subject = notice.subject
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": subject.namespace, "name": notice.name},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.POOL_KIND,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "type": "Normal" if notice.reason in NORMAL_EVENTS else "Warning",
            "reason": str(notice.reason),
            "firstTimestamp": _second(notice.first),
            "source": {"component": names.OPERATOR_FIELD_MANAGER},
            "reportingComponent": f"{names.GROUP}/operator",
            "reportingInstance": self._instance[:128],
        }


def _event_name(pool: str) -> str:
    return f"{pool}.{names.random_text(12)}"


def _second(moment: float) -> str:
    return timestamp(int(moment)).replace(".000000Z", "Z")

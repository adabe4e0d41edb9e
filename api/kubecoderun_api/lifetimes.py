"""Sessions with files live as long as somebody uses them: a use moves their end, at most once an hour."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from kubecoderun_api import log
from kubecoderun_api.chores import Chores
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.manifests import timestamp
from kubecoderun_api.session_files import SessionFile, SessionFiles
from kubecoderun_crds import names

_SMALLEST_STEP: Final = timedelta(hours=1)
_ACTIVE: Final = timedelta(hours=23)
"""LibreChat uses a file without uploading it again as long as it was modified less than that ago."""


def next_end(files: SessionFiles, now: datetime, lifetime: timedelta, longest: timedelta) -> datetime | None:
    """Until when a session that is used now should live; None if it lives about that long anyway.

    `lifetime` after its use, but not longer than `longest` after it was made.
    """
    end = now + lifetime
    if files.created is not None and files.created + longest < end:
        end = files.created + longest
        if files.expires is None or end <= files.expires:
            return None  # its pool says when it goes, or there is nothing to gain
    if not files.live or (files.expires is not None and end - files.expires <= _SMALLEST_STEP):
        return None
    return end


def is_active(file: SessionFile, now: datetime) -> bool:
    """Whether LibreChat will go on to use a file that it is told about now."""
    return now - datetime.fromisoformat(file.modified) < _ACTIVE


class Lifetimes:
    """Moves the ends of sessions in the background; nobody waits for it."""

    def __init__(self, cluster: Cluster, chores: Chores, *, lifetime: timedelta, longest: timedelta) -> None:
        """See `next_end`."""
        self._cluster = cluster
        self._chores = chores
        self._lifetime = lifetime
        self._longest = longest
        self._moving: set[str] = set()

    def told_about(self, session: str, files: SessionFiles, told: Iterable[SessionFile]) -> None:
        """Some files of a session have been described to a client."""
        now = datetime.now(UTC)
        if any(is_active(file, now) for file in told):
            self.used(session, files)

    def used(self, session: str, files: SessionFiles) -> None:
        """Files of a session go into a run."""
        end = next_end(files, datetime.now(UTC), self._lifetime, self._longest)
        if end is not None and session not in self._moving:
            self._moving.add(session)
            self._chores.start(self._move(session, end))

    async def _move(self, session: str, end: datetime) -> None:
        change = {
            "metadata": {"labels": {names.LABEL_EXPIRES: names.expiry_bucket(end)}},
            "spec": {"expiresAt": timestamp(end)},
        }
        try:
            await self._cluster.merge_session(session, change)
        except ClusterError as error:  # the next use tries again
            log.event(
                "end_not_moved",
                level=log.WARNING,
                session=session,
                status=error.status,
                reason=error.reason,
            )
        finally:
            self._moving.discard(session)

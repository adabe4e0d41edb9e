"""Deletes single files: first it is written down that the file is no more, then its bytes go."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from kubecoderun_api import log, scopes, session_files
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.scopes import Scope
from kubecoderun_api.sessions import Sessions
from kubecoderun_api.storage import Store
from kubecoderun_api.waiters import NoResult
from kubecoderun_api.watching import backoff

_ATTEMPTS: Final = 8
_LONGEST_WAIT: Final = 4
"""Failures after which the wait between two attempts does not grow any more: conflicts are short."""
_CONFLICTS: Final = frozenset({409, 422})
"""Somebody else has changed the session in between."""


class Removals:
    """Takes files out of sessions, beside others who do the same."""

    def __init__(self, cluster: Cluster, sessions: Sessions, store: Store) -> None:
        self._cluster = cluster
        self._sessions = sessions
        self._store = store

    async def remove(self, session: str, file: str, principal: Principal, scope: Scope | None) -> bool:
        """Delete a file; whether this principal had one, and it belongs to `scope` as far as both are known.
        After that nobody can use it, its bytes are gone.

        Raises NoResult if it could not be written down, StoreError if it was, but the bytes are still there:
        calling again deletes them.
        """
        tried = False
        for failures in range(1, _ATTEMPTS + 1):
            resource = await self._sessions.read(session, principal)
            files = session_files.read(resource, datetime.now(UTC)) if resource else session_files.NOTHING
            if not scopes.admits(files.scope, scope):
                return False
            if resource is None or file in files.removed or file not in files.live:
                if file in files.removed:
                    await self._store.remove_file(session, file)
                return tried and file in files.removed
            tried = True
            try:
                await self._cluster.patch_session(session, session_files.removal(resource, file))
            except ClusterError as error:
                if not error.retriable and error.status not in _CONFLICTS:
                    log.event(
                        "removal_refused",
                        level=log.WARNING,
                        session=session,
                        status=error.status,
                        reason=error.reason,
                    )
                    raise NoResult("Refused") from None
                await asyncio.sleep(backoff(min(failures, _LONGEST_WAIT)))
            else:
                await self._store.remove_file(session, file)
                return True
        raise NoResult("NotChanged")

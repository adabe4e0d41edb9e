"""Deletes everything of one user: sessions first, so that nobody gets at anything, then the bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from kubecoderun_api import log
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError
from kubecoderun_api.waiters import NoResult
from kubecoderun_api.watching import backoff
from kubecoderun_crds import names

T = TypeVar("T")
_AT_ONCE: Final = 8
_ATTEMPTS: Final = 6
_ROUNDS: Final = 5
"""How often is looked for sessions that were made meanwhile."""
_NOT_FOUND: Final = 404


@dataclass
class Erased:
    """What was deleted."""

    sessions: int = 0
    objects: int = 0
    complete: bool = True
    """Whether the store has let go of everything; what it has not, the operator finds."""


def selector(tenant: str | None, user: str) -> str:
    """Label selector of all sessions of a user of that tenant."""
    of_user = f"{names.LABEL_USER}={names.label_value(user)}"
    if tenant is None:
        return f"{of_user},!{names.LABEL_TENANT}"
    return f"{of_user},{names.LABEL_TENANT}={names.label_value(tenant)}"


class Erasure:
    """Takes users out of the cluster and the store."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def erase(self, principal: Principal, user: str) -> Erased:
        """Delete all sessions of a user of the principal's tenant. Raises NoResult if some are left."""
        erased = Erased()
        for _ in range(_ROUNDS):
            found = await _retrying(lambda: self._names(selector(principal.tenant, user)))
            if not found:
                return erased
            await asyncio.gather(*(self._erase(name, erased) for name in found))
        raise NoResult("NotChanged")

    async def _names(self, wanted: str) -> list[str]:
        found: list[str] = []
        page = ""
        while True:
            answer = await self._cluster.list_metadata(names.SESSION_PLURAL, selector=wanted, page=page)
            found += [item["metadata"]["name"] for item in answer["items"]]
            page = answer["metadata"].get("continue") or ""
            if not page:
                return found

    async def _erase(self, name: str, erased: Erased) -> None:
        async with self._turns:
            await _retrying(lambda: self._delete(name))
            erased.sessions += 1
            try:
                for session, object_name in await self._store.find(name):
                    if session == name:
                        await self._store.remove_file(session, object_name)
                        erased.objects += 1
            except StoreError as error:
                erased.complete = False
                log.event("bytes_not_erased", level=log.WARNING, session=name, cause=str(error))

    async def _delete(self, name: str) -> None:
        try:
            await self._cluster.delete_session(name)
        except ClusterError as error:
            if error.status != _NOT_FOUND:
                raise


async def _retrying(call: Callable[[], Awaitable[T]]) -> T:
    """Raises NoResult when it goes on to fail."""
    for failures in range(1, _ATTEMPTS + 1):
        try:
            return await call()
        except ClusterError as error:
            if not error.retriable:
                raise NoResult("Refused") from None
        await asyncio.sleep(backoff(failures))
    raise NoResult("NotChanged")

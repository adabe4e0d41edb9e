"""Empties the store of objects of deleted sessions: those that this operator has deleted, at once; those that
others have, when a look around finds them."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from kubecoderun_crds import names
from kubecoderun_operator import metrics, orphans
from kubecoderun_operator.bucket import Bucket, Page, StoreError
from kubecoderun_operator.cluster import Cluster
from kubecoderun_operator.log import about
from kubecoderun_operator.orphans import Memory, Suspects, Terms
from kubecoderun_operator.storage import Storage

logger = logging.getLogger(__name__)

_FRESH_SECONDS: Final = 5.0
"""What is younger when its session is deleted may belong to the next session of that name."""
SEEN_SECONDS: Final = 60.0
"""The same, for sessions whose deletion was not ours."""
_MOST_WAITING: Final = 10_000
_TRIES: Final = 3
_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 60.0
_MOST_SESSIONS: Final = 200_000
"""Most sessions in the store of one namespace that a look keeps in mind."""
_MOST_PAGES: Final = 1000
_MOST_SUSPECTS: Final = 1000
"""Suspects whose age is looked up in one look."""


class Purger:
    """Removes objects by the prefix of their session."""

    def __init__(
        self,
        storage: Storage,
        bucket: Bucket,
        cluster: Cluster,
        check_lease: Callable[[], None],
        terms: Terms,
    ) -> None:
        """check_lease raises NotLeadingError if this process may not remove anything now."""
        self._storage = storage
        self._bucket = bucket
        self._cluster = cluster
        self._check_lease = check_lease
        self._terms = terms
        self._waiting: deque[tuple[str, str]] = deque()
        self._wake = asyncio.Event()
        self._memories: dict[str, Memory] = {}

    async def close(self) -> None:
        await self._bucket.close()

    # --- sessions that the operator has deleted -----------------------------------------------------

    def session_deleted(self, namespace: str, name: str) -> None:
        """The session is gone: remove what it has in the store, soon."""
        if len(self._waiting) >= _MOST_WAITING:
            logger.warning("objects are left to the next look", extra=about(session=name))
            return
        self._waiting.append((namespace, name))
        self._wake.set()

    async def work(self) -> None:
        """Carry the removals out, one after the other, for ever. While the store does not answer, they
        wait."""
        pause, tries = _FIRST_PAUSE, 0
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            namespace, name = self._waiting[0]
            try:
                await self._empty(namespace, name, _FRESH_SECONDS, "deleted")
            except StoreError as error:
                tries += 1
                where = about(namespace=namespace, session=name, cause=str(error))
                if tries < _TRIES:
                    logger.warning("objects are not removed yet", extra=where)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                    continue
                logger.error("objects are left to the next look", extra=where)
            self._waiting.popleft()
            pause, tries = _FIRST_PAUSE, 0

    # --- sessions that are gone without us ----------------------------------------------------------

    async def sweep(self, namespace: str) -> None:
        """Look once at all that the store has of a namespace. Raises StoreError, ApiError and
        ApiUnreachableError."""
        stored = await self._stored_sessions(namespace)
        sessions: set[str] = set()
        async for raw in self._cluster.session_metadata(namespace):
            sessions.add(raw["metadata"]["name"])
        memory = self._memories.get(namespace, Memory())
        suspects, self._memories[namespace] = orphans.look(memory, stored, sessions, self._terms)
        plan = orphans.decide(suspects, await self._ages(namespace, suspects), self._terms)
        metrics.STORE_SWEEP_STOPPED.labels(namespace).set(plan.refused)
        if plan.refused:
            counts = about(namespace=namespace, would_go=plan.refused, sessions_in_store=suspects.total)
            logger.error("too many sessions in the store have no resource: nothing is removed", extra=counts)
        for name, age in plan.empty.items():
            await self._empty(namespace, name, age, "orphan")

    async def sweep_uploads(self, namespace: str) -> None:
        """Look once for uploads in parts that were begun long ago: whoever began them has been killed. Raises
        StoreError."""
        marker = None
        for _ in range(_MOST_PAGES):
            page = await self._bucket.unfinished(self._storage.prefix(namespace), marker)
            for upload in page.uploads:
                if page.now - upload.begun >= self._terms.unseen_seconds:
                    self._check_lease()
                    await self._bucket.abort(upload)
                    metrics.UPLOADS_ABORTED.inc()
            marker = page.marker
            if marker is None:
                return

    async def _stored_sessions(self, namespace: str) -> set[str]:
        """Names of the sessions that have objects."""
        prefix = self._storage.prefix(namespace)
        found: set[str] = set()
        token = ""
        while True:
            page = await self._bucket.page(prefix, delimiter="/", token=token)
            for entry in page.prefixes:
                name = entry.removeprefix(prefix).removesuffix("/")
                if names.is_session_name(name):
                    found.add(name)
            token = page.token
            if not token:
                return found
            if len(found) >= _MOST_SESSIONS:
                where = about(namespace=namespace, looked_at=len(found))
                logger.warning("the store has more sessions than one look can take in", extra=where)
                return found

    async def _ages(self, namespace: str, suspects: Suspects) -> dict[str, float | None]:
        """Seconds since the newest object of each suspect; of the first ones if there are very many."""
        ages: dict[str, float | None] = {}
        for name in list(suspects.ages)[:_MOST_SUSPECTS]:
            ages[name] = None
            async for page in self._pages(self._storage.prefix(namespace, name)):
                for entry in page.objects:
                    age, known = page.now - entry.modified, ages[name]
                    ages[name] = age if known is None else min(known, age)
        return ages

    # --- inside -------------------------------------------------------------------------------------

    async def _empty(self, namespace: str, name: str, age: float, cause: str) -> None:
        """Remove all objects of a session that are so many seconds old, by the store's own clock."""
        async for page in self._pages(self._storage.prefix(namespace, name)):
            keys = [entry.key for entry in page.objects if page.now - entry.modified >= age]
            if keys:
                self._check_lease()
                await self._bucket.remove(keys)
                metrics.OBJECTS_REMOVED.labels(cause).inc(len(keys))

    async def _pages(self, prefix: str) -> AsyncIterator[Page]:
        token = ""
        for _ in range(_MOST_PAGES):
            page = await self._bucket.page(prefix, token=token)
            yield page
            token = page.token
            if not token:
                return

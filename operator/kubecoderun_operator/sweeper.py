"""Deletes sessions when their time has come, and finds what events have missed.

What this process has finished is deleted to the second, by timers in memory. For the rest there are slow
lists, page by page and without contents: sessions and pods that nobody here knows, those known here that are
no longer there, and objects in the store whose session is gone.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_operator import lifetimes, metrics, orders, orphans
from kubecoderun_operator.allocator import Standing
from kubecoderun_operator.bucket import StoreError
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, NotLeadingError
from kubecoderun_operator.lifetimes import Lifetimes
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member, seconds, version_of
from kubecoderun_operator.orders import Session
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.sessions import Desk
from kubecoderun_operator.sidecars import ask_states
from kubecoderun_operator.tools import Tools

logger = logging.getLogger(__name__)

_LONGEST_SLEEP: Final = 30.0
_RETRY_SECONDS: Final = 5.0
_DELETES_AT_ONCE: Final = 8
_ASKED_AT_ONCE: Final = 32
_SETTLED_SECONDS: Final = 5.0
"""What is younger is still on its way through events."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When to delete which session; version: only if it is unchanged since."""

    at: float
    namespace: str
    name: str
    uid: str
    version: str | None = None
    objects: bool = True
    """Whether the store may have something of the session."""


class Timetable:
    """The sessions to delete, by time. Pure. A later entry for a session replaces an earlier one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._entries: dict[str, Expiry] = {}

    def put(self, entry: Expiry) -> None:
        self._entries[entry.uid] = entry
        heapq.heappush(self._heap, (entry.at, entry.uid))

    def take_due(self, now: float) -> list[Expiry]:
        """Remove and return all whose time has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, uid = heapq.heappop(self._heap)
            entry = self._entries.get(uid)
            if entry is not None and entry.at == at:
                due.append(self._entries.pop(uid))
        return due

    def of(self, namespace: str) -> list[Expiry]:
        """All sessions of a namespace."""
        return [entry for entry in self._entries.values() if entry.namespace == namespace]

    def next_at(self) -> float | None:
        """The earliest time; it may be that of an entry that was replaced."""
        return self._heap[0][0] if self._heap else None

    def __contains__(self, uid: str) -> bool:
        return uid in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Sweeper:
    """Runs in the background from the time the operator leads."""

    def __init__(self, tools: Tools, registry: Registry) -> None:
        self._tools = tools
        self._registry = registry
        self._timetable = Timetable()
        self._wake = asyncio.Event()
        self._desk: Desk

    def start(self, desk: Desk) -> None:
        """Begin to delete and to look around."""
        self._desk = desk
        settings, spawn = self._tools.settings, self._tools.background.spawn
        spawn(self._delete_expired(), "expiry")
        spawn(self.remove_bound_pods(), "remove bound pods")
        spawn(self._every(settings.sweep_pods_seconds, self.sweep_pods), "sweep pods")
        spawn(self._every(settings.sweep_pods_seconds, self.sweep_policies), "sweep policies")
        spawn(self._every(settings.sweep_sessions_seconds, self.sweep_sessions), "sweep sessions")
        if self._tools.purger is not None:
            spawn(self._tools.purger.work(), "purge")
            spawn(self._every(settings.sweep_store_seconds, self.sweep_store), "sweep store")
            spawn(self._every(settings.sweep_store_seconds, self.sweep_uploads), "sweep uploads")

    # --- expiry -----------------------------------------------------------------------------------

    def finished(self, session: dict[str, Any]) -> None:
        """Delete this session, as it stands after its answer, when its time has come."""
        self._enter(session)

    def expires(self, session: Session) -> None:
        """Delete this unfinished session at the time it names itself."""
        if session.expires_at is not None:
            self._put(Expiry(session.expires_at, session.namespace, session.name, session.uid))

    def _enter(self, raw: dict[str, Any]) -> None:
        """Put a session into the timetable as it stands, if it is known when it is to be deleted."""
        session = orders.session(raw)
        at = self._expiry_of(session)
        if at is not None:
            version, objects = raw["metadata"]["resourceVersion"], lifetimes.may_have_objects(session)
            self._put(Expiry(at, session.namespace, session.name, session.uid, version, objects))

    def _put(self, entry: Expiry) -> None:
        next_at = self._timetable.next_at()
        self._timetable.put(entry)
        if next_at is None or entry.at < next_at:
            self._wake.set()

    async def _delete_expired(self) -> None:
        while True:
            due = self._timetable.take_due(time.time())
            for start in range(0, len(due), _DELETES_AT_ONCE):
                batch = due[start : start + _DELETES_AT_ONCE]
                await asyncio.gather(*(self._delete(entry) for entry in batch))
            next_at = self._timetable.next_at()
            wait = _LONGEST_SLEEP if next_at is None else min(_LONGEST_SLEEP, next_at - time.time())
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.01, wait))
            except TimeoutError:
                continue
            self._wake.clear()

    async def _delete(self, entry: Expiry) -> None:
        try:
            if entry.version is None:
                await self._expire_as_it_stands(entry)
                return
            await self._tools.cluster.delete_session(entry.namespace, entry.name, entry.uid, entry.version)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                self._deleted(entry)
            elif error.status == HTTPStatus.CONFLICT:
                # It has changed: its expiry may have been moved.
                self._put(Expiry(time.time(), entry.namespace, entry.name, entry.uid))
            else:
                where = about(namespace=entry.namespace, session=entry.name, cause=str(error))
                logger.error("a session cannot be deleted", extra=where)
        except ApiUnreachableError:
            self._put(replace(entry, at=time.time() + _RETRY_SECONDS))
        else:
            self._deleted(entry)

    def _deleted(self, entry: Expiry) -> None:
        if entry.objects and self._tools.purger is not None:
            self._tools.purger.session_deleted(entry.namespace, entry.name)

    async def _expire_as_it_stands(self, entry: Expiry) -> None:
        """Read the session and put it into the timetable again; it may be due at once."""
        raw = await self._tools.cluster.session(entry.namespace, entry.name)
        if raw["metadata"]["uid"] == entry.uid:
            self._enter(raw)

    def _expiry_of(self, session: Session) -> float | None:
        """When a session is to be deleted, as far as that is known; None for an unfinished one without a
        time."""
        keeper = self._registry.known(session.namespace, session.pool)
        settings = self._tools.settings
        kept = Lifetimes(settings.ttl_seconds, settings.files_ttl_seconds)
        if keeper is not None:
            kept = lifetimes.of_pool(keeper.spec)
        return lifetimes.expires_at(session, kept, time.time())

    # --- sessions ---------------------------------------------------------------------------------

    async def sweep_sessions(self) -> None:
        """Find sessions whose events were missed, and finished ones that another process left."""
        for namespace in self._tools.settings.namespaces:
            began = time.monotonic() - _SETTLED_SECONDS
            served = self._desk.running(namespace)
            present: set[str] = set()
            async for raw in self._tools.cluster.session_metadata(namespace):
                meta = raw["metadata"]
                present.add(meta["uid"])
                young = (seconds(meta.get("creationTimestamp")) or 0.0) > time.time() - _SETTLED_SECONDS
                if not young and not self._knows(meta["uid"]):
                    await self._look_at_session(namespace, meta["name"])
            for uid, since in served.items():
                if since < began and uid not in present:
                    metrics.SWEPT.labels("session-gone").inc()
                    self._desk.gone(uid)
            self._look_for_deleted(namespace, present)

    def _look_for_deleted(self, namespace: str, present: Set[str]) -> None:
        """Finished sessions that somebody else has deleted: their objects go now, not when their time had
        come. If a large part of all is gone, something else is wrong, and the look at the store decides."""
        kept = [entry for entry in self._timetable.of(namespace) if entry.objects]
        gone = [entry for entry in kept if entry.uid not in present]
        if len(gone) > orphans.bound(len(kept), self._tools.settings.orphan_share):
            logger.warning("many sessions were deleted", extra=about(namespace=namespace, sessions=len(gone)))
            return
        for entry in gone:
            # Each is looked at once more: one that has come since the list was read is still there.
            self._put(replace(entry, at=time.time(), version=None))

    def _knows(self, uid: str) -> bool:
        return uid in self._timetable or self._desk.serves(uid)

    async def _look_at_session(self, namespace: str, name: str) -> None:
        raw = await _found(self._tools.cluster.session(namespace, name))
        if raw is None:
            return
        session = orders.session(raw)
        if session.terminal:
            self._enter(raw)
        elif not self._knows(session.uid):
            metrics.SWEPT.labels("session-missed").inc()
            self._desk.session_seen(None, raw)

    # --- pods -------------------------------------------------------------------------------------

    async def sweep_pods(self) -> None:
        """Find pods and pools whose events were missed, and pods whose session is over or gone."""
        for namespace in self._tools.settings.namespaces:
            await self._sweep_pools(namespace)
            known = {pod.uid: pod for pod in self._registry.pods(namespace)}
            present: set[str] = set()
            async for raw in self._tools.cluster.pod_metadata(namespace):
                meta = raw["metadata"]
                present.add(meta["uid"])
                if meta["uid"] not in known or version_of(meta) > known[meta["uid"]].version:
                    await self._look_at_pod(namespace, meta["name"])
            for uid, pod in known.items():
                if uid not in present:
                    metrics.SWEPT.labels("pod-gone").inc()
                    self._registry.missing(pod)
            await self._remove_orphans(namespace)

    async def remove_bound_pods(self) -> None:
        """Remove pods that look free, but were given to a session that is over or gone: an earlier operator
        ended between the answer and the removal. Their sidecars know."""
        free = [
            pod
            for namespace in self._tools.settings.namespaces
            for pod in self._registry.pods(namespace, Standing.FREE)
            if pod.usable
        ]
        room = asyncio.Semaphore(_ASKED_AT_ONCE)

        async def look_at(pod: Member) -> None:
            async with room:
                (state,) = await ask_states(self._tools.sidecars, [pod], pod.uid, 1, 0)
            owner = state.owner if state is not None else None
            if owner is not None and not self._registry.owner(pod) and not self._desk.needs_pod(owner.uid):
                metrics.SWEPT.labels("pod-bound").inc()
                self._registry.discard(pod, "orphan")

        await asyncio.gather(*(look_at(pod) for pod in free))

    async def _sweep_pools(self, namespace: str) -> None:
        """A pool whose deletion was missed would be kept full for ever, with pods that are collected at
        once."""
        known = {keeper.uid for keeper in self._registry.keepers(namespace)}
        present: set[str] = set()
        async for raw in self._tools.cluster.pools(namespace):
            present.add(raw["metadata"]["uid"])
            self._registry.pool_seen(None, raw)
        for uid in known - present:
            metrics.SWEPT.labels("pool-gone").inc()
            self._registry.pool_gone(uid)

    async def sweep_policies(self) -> None:
        """Network policies that somebody has removed or changed are made again, and what is left over of one
        goes."""
        for namespace in self._tools.settings.namespaces:
            found = {
                raw["metadata"]["labels"][names.LABEL_POOL_UID]: raw
                async for raw in self._tools.cluster.network_policies(namespace)
            }
            for keeper in self._registry.keepers(namespace):
                if keeper.policy.seen(found.get(keeper.uid)):
                    metrics.SWEPT.labels("policy").inc()
                    keeper.poke()

    async def _look_at_pod(self, namespace: str, name: str) -> None:
        raw = await _found(self._tools.cluster.pod(namespace, name))
        if raw is not None:
            self._registry.pod_seen(None, raw)

    async def _remove_orphans(self, namespace: str) -> None:
        settled = time.time() - _SETTLED_SECONDS
        for pod in self._registry.pods(namespace, Standing.SPENT):
            if not pod.deleting and pod.created < settled and pod.state == names.PodState.WARM:
                self._tools.remover.remove(pod, "unusable", retire=True)
        for pod in [
            *self._registry.pods(namespace, Standing.ASSIGNED),
            *self._registry.pods(namespace, Standing.SPENT),
        ]:
            owner = self._registry.owner(pod)
            in_hand = pod.deleting or self._tools.remover.busy(pod) or self._desk.needs_pod(owner)
            if pod.session_uid and not in_hand:
                await self._look_at_owner(pod)
            elif owner and not in_hand:
                metrics.SWEPT.labels("pod-orphaned").inc()
                self._registry.discard(pod, "orphan")

    async def _look_at_owner(self, pod: Member) -> None:
        """Remove a pod that serves nobody any more, unless that is under way and only the news is late."""
        found = await _found(self._tools.cluster.pod(pod.namespace, pod.name))
        if found is None or found["metadata"]["uid"] != pod.uid:
            self._registry.missing(pod)
            return
        if found["metadata"].get("deletionTimestamp"):
            self._registry.pod_seen(None, found)
            return
        raw = await _found(self._tools.cluster.session(pod.namespace, pod.session)) if pod.session else None
        if raw is None or raw["metadata"]["uid"] != pod.session_uid or orders.session(raw).terminal:
            logger.warning("a pod outlived its session", extra=about(pod=pod.name, session=pod.session))
            metrics.SWEPT.labels("pod-orphaned").inc()
            self._registry.discard(pod, "orphan")
        else:
            self._desk.session_seen(None, raw)

    # --- the store --------------------------------------------------------------------------------

    async def sweep_store(self) -> None:
        """Remove objects whose session is gone."""
        assert self._tools.purger is not None
        for namespace in self._tools.settings.namespaces:
            await self._tools.purger.sweep(namespace)

    async def sweep_uploads(self) -> None:
        """Remove the parts of uploads that nobody ends any more. A store may not tell of them."""
        assert self._tools.purger is not None
        for namespace in self._tools.settings.namespaces:
            await self._tools.purger.sweep_uploads(namespace)

    # --- inside -----------------------------------------------------------------------------------

    async def _every(self, pause: float, sweep: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await sweep()
            except (ApiError, ApiUnreachableError, StoreError) as error:
                logger.warning("a sweep was given up", extra=about(cause=str(error)))
            except NotLeadingError:
                raise
            except Exception:
                logger.exception("a sweep failed")


async def _found(request: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """The object, or None if there is none."""
    try:
        return await request
    except ApiError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return None
        raise

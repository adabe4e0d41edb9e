"""All pools and their pods, by name and by uid, and which of them an event is about."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from kubecoderun_operator.allocator import Allocator, Seat, Standing
from kubecoderun_operator.cluster import ApiError, Cluster
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member, member
from kubecoderun_operator.pool import PoolKeeper
from kubecoderun_operator.tools import Tools

logger = logging.getLogger(__name__)


class Registry:
    """Owns the keepers. Pods of pools that are gone are remembered apart: a session may still have one."""

    def __init__(self, tools: Tools, pod_news: Callable[[Member, bool, str], None]) -> None:
        """pod_news(pod, gone, session) is told of every event of a pod, with the uid of its session."""
        self._tools = tools
        self._pod_news = pod_news
        self._by_name: dict[tuple[str, str], PoolKeeper] = {}
        self._by_uid: dict[str, PoolKeeper] = {}
        self._strays = Allocator()
        self._started = False

    # --- events -----------------------------------------------------------------------------------

    def pool_seen(self, kind: str | None, raw: dict[str, Any]) -> None:
        """A pool was listed, added, changed or deleted."""
        meta = raw["metadata"]
        keeper = self._by_uid.get(meta["uid"])
        if kind == "DELETED":
            self.pool_gone(meta["uid"])
            return
        try:
            if keeper is not None:
                keeper.update(raw)
                return
            if meta.get("deletionTimestamp"):
                return
            keeper = PoolKeeper(raw, self._tools)
        except ValidationError as error:
            where = about(namespace=meta["namespace"], pool=meta["name"], errors=error.error_count())
            logger.error("a pool's spec cannot be read", extra=where)
            return
        self._adopt(keeper)

    def pool_gone(self, uid: str) -> None:
        """A pool was deleted."""
        keeper = self._by_uid.get(uid)
        if keeper is not None:
            self._close(keeper)

    def pod_seen(self, kind: str | None, raw: dict[str, Any]) -> None:
        """A pod was listed, added, changed or deleted."""
        seen = member(raw)
        if seen is None:
            return
        gone, owner = kind == "DELETED", self.owner(seen)
        if gone:
            self._forget(seen)
        elif (keeper := self._by_uid.get(seen.pool_uid)) is not None:
            keeper.observe(seen)
        else:
            self._strays.observe(seen)
        self._pod_news(seen, gone, owner)

    def start(self) -> None:
        """Let all keepers begin to work, also those that come later."""
        self._started = True
        for keeper in self._by_uid.values():
            keeper.start()
            keeper.poke()

    def stop(self) -> None:
        """Let all keepers stop."""
        for keeper in self._by_uid.values():
            keeper.stop()

    # --- lookups ----------------------------------------------------------------------------------

    async def find(self, namespace: str, name: str) -> PoolKeeper | None:
        """The pool of that name. One that no event has shown yet is asked for, because events of different
        kinds do not come in order."""
        keeper = self._by_name.get((namespace, name))
        if keeper is not None and not keeper.closed:
            return keeper
        try:
            raw = await self._tools.cluster.pool(namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        self.pool_seen(None, raw)
        keeper = self._by_name.get((namespace, name))
        return None if keeper is None or keeper.closed else keeper

    def known(self, namespace: str, name: str) -> PoolKeeper | None:
        """The pool of that name, if it has been seen."""
        return self._by_name.get((namespace, name))

    def keepers(self, namespace: str) -> list[PoolKeeper]:
        """All pools of a namespace."""
        return [keeper for keeper in self._by_uid.values() if keeper.namespace == namespace]

    def keeper_of(self, pod: Member) -> PoolKeeper | None:
        """The pool that made the pod, if it is still there."""
        return self._by_uid.get(pod.pool_uid)

    def carriers(self, session_uid: str, named_uid: str = "") -> list[Member]:
        """All pods that may have been given to the session: the one that its status names (by uid), and those
        whose label names the session."""
        labelled = {
            pod.uid: pod for allocator in self._allocators() for pod in allocator.carriers(session_uid)
        }
        named = self._seat(named_uid)
        if named is not None and named.standing is not Standing.SPENT:
            labelled[named_uid] = named.member
        return list(labelled.values())

    def owner(self, pod: Member) -> str:
        """The uid of the session that has the pod, by its label or because a status names it; empty if
        nobody has it."""
        seat = self._seat(pod.uid)
        return pod.session_uid or (seat.session if seat is not None else "")

    def take(self, pod_uid: str, session_uid: str) -> None:
        """The status of this unfinished session names the pod: nobody else gets it."""
        for allocator in self._allocators():
            allocator.take(pod_uid, session_uid)

    def hand_over(self, pod: Member, session_uid: str) -> None:
        """The pod's sidecar says that it is this session's, not the one's whose status names it."""
        for allocator in self._allocators():
            allocator.hand_over(pod.uid, session_uid)

    def pods(self, namespace: str, standing: Standing | None = None) -> list[Member]:
        """All known pods of a namespace, or those of one standing."""
        found = [
            pod
            for allocator in self._allocators()
            for pod in (allocator.members() if standing is None else allocator.standing(standing))
        ]
        return [pod for pod in found if pod.namespace == namespace]

    def missing(self, pod: Member) -> None:
        """A full list does not show this pod any more: its deletion was missed."""
        owner = self.owner(pod)
        self._forget(pod)
        self._pod_news(pod, True, owner)

    def discard(self, pod: Member, cause: str) -> None:
        """Remove a pod that serves nobody any more, whether its pool is there or not."""
        keeper = self.keeper_of(pod)
        if keeper is not None:
            keeper.discard(pod, cause)
            return
        self._strays.spend(pod.uid)
        self._tools.remover.remove(pod, cause)

    # --- inside -----------------------------------------------------------------------------------

    def _allocators(self) -> Iterator[Allocator]:
        for keeper in self._by_uid.values():
            yield keeper.allocator
        yield self._strays

    def _seat(self, uid: str) -> Seat | None:
        return next((seat for allocator in self._allocators() if (seat := allocator.seat(uid))), None)

    def _forget(self, pod: Member) -> None:
        keeper = self._by_uid.get(pod.pool_uid)
        if keeper is not None:
            keeper.forget(pod.uid)
        else:
            self._strays.forget(pod.uid, time.monotonic())

    def _adopt(self, keeper: PoolKeeper) -> None:
        before = self._by_name.get((keeper.namespace, keeper.name))
        if before is not None:
            self._close(before)
        self._by_name[keeper.namespace, keeper.name] = keeper
        self._by_uid[keeper.uid] = keeper
        if self._started:
            keeper.start()

    def _close(self, keeper: PoolKeeper) -> None:
        keeper.close()
        del self._by_uid[keeper.uid]
        if self._by_name.get((keeper.namespace, keeper.name)) is keeper:
            del self._by_name[keeper.namespace, keeper.name]
        for pod in keeper.allocator.members():
            seat = keeper.allocator.seat(pod.uid)
            self._strays.observe(pod)
            if seat is not None and seat.standing is Standing.ASSIGNED:
                self._strays.take(pod.uid, seat.session)


async def load_pools(cluster: Cluster, namespaces: tuple[str, ...], registry: Registry) -> None:
    """Show the registry all pools and all their pods."""
    for namespace in namespaces:
        async for raw in cluster.pools(namespace):
            registry.pool_seen(None, raw)
        async for raw in cluster.pods(namespace):
            registry.pod_seen(None, raw)

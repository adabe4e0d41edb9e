"""What is known of the ExecutionPools, and which one serves a language. No I/O: a watch feeds `PoolBook`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubecoderun_crds.names import PoolCondition
from kubecoderun_crds.pool import PoolSpec

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Pool:
    """The few facts about a pool that the front end decides by. Times are seconds."""

    name: str
    languages: frozenset[str]
    available: bool
    """Whether a warm pod was ready at the last status."""
    waits: bool
    """Whether sessions may wait for a pod (otherwise they end with PoolEmpty)."""
    wait_seconds: int
    waiting: int
    """Sessions that waited at the last status."""
    timeout_seconds: int
    """Time limit of a run that names none."""
    max_timeout_seconds: int
    ttl_seconds: int
    """How long a session is kept after its end."""
    workspaces: int = 0
    """How many workspaces it may have at once."""

    def time_limit(self, requested: int | None) -> int:
        """The time limit a run gets, in seconds: what it asks for or the default, never above the maximum."""
        return min(self.timeout_seconds if requested is None else requested, self.max_timeout_seconds)

    def longest_wait(self, requested: int | None) -> int:
        """Seconds after which a run of this pool must have ended, by the pool's own rules."""
        return (self.wait_seconds if self.waits else 0) + self.time_limit(requested)

    def longest_turn(self, requested: int | None) -> int:
        """The same for a run in a workspace: it may wait for its turn as long as for a pod."""
        return 2 * self.wait_seconds + self.time_limit(requested)


def read_pool(resource: Json) -> Pool:
    """Take the facts out of an ExecutionPool. Raises ValueError for one that its CRD would not allow."""
    spec = PoolSpec.model_validate(resource["spec"])
    status: Json = resource.get("status") or {}
    return Pool(
        name=resource["metadata"]["name"],
        languages=frozenset(spec.runtime.languages),
        available=any(
            condition.get("type") == PoolCondition.AVAILABLE and condition.get("status") == "True"
            for condition in status.get("conditions") or []
        ),
        waits=spec.on_empty.policy == "Wait",
        wait_seconds=spec.on_empty.wait_seconds,
        waiting=int(status.get("waitingSessions") or 0),
        timeout_seconds=spec.session_defaults.timeout_seconds,
        max_timeout_seconds=spec.limits.max_timeout_seconds,
        ttl_seconds=spec.session_defaults.ttl_seconds_after_finished,
        workspaces=spec.workspaces.max_,
    )


def choose(pools: Iterable[Pool], language: str) -> Pool | None:
    """The pool for a language: the first by name that has it; one with ready pods before one without."""
    return min(
        (pool for pool in pools if language in pool.languages),
        key=lambda pool: (not pool.available, pool.name),
        default=None,
    )


def choose_for_workspace(pools: Iterable[Pool], language: str) -> Pool | None:
    """The pool for the workspaces of a language, always the same one: of those that offer workspaces the one
    with most languages, so that several languages find the same files; the first by name of equal ones."""
    return min(
        (pool for pool in pools if language in pool.languages and pool.workspaces),
        key=lambda pool: (-len(pool.languages), pool.name),
        default=None,
    )


def excess_wait(pool: Pool, pod_refill_seconds: float) -> int | None:
    """Seconds by which the queue of a pool is longer than its sessions may wait; None if there is room.

    Sessions that the pool would only let expire are better refused at once, while a 429 can still be sent.
    """
    if not pool.waits or pod_refill_seconds <= 0:
        return None
    excess = pool.waiting * pod_refill_seconds - pool.wait_seconds
    return math.ceil(excess) if excess > 0 else None


class PoolBook:
    """All pools of the namespace, as far as the watch has told."""

    def __init__(self) -> None:
        self._pools: dict[str, Pool] = {}
        self._known = False

    @property
    def known(self) -> bool:
        """Whether a complete list has been seen since the start."""
        return self._known

    def replace(self, resources: Iterable[Json]) -> list[str]:
        """Take over a complete list; returns the names of pools that cannot be understood."""
        self._pools = {}
        refused = [name for resource in resources for name in self.apply("ADDED", resource)]
        self._known = True
        return refused

    def apply(self, kind: str, resource: Json) -> list[str]:
        """Take over one watch event: ADDED, MODIFIED or DELETED. Returns as `replace` does."""
        name = resource["metadata"]["name"]
        self._pools.pop(name, None)
        if kind == "DELETED" or resource["metadata"].get("deletionTimestamp"):
            return []
        try:
            self._pools[name] = read_pool(resource)
        except ValueError:
            return [name]
        return []

    def choose(self, language: str) -> Pool | None:
        """See `choose`."""
        return choose(self._pools.values(), language)

    def choose_for_workspace(self, language: str) -> Pool | None:
        """See `choose_for_workspace`."""
        return choose_for_workspace(self._pools.values(), language)

    def named(self, name: str) -> Pool | None:
        """The pool of that name."""
        return self._pools.get(name)

    def languages(self) -> list[str]:
        """All languages that some pool offers, sorted."""
        return sorted({language for pool in self._pools.values() for language in pool.languages})

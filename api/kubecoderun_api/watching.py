"""Keeps a watch of the API server going for ever: renews it, resumes it, starts anew if it is too old."""

import asyncio
import random
import time
from typing import Any, Final, Protocol

from kubecoderun_api import log
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.pools import PoolBook
from kubecoderun_crds import names

Json = dict[str, Any]
_SHORTEST_SECONDS: Final = 1.0
"""A watch that the server ends sooner counts as broken, so that the next attempt waits."""
_GONE: Final = 410


class Source(Protocol):
    """Who wants to know. None of these may block."""

    async def begin(self) -> str:
        """Read what there is; return the version from which to watch. May raise ClusterError."""

    def event(self, kind: str, resource: Json) -> None:
        """ADDED, MODIFIED or DELETED."""

    def reopened(self) -> None:
        """The watch is open again after a break; events may be missing if begin() ran in between."""


class Watch:
    """One watch of one kind, and the loop that keeps it."""

    def __init__(
        self,
        cluster: Cluster,
        plural: str,
        source: Source,
        metrics: Metrics,
        *,
        seconds: int,
        selector: str = "",
    ) -> None:
        self._cluster = cluster
        self._plural = plural
        self._source = source
        self._metrics = metrics
        self._seconds = seconds
        self._selector = selector
        self._version = ""
        self._broken = False
        self.established = False
        """Whether the watch is open, or is just being renewed as planned."""

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            opened = time.monotonic()
            try:
                await self._once()
                if time.monotonic() - opened >= min(_SHORTEST_SECONDS, self._seconds / 2):
                    failures = 0
                    continue
                cause = "short"
            except ClusterError as error:
                cause = f"{error.status} {error.reason}"
                if error.status == _GONE:
                    self._version = ""
            except Exception as error:
                log.event("watch_failed", level=log.ERROR, error=error, kind=self._plural)
                cause = "fault"
                self._version = ""
            if time.monotonic() - opened >= _SHORTEST_SECONDS:
                failures = 0
            failures += 1
            self.established = False
            self._broken = True
            self._metrics.watch_breaks.labels(self._plural, cause.split()[0]).inc()
            log.event("watch_broken", level=log.WARNING, kind=self._plural, cause=cause, failures=failures)
            await asyncio.sleep(backoff(failures))

    async def _once(self) -> None:
        if not self._version:
            self._version = await self._source.begin()
        async with self._cluster.watch(
            self._plural, version=self._version, seconds=self._seconds, selector=self._selector
        ) as events:
            self.established = True
            if self._broken:
                self._broken = False
                self._source.reopened()
            async for event in events:
                if event["type"] != "BOOKMARK":
                    self._source.event(event["type"], event["object"])
                self._version = event["object"]["metadata"]["resourceVersion"]


def backoff(failures: int) -> float:
    """Seconds to wait after that many failures in a row: 0.05, doubling to 5, with up to a quarter off."""
    delay: float = min(0.05 * 2 ** (min(failures, 10) - 1), 5.0)
    return delay * random.uniform(0.75, 1.0)


class PoolSource:
    """Feeds a PoolBook."""

    def __init__(self, cluster: Cluster, book: PoolBook) -> None:
        self._cluster = cluster
        self._book = book

    async def begin(self) -> str:
        """Replace the book by what the API server has."""
        items: list[Json] = []
        page = ""
        while True:
            answer = await self._cluster.list_page(names.POOL_PLURAL, page=page)
            items += answer["items"]
            page = answer["metadata"].get("continue") or ""
            if not page:
                _warn(self._book.replace(items))
                return str(answer["metadata"]["resourceVersion"])

    def event(self, kind: str, resource: Json) -> None:
        """Apply one change to the book."""
        _warn(self._book.apply(kind, resource))

    def reopened(self) -> None:
        """Nothing to do: begin() has replaced the book if events were missed."""


def _warn(refused: list[str]) -> None:
    for pool in refused:
        log.event("pool_not_understood", level=log.ERROR, pool=pool)

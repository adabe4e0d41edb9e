"""Sessions of this replica: create one, wait for its end, cancel it.

A session carries a label with the UID of this process, and one watch with that label tells all its changes.
Whoever waits is registered before the POST, so no event can be early. After a gap in the watch each session
that is still waited for is read once. Because a watch can also hang or lose something without a word, one
that takes long is read now and then.
"""

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kubecoderun_api import log
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.watching import Watch, backoff
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES

Json = dict[str, Any]
_PARALLEL_READS: Final = 16
_CANCEL_SECONDS: Final = 60.0
"""How long cancelling is tried, and how long a session that may not exist yet is looked out for."""


_NOTHING_LEFT: Final = frozenset({"SessionDeleted", "Refused", "Rejected"})
"""Ends after which there certainly is no session to cancel."""
_REJECTIONS: Final = frozenset({400, 413, 422})


class NoResult(Exception):  # noqa: N818 - says what there is, or is not
    """The session has no result that could be told; `name` is a key of `answers.OWN_FAULTS`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class _Waiter:
    """Somebody who waits for one session."""

    name: str
    end: asyncio.Future[Json | NoResult] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The status of the finished session, or why there will be none."""
    exists: bool = False
    """Whether the API server has said that the session is there."""

    def finish(self, status: Json) -> None:
        if not self.end.done():
            self.end.set_result(status)

    def fail(self, name: str) -> None:
        if not self.end.done():
            self.end.set_result(NoResult(name))


def manifest(
    name: str,
    *,
    namespace: str,
    front_end: str,
    lifetime: timedelta,
    request: Json,
    now: datetime | None = None,
) -> Json:
    """The ExecutionSession to create; `lifetime` is the longest it may be needed."""
    expires = (now or datetime.now(UTC)) + lifetime
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.SESSION_KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                names.LABEL_FRONT_END: front_end,
                names.LABEL_EXPIRES: names.expiry_bucket(expires),
            },
        },
        "spec": {"request": request},
    }


class Sessions:
    """All sessions this process has created and not yet answered. Also the `Source` of their watch."""

    def __init__(
        self,
        cluster: Cluster,
        metrics: Metrics,
        *,
        namespace: str,
        front_end: str,
        create_seconds: float,
        watch_seconds: int,
        recheck_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._namespace = namespace
        self._front_end = front_end
        self._create_seconds = create_seconds
        self._recheck_seconds = recheck_seconds
        self._waiters: dict[str, _Waiter] = {}
        self._disowned: dict[str, float] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._reads = asyncio.Semaphore(_PARALLEL_READS)
        self._leave_running = False
        self.stopping = False
        self.watch = Watch(
            cluster,
            names.SESSION_PLURAL,
            self,
            metrics,
            seconds=watch_seconds,
            selector=f"{names.LABEL_FRONT_END}={front_end}",
        )

    # --- one session ----------------------------------------------------------------------------

    async def execute(self, name: str, request: Json, *, lifetime: timedelta, wait_seconds: float) -> Json:
        """Create a session with that name and spec.request; return its status when it has ended.

        Raises NoResult if there will be none. Whenever this ends without a status (cancelled, too long, could
        not be created for certain), the session is cancelled in the background if it exists.
        """
        if self.stopping:
            raise NoResult("ShuttingDown")
        body = manifest(
            name, namespace=self._namespace, front_end=self._front_end, lifetime=lifetime, request=request
        )
        waiter = self._waiters[name] = _Waiter(name)
        settled = False
        try:
            async with asyncio.timeout(wait_seconds):
                await self._create(waiter, json.dumps(body).encode())
                end = await self._end_of(waiter)
            if isinstance(end, NoResult):
                raise end
            settled = True
            return end
        except TimeoutError:
            raise NoResult("NoAnswer") from None
        except NoResult as error:
            settled = error.name in _NOTHING_LEFT
            raise
        finally:
            del self._waiters[name]
            if not settled:
                self._disown(name, waiter.exists)

    async def _end_of(self, waiter: _Waiter) -> Json | NoResult:
        while True:
            done, _ = await asyncio.wait({waiter.end}, timeout=self._recheck_seconds)
            if done:
                return waiter.end.result()
            self._start_chore(self._read(waiter))

    async def _create(self, waiter: _Waiter, body: bytes) -> None:
        """POST until the session exists. What the watch says counts as well as the answer of the POST."""
        started = time.monotonic()
        post = asyncio.create_task(self._post(waiter, body, started + self._create_seconds))
        try:
            either: set[asyncio.Future[Any]] = {post, waiter.end}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not waiter.end.done():
                await post
        finally:
            post.cancel()
            if post.done() and not post.cancelled():
                post.exception()  # an answer that came another way makes a failed POST unimportant
        self._metrics.create_seconds.observe(time.monotonic() - started)

    async def _post(self, waiter: _Waiter, body: bytes, deadline: float) -> None:
        failures = 0
        while True:
            failure = await self._try_post(waiter.name, body)
            if failure is None or waiter.exists:  # the watch may have told of it while the POST failed
                waiter.exists = True
                return
            failures += 1
            delay = max(backoff(failures), failure.retry_after or 0.0)
            log.event(
                "create_failed",
                level=log.WARNING,
                session=waiter.name,
                status=failure.status,
                reason=failure.reason,
                attempt=failures,
            )
            if not failure.retriable:
                raise NoResult("Rejected" if failure.status in _REJECTIONS else "Refused")
            if time.monotonic() + delay >= deadline:
                raise NoResult("NotCreated")
            await asyncio.sleep(delay)

    async def _try_post(self, name: str, body: bytes) -> ClusterError | None:
        """One attempt; None if the session is there now.

        If the name is taken, an earlier attempt may have landed without an answer. Nobody else has the UID in
        the label, so the label tells.
        """
        try:
            await self._cluster.create_session(body)
        except ClusterError as error:
            if error.status != 409:
                return error
            try:
                labels = (await self._cluster.get_session(name))["metadata"].get("labels") or {}
            except ClusterError as unknown:
                # No session of that name: the conflict was about something else (a quota), and passes.
                return ClusterError(503, error.reason) if unknown.status == 404 else unknown
            return None if labels.get(names.LABEL_FRONT_END) == self._front_end else error
        return None

    # --- what the watch tells -------------------------------------------------------------------

    async def begin(self) -> str:
        """The version of a list that is empty whatever there is: what came before does not matter here."""
        nothing = f"{names.LABEL_FRONT_END}={self._front_end},!{names.LABEL_FRONT_END}"
        answer = await self._cluster.list_page(names.SESSION_PLURAL, selector=nothing)
        return str(answer["metadata"]["resourceVersion"])

    def event(self, kind: str, resource: Json) -> None:
        """Hand a change to whoever waits for it."""
        name = resource["metadata"]["name"]
        waiter = self._waiters.get(name)
        if waiter is not None:
            waiter.exists = True
            status = resource.get("status") or {}
            if status.get("phase") in TERMINAL_PHASES:
                waiter.finish(status)
            elif kind == "DELETED":
                waiter.fail("SessionDeleted")
        elif kind == "ADDED" and self._disowned.pop(name, 0.0) > time.monotonic():
            self._start_chore(self._cancel(name, True))

    def reopened(self) -> None:
        """Read every session that is still waited for."""
        for waiter in list(self._waiters.values()):
            if not waiter.end.done():
                self._start_chore(self._read(waiter))

    async def _read(self, waiter: _Waiter) -> None:
        failures = 0
        while self._waiters.get(waiter.name) is waiter and not waiter.end.done():
            existed = waiter.exists
            try:
                async with self._reads:
                    resource = await self._cluster.get_session(waiter.name)
                self._metrics.rechecks.inc()
                self.event("READ", resource)
                return
            except ClusterError as error:
                if error.status == 404:
                    if existed:
                        waiter.fail("SessionDeleted")
                    return
                failures += 1
            await asyncio.sleep(backoff(failures))

    # --- sessions nobody waits for any more -----------------------------------------------------

    def _disown(self, name: str, exists: bool) -> None:
        """Cancel a session; if it may appear only later, then."""
        if self._leave_running:
            return
        now = time.monotonic()
        self._disowned = {known: until for known, until in self._disowned.items() if until > now}
        if not exists:
            self._disowned[name] = now + _CANCEL_SECONDS
        self._start_chore(self._cancel(name, exists))

    async def _cancel(self, name: str, exists: bool) -> None:
        deadline = time.monotonic() + _CANCEL_SECONDS
        failures = 0
        while True:
            try:
                await self._cluster.cancel_session(name)
            except ClusterError as error:
                if error.retriable and time.monotonic() < deadline:
                    failures += 1
                    await asyncio.sleep(backoff(failures))
                    continue
                if error.status != 404 or exists:
                    log.event(
                        "cancel_failed",
                        level=log.WARNING,
                        session=name,
                        status=error.status,
                        reason=error.reason,
                    )
            else:
                self._disowned.pop(name, None)
                log.event("session_cancelled", session=name)
            return

    def _start_chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # --- the end of the process -----------------------------------------------------------------

    def stop(self, *, leave_running: bool = False) -> None:
        """Give up on everything that is waited for, and take nothing new.

        The sessions are cancelled, unless they are to go on without anybody waiting (`leave_running`).
        """
        self.stopping = True
        self._leave_running = leave_running
        for waiter in list(self._waiters.values()):
            waiter.fail("ShuttingDown")

    async def finish_chores(self, seconds: float) -> None:
        """Let cancellations that are under way reach the API server."""
        if self._chores:
            await asyncio.wait(set(self._chores), timeout=seconds)
        for task in set(self._chores):
            task.cancel()

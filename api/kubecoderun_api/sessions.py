"""Sessions of this replica: create one, wait for its end, take it back.

A session carries a label with the UID of this process, and one watch with that label tells all its changes.
Whoever waits is registered before the POST, so no event can be early. After a gap in the watch each session
that is still waited for is read once, and one that takes long now and then: a watch can hang without a word.
"""

import asyncio
import functools
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from kubecoderun_api import log
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.chores import Chores
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.manifests import manifest, timestamp
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.waiters import NoResult, Pause, Waiter
from kubecoderun_api.watching import Watch, backoff
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES

Json = dict[str, Any]
_PARALLEL_READS: Final = 16
_TAKE_BACK_SECONDS: Final = 60.0
"""How long taking a session back is tried, and how long one that may not exist yet is looked out for."""
_READ_SECONDS: Final = 4.0
"""How long reading a session is tried; clients wait 5 s for what they are told about it."""
TakeBack = Literal["cancel", "delete"]
"""How a session nobody waits for is ended: a run is cancelled, one that only holds files is deleted."""
_TAKE_BACK_EVENTS: Final[dict[TakeBack, tuple[str, str]]] = {
    "cancel": ("session_cancelled", "cancel_failed"),
    "delete": ("session_deleted", "delete_failed"),
}
NAME_TAKEN: Final = "NameTaken"
"""Name of the NoResult for a session with an idempotency key that somebody else has made."""
_NOTHING_LEFT: Final = frozenset({"SessionDeleted", "Refused", "Rejected", "Taken", NAME_TAKEN})
"""Ends after which there certainly is no session to cancel, or it is somebody else's."""
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REJECTIONS: Final = frozenset({400, 413, 422})


class Sessions:
    """All sessions this process has created and not yet answered. Also the `Source` of their watch."""

    def __init__(
        self,
        cluster: Cluster,
        metrics: Metrics,
        chores: Chores,
        *,
        namespace: str,
        front_end: str,
        create_seconds: float,
        watch_seconds: int,
        recheck_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._front_end = front_end
        self._manifest = functools.partial(manifest, namespace=namespace, front_end=front_end)
        self._create_seconds = create_seconds
        self._recheck_seconds = recheck_seconds
        self._waiters: dict[str, Waiter] = {}
        self._disowned: dict[str, tuple[float, TakeBack]] = {}
        """Sessions that may appear although nobody wants them: how long that is possible, and what to do."""
        self._forgotten: dict[str, str] = {}
        """UIDs of sessions that were deleted to make others of the same name."""
        self._chores = chores
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

    async def execute(
        self,
        name: str,
        request: Json,
        principal: Principal,
        *,
        lifetime: timedelta,
        wait_seconds: float,
        pause: Pause | None = None,
        metadata: Json | None = None,
        keyed: bool = False,
    ) -> Json:
        """Create a session with that name and spec.request; return its status when it has ended, or what
        `pause` makes of it. `metadata` is for further labels and annotations.

        Raises NoResult if there will be none. Whenever this ends without a status (cancelled, too long, could
        not be created for certain), the session is cancelled in the background if it exists. One that is
        `keyed` has an idempotency key: it is left alone, because somebody may ask again.
        """
        if self.stopping:
            raise NoResult("ShuttingDown")
        expires = datetime.now(UTC) + lifetime
        body = self._manifest(
            name, spec={"request": request}, principal=principal, expires=expires, metadata=metadata
        )
        former = self._forgotten.pop(name, "")
        waiter = Waiter(name, pause=pause, keyed=keyed, former=former)
        return await self._wait(waiter, self._create(waiter, body), wait_seconds)

    async def resume(
        self, name: str, change: Json, pause: Pause, *, wait_seconds: float, keyed: bool = False
    ) -> Json:
        """Change a session, which another replica may have made, and from now on wait for it here; return as
        `execute` does, and end as it does.

        Raises NoResult, "Taken" if somebody else waits for it, here or in another replica.
        """
        if self.stopping:
            raise NoResult("ShuttingDown")
        if name in self._waiters:
            raise NoResult("Taken")
        waiter = Waiter(name, pause=pause, exists=True, ours=False, keyed=keyed)
        labels = {**(change.get("metadata") or {}).get("labels", {}), names.LABEL_FRONT_END: self._front_end}
        change = {**change, "metadata": {"labels": labels}}
        return await self._wait(waiter, self._change(waiter, change), wait_seconds)

    async def _wait(self, waiter: Waiter, begin: Coroutine[Any, Any, None], wait_seconds: float) -> Json:
        name = waiter.name
        self._waiters[name] = waiter
        settled = False
        try:
            async with asyncio.timeout(wait_seconds):
                await begin
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
            if not settled and not waiter.keyed and not self._leave_running:
                self._disown(name, waiter.exists, "cancel")

    async def hold(
        self,
        name: str,
        request: Json,
        principal: Principal,
        *,
        lifetime: timedelta,
        runs: bool = False,
        metadata: Json | None = None,
    ) -> None:
        """Create a session that need not be waited for: it only holds files, or (`runs`) runs by itself.

        Raises NoResult if that fails. Then, and if this is cancelled, it is deleted in the background.
        """
        if self.stopping:
            raise NoResult("ShuttingDown")
        expires = datetime.now(UTC) + lifetime
        spec = {"request": request} if runs else {"request": request, "expiresAt": timestamp(expires)}
        body = self._manifest(name, spec=spec, principal=principal, expires=expires, metadata=metadata)
        waiter = self._waiters[name] = Waiter(name)
        settled = False
        try:
            await self._create(waiter, body)
            if waiter.end.done() and isinstance(end := waiter.end.result(), NoResult):
                raise end
            settled = True
        except NoResult as error:
            settled = error.name in _NOTHING_LEFT
            raise
        finally:
            del self._waiters[name]
            if not settled:
                self._disown(name, waiter.exists, "delete")

    async def _change(self, waiter: Waiter, change: Json) -> None:
        """Patch until it is done; repeating it does no harm."""
        deadline = time.monotonic() + self._create_seconds
        failures = 0
        while True:
            try:
                resource = await self._cluster.change_session(waiter.name, change)
            except ClusterError as error:
                failures += 1
                delay = max(backoff(failures), error.retry_after or 0.0)
                log.event(
                    "change_failed",
                    level=log.WARNING,
                    session=waiter.name,
                    status=error.status,
                    reason=error.reason,
                    attempt=failures,
                )
                if error.status == _NOT_FOUND:
                    raise NoResult("SessionDeleted") from None
                if error.status in _REJECTIONS:
                    raise NoResult("Taken") from None  # another call has brought other results
                if not error.retriable or time.monotonic() + delay >= deadline:
                    raise NoResult("NotContinued") from None
                await asyncio.sleep(delay)
            else:
                waiter.ours, waiter.since = True, _version(resource)
                self.event("CHANGED", resource)
                return

    def waits_for(self, name: str) -> bool:
        """Whether a call in this process waits for the session."""
        return name in self._waiters

    async def forget(self, resource: Json) -> None:
        """Delete exactly this session; fine if it is gone. Raises NoResult."""
        metadata = resource["metadata"]
        try:
            await self._cluster.delete_session(metadata["name"], metadata["uid"])
        except ClusterError as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise NoResult("NotChanged") from None
        self._forgotten[metadata["name"]] = metadata["uid"]

    def take_back(self, name: str) -> None:
        """Cancel a session in the background, although somebody may wait for it."""
        self._disown(name, True, "cancel")

    async def read(self, name: str, principal: Principal) -> Json | None:
        """A session of this principal as it is now; None if there is none, or it is another tenant's.

        Raises NoResult if that cannot be found out.
        """
        resource = await self._read(name)
        if resource is None or not principal.owns(resource["spec"]["request"].get("tenant")):
            return None
        return resource

    async def _read(self, name: str) -> Json | None:
        if not names.is_front_end_session_name(name):
            return None  # no other session is served by HTTP
        deadline = time.monotonic() + _READ_SECONDS
        failures = 0
        while True:
            try:
                async with self._reads:
                    return await self._cluster.get_session(name)
            except ClusterError as error:
                if error.status == _NOT_FOUND:
                    return None
                failures += 1
                delay = backoff(failures)
                if not error.retriable or time.monotonic() + delay >= deadline:
                    log.event(
                        "read_failed",
                        level=log.WARNING,
                        session=name,
                        status=error.status,
                        reason=error.reason,
                    )
                    raise NoResult("Unreadable") from None
            await asyncio.sleep(delay)

    async def _end_of(self, waiter: Waiter) -> Json | NoResult:
        while True:
            done, _ = await asyncio.wait({waiter.end}, timeout=self._recheck_seconds)
            if done:
                return waiter.end.result()
            self._chores.start(self._recheck(waiter))

    async def _create(self, waiter: Waiter, body: bytes) -> None:
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

    async def _post(self, waiter: Waiter, body: bytes, deadline: float) -> None:
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
            if failure.status == _CONFLICT and waiter.keyed:
                raise NoResult(NAME_TAKEN)
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
        if waiter is not None and waiter.former and waiter.former == resource["metadata"].get("uid"):
            return
        if waiter is not None:
            waiter.exists = True
            status = resource.get("status") or {}
            if status.get("phase") in TERMINAL_PHASES:
                waiter.finish(status)
            elif kind == "DELETED" and waiter.pause is None:
                waiter.fail("SessionDeleted")
            elif kind == "DELETED":
                # Gone, or taken over by another replica.
                self._chores.start(self._recheck(waiter))
            elif waiter.pause is not None and waiter.ours and _version(resource) >= waiter.since:
                labels = resource["metadata"].get("labels") or {}
                if kind == "READ" and labels.get(names.LABEL_FRONT_END) != self._front_end:
                    waiter.fail("Taken")
                elif (found := waiter.pause(resource)) is not None:
                    waiter.finish(found)
        elif kind == "ADDED" and name in self._disowned:
            until, how = self._disowned.pop(name)
            if until > time.monotonic():
                self._chores.start(self._take_back(name, True, how))

    def reopened(self) -> None:
        """Read every session that is still waited for."""
        for waiter in list(self._waiters.values()):
            if not waiter.end.done():
                self._chores.start(self._recheck(waiter))

    async def _recheck(self, waiter: Waiter) -> None:
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
                if error.status == _NOT_FOUND:
                    if existed:
                        waiter.fail("SessionDeleted")
                    return
                failures += 1
            await asyncio.sleep(backoff(failures))

    # --- sessions nobody waits for any more -----------------------------------------------------

    def _disown(self, name: str, exists: bool, how: TakeBack) -> None:
        """Take a session back; if it may appear only later, then."""
        now = time.monotonic()
        self._disowned = {known: entry for known, entry in self._disowned.items() if entry[0] > now}
        if not exists:
            self._disowned[name] = (now + _TAKE_BACK_SECONDS, how)
        self._chores.start(self._take_back(name, exists, how))

    async def _take_back(self, name: str, exists: bool, how: TakeBack) -> None:
        call = self._cluster.cancel_session if how == "cancel" else self._cluster.delete_session
        done, failed = _TAKE_BACK_EVENTS[how]
        deadline = time.monotonic() + _TAKE_BACK_SECONDS
        failures = 0
        while True:
            try:
                await call(name)
            except ClusterError as error:
                if error.retriable and time.monotonic() < deadline:
                    failures += 1
                    await asyncio.sleep(backoff(failures))
                    continue
                if error.status != _NOT_FOUND or exists:
                    log.event(
                        failed, level=log.WARNING, session=name, status=error.status, reason=error.reason
                    )
            else:
                self._disowned.pop(name, None)
                log.event(done, session=name)
            return

    # --- the end of the process -----------------------------------------------------------------

    def stop(self, *, leave_running: bool = False) -> None:
        """Give up on everything that is waited for, and take nothing new.

        The sessions are cancelled, unless they are to go on without anybody waiting (`leave_running`).
        """
        self.stopping = True
        self._leave_running = leave_running
        for waiter in list(self._waiters.values()):
            waiter.fail("ShuttingDown")


def _version(resource: Json) -> int:
    """Versions of one resource grow."""
    return int(resource["metadata"]["resourceVersion"])

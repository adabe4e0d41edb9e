"""One workspace: gets a pod, lends it to one run after the other, and ends when nobody uses it any more.

Its pod carries its label for life, so after a crash the pod is found by it, and the pod's sidecar says which
run was there last.
"""

import asyncio
import logging
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Protocol

from pydantic import ValidationError

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import Phase, Reason
from kubecoderun_crds.session import SessionSpec
from kubecoderun_operator import metrics, orders, outcomes, pods, resumption
from kubecoderun_operator.binding import Binder, Binding, Bond, EndedError
from kubecoderun_operator.cluster import ApiError
from kubecoderun_operator.held import HeldPod
from kubecoderun_operator.members import Member, seconds
from kubecoderun_operator.occupancy import Occupancy, Terms, terms
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outcomes import Outcome, timestamp
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.run import Run
from kubecoderun_operator.tools import Tools
from kubecoderun_sidecar.protocol import StateAnswer

logger = logging.getLogger(__name__)

_ENDING_SECONDS: Final = 15.0
"""How long the end of a workspace waits for the run in progress, once that has been told to end; and how long
runs that were not started wait for the end of the workspace."""
_ANOTHER_TRY_SECONDS: Final = 300.0
"""The same for one whose answer could not be written: the sweeper brings it back."""
_SHOW_UP_SECONDS: Final = 30.0
"""How long a run that an earlier operator has started is waited for."""


class Guest(Protocol):
    """A run whose turn it may be."""

    session: Session

    def pod_changed(self, pod: Member, gone: bool) -> None:
        """Something about the workspace's pod."""

    def stop(self) -> None:
        """The workspace ends: end the program."""


class WorkspaceEndedError(Exception):
    """The workspace ended before the turn of a run; `outcome` is what that run ends with."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class TooManyWaitError(Exception):
    """The queue of the workspace is full."""


class Workspace(Run):
    """Serves one session of mode Workspace. What is the same as for a run, its way to a pod and to its last
    status, it has from there."""

    def __init__(
        self, session: Session, tools: Tools, registry: Registry, *, fresh: bool, rivals: int = 0
    ) -> None:
        """rivals: how many other workspaces of the pool there are."""
        super().__init__(session, tools, registry, fresh=fresh)
        self._rivals = rivals
        self._occupancy = Occupancy(Terms(1, 1), time.time())
        self._waiters: dict[str, asyncio.Future[Member]] = {}
        self._current: Guest | None = None
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._end: Outcome | None = None
        self._runs = int((session.status.get("workspace") or {}).get("runs") or 0)
        self._written = 0.0
        self._noted = (self._runs, 0.0)
        self.pool_spec: PoolSpec | None = None
        """The pool as it was last seen: runs go on when it is deleted."""

    # --- events -----------------------------------------------------------------------------------

    def update(self, session: Session) -> None:
        super().update(session)
        if session.cancel:
            self._finish(Outcome(Reason.CANCELLED))

    def pod_changed(self, pod: Member, gone: bool) -> None:
        super().pod_changed(pod, gone)
        if self._current is not None:
            self._current.pod_changed(pod, gone)
        self._news.set()

    # --- what runs ask for ------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        return self.session.uid

    def turn(self, run: Guest) -> asyncio.Future[Member]:
        """The pod, when it is this run's turn; fails with WorkspaceEndedError. Raises TooManyWaitError."""
        uid = run.session.uid
        if self._end is not None:
            raise WorkspaceEndedError(self._outcome_for_runs())
        if not self._occupancy.enter(uid, run.session.created, run.session.version):
            raise TooManyWaitError
        waiter: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self._waiters[uid] = waiter
        waiter.add_done_callback(lambda done: self._given_up(uid, run, done))
        self._give_turn()
        return waiter

    async def settled(self) -> None:
        """Wait until its status says that it has ended, if that takes no longer than it should."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_SECONDS):
                await self._settled.wait()

    def settle(self) -> None:
        """It is not served any more."""
        self._settled.set()

    def next_number(self) -> int:
        """A run is about to start: its place among all that have."""
        self._runs += 1
        return self._runs

    def is_current(self, run: Guest) -> bool:
        """Whether it is this run's turn."""
        return self._current is run

    def comes_again(self, run: Guest) -> None:
        """The answer of a run could not be written: it is to come back before any other, or its result would
        be lost."""
        self._occupancy.leave(run.session.uid, time.time())
        self._wait_for(run.session.uid, _ANOTHER_TRY_SECONDS)
        self._current = None
        self._news.set()

    def left(self, run: Guest) -> None:
        """The run is over, or will not start; its program has ended."""
        if self._current is run:
            self._current = None
        self._occupancy.leave(run.session.uid, time.time())
        self._give_turn()
        self._news.set()

    def broken(self, outcome: Outcome) -> None:
        """A run has found that the pod cannot be used any more."""
        self._finish(outcome)

    # --- the whole way ----------------------------------------------------------------------------

    async def _serve(self) -> Outcome:
        self._record.timings.setdefault("queued", timestamp(time.time()))
        limits = await self._admitted()
        self._plan_use(limits)
        self.held = None if self._fresh else await self._find_again(limits)
        if self.held is None:
            self.held = await self._get_pod(limits)
        self._open(self.held.pod)
        outcome = await self._watch_over(self.held)
        self._finish(outcome)
        await self._last_run()
        return outcome

    async def _admitted(self) -> Terms:
        """Its terms. Raises EndedError if it cannot be served."""
        seen = self.session
        if seen.cancel:
            self._hold_for_the_end()
            raise EndedError(Outcome(Reason.CANCELLED))
        self._keeper = await self._registry.find(seen.namespace, seen.pool)
        if self._keeper is None:
            self._hold_for_the_end()
            raise EndedError(Outcome(Reason.POOL_NOT_FOUND, f"there is no pool {seen.pool}"))
        self.pool_spec = spec = self._keeper.spec
        try:
            asked = SessionSpec.model_validate(seen.spec).request.workspace
        except ValidationError:
            raise EndedError(Outcome(Reason.INVALID_REQUEST, "spec.request.workspace is not valid")) from None
        if self._fresh and self._rivals >= spec.workspaces.max_:
            most = spec.workspaces.max_
            full = f"the pool {seen.pool} has {self._rivals} workspaces; its workspaces.max is {most}"
            raise EndedError(Outcome(Reason.POOL_EMPTY, full))
        return terms(asked, spec.workspaces)

    def _hold_for_the_end(self) -> None:
        """It is not to be served: a pod that it has goes with it."""
        for pod in self._registry.carriers(self.uid, self.session.named_pod):
            self.held = HeldPod(pod, self._tools.cluster)

    async def _get_pod(self, limits: Terms) -> HeldPod:
        """A pod, reserved and named in the status. Nothing runs in it before both."""
        keeper, settings = self._keeper, self._tools.settings
        assert keeper is not None
        for attempt in range(settings.pods_tried):
            pod = await self._obtain(keeper, attempt > 0)
            self._clock.mark("waiting")
            self.held = HeldPod(pod, self._tools.cluster)
            self._record.attempts += 1
            binding = await self._reserve(pod, limits)
            if binding.bond is Bond.BOUND and not self.held.pod.deleting and not self.held.gone:
                self._record.timings.update(binding.timings)
                return self.held
            self._give_up(keeper, pod, binding)
        raise EndedError(Outcome(Reason.OPERATOR_ERROR, f"{settings.pods_tried} pods could not be used"))

    async def _reserve(self, pod: Member, limits: Terms) -> Binding:
        self._record.name_pod(pod)
        binder = Binder(self._tools)
        work = binder.reserve(pod, self.uid, self._note_pod, self._ownership(pod, limits))
        return await self._unless_cancelled(work)

    async def _note_pod(self) -> None:
        """Have the status name the pod. After this, another operator asks that pod."""
        await self._answer.assign(self._record.active())
        if self._keeper is not None:
            self._keeper.assigned(self.uid)

    def _ownership(self, pod: Member, limits: Terms) -> pods.JsonPatch:
        """Labels and deadline of the pod, once for its life."""
        assert self.pool_spec is not None
        limit = self.pool_spec.limits.max_timeout_seconds
        longest = self._tools.settings.longest_run_seconds(limit, tools=True)
        until = limits.life + longest
        return pods.assignment(pod, self.session.name, self.uid, until, time.time())

    async def _find_again(self, limits: Terms) -> HeldPod | None:
        """The pod that an earlier operator got. None: there was none yet. Raises EndedError if it is lost."""
        carriers = await resumption.carriers(self.session, self._registry, self._tools.sidecars)
        found: HeldPod | None = None
        silent: list[Member] = []
        for pod, state in ((carrier.member, carrier.state) for carrier in carriers):
            if state is None:
                silent.append(pod)
            elif state.owner is not None and state.owner.uid != self.uid:
                continue
            elif found is None and await self._is_ours(pod, state, limits):
                found = HeldPod(pod, self._tools.cluster)
                self._runs = max(self._runs, state.started)
                await self._expect(state)
            else:
                self._registry.discard(pod, "orphan")
        metrics.RECOVERED.labels("Workspace" if found is not None else "WorkspaceAnew").inc()
        self._record.attempts = max(self._record.attempts, len(carriers))
        if found is None and silent:
            self.held = HeldPod(silent[0], self._tools.cluster)
            raise EndedError(await self.held.lost())
        if found is None and self.session.named_pod:
            raise EndedError(outcomes.lost(None))
        return found

    async def _is_ours(self, pod: Member, state: StateAnswer, limits: Terms) -> bool:
        """Whether the pod can be used: what an earlier operator has not come to do is done now."""
        if pod.deleting or pod.ended or (state.owner is not None and not state.reserved):
            return False
        if state.owner is None:
            return (await self._reserve(pod, limits)).bond is Bond.BOUND
        if pod.session_uid == self.uid:
            return True
        return await Binder(self._tools).label(pod, self.uid, self._ownership(pod, limits))

    async def _expect(self, state: StateAnswer) -> None:
        """The run that was in the pod last comes first, if it has no answer yet."""
        last = state.session
        if last is None:
            return
        try:
            raw = await self._tools.cluster.session(last.namespace, last.name)
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return
        found = orders.session(raw)
        if found.uid == last.uid and not found.terminal:
            self._wait_for(last.uid, _SHOW_UP_SECONDS)

    def _wait_for(self, run: str, seconds: float) -> None:
        """Let nobody else come first. A run that has not shown up by then has been deleted meanwhile."""
        self._occupancy.expect(run)
        asyncio.get_running_loop().call_later(seconds, self._wait_no_longer, run)

    def _wait_no_longer(self, run: str) -> None:
        self._occupancy.expect_no_longer(run)
        self._give_turn()
        self._news.set()

    def _plan_use(self, limits: Terms) -> None:
        """Its terms are known; of one that was active, also since when it is."""
        status = self.session.status.get("workspace") or {}
        now, ends_at, last = time.time(), seconds(status.get("endsAt")), seconds(status.get("lastUsed"))
        began = now if ends_at is None else ends_at - limits.life
        self._occupancy.plan(limits, began, now if last is None else last)
        self._note_use()

    def _open(self, pod: Member) -> None:
        """Let runs come."""
        self._record.name_pod(pod)
        self._occupancy.open()
        self._written = time.monotonic()
        self._clock.mark("binding")
        logger.info("a workspace is active", extra=self._about(pod=pod.name))
        self._give_turn()

    async def _watch_over(self, held: HeldPod) -> Outcome:
        """Stay until it has to end."""
        while True:
            self._news.clear()  # what comes from here on, also while the status is written, is looked at
            lost = outcomes.ended_pod(held.pod, held.gone)
            if lost is not None and self._current is None:
                self._finish(lost)
            if self._end is not None:
                return self._end
            now = time.time()
            over = self._occupancy.over(now)
            if over is not None:
                return Outcome(over)
            await self._write_use()
            moments = [self._occupancy.look_at(), self._next_write()]
            soonest = min((moment for moment in moments if moment is not None), default=None)
            try:
                async with asyncio.timeout(None if soonest is None else max(0.01, soonest - time.time())):
                    await self._news.wait()
            except TimeoutError:
                continue

    # --- turns ------------------------------------------------------------------------------------

    def _give_turn(self) -> None:
        if self.held is None or self._end is not None:
            return
        if outcomes.ended_pod(self.held.pod, self.held.gone) is not None:
            return  # `_watch_over` will see it too
        run = self._occupancy.next(time.time())
        if run is not None:
            waiter = self._waiters.get(run)
            if waiter is None or waiter.done():
                self._occupancy.leave(run, time.time())
                self._give_turn()
            else:
                waiter.set_result(self.held.pod)

    def _given_up(self, uid: str, run: Guest, done: asyncio.Future[Member]) -> None:
        if self._waiters.get(uid) is done:
            del self._waiters[uid]
        if done.cancelled() or done.exception() is not None:
            self._occupancy.leave(uid, time.time())
            self._give_turn()
            self._news.set()
        else:
            self._current = run

    def _finish(self, outcome: Outcome) -> None:
        """It is to end with this; the first reason counts."""
        if self._end is None:
            self._end = outcome
            self._dismiss()
            self._news.set()

    def _dismiss(self) -> None:
        """Those who wait do so in vain."""
        self._occupancy.close()
        for waiter in list(self._waiters.values()):
            if not waiter.done():
                waiter.set_exception(WorkspaceEndedError(self._outcome_for_runs()))

    def _outcome_for_runs(self) -> Outcome:
        """What a run that was not started ends with."""
        end = self._end
        had_pod = self._occupancy.opened or self.session.phase == Phase.ACTIVE
        if end is not None and not had_pod and end.reason is not Reason.CANCELLED:
            return Outcome(end.reason, end.message)  # why there is no pod for it
        why = f"the workspace {self.session.name} ended"
        return Outcome(Reason.WORKSPACE_ENDED, why if end is None else f"{why}: {end.reason}")

    async def _last_run(self) -> None:
        """End the run in progress, and wait until it has its answer."""
        if self._current is not None:
            self._current.stop()
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                while self._current is not None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            logger.warning("a run did not leave its workspace", extra=self._about())

    # --- status -----------------------------------------------------------------------------------

    def _note_use(self) -> None:
        occupancy = self._occupancy
        self._record.workspace = {
            "idleTimeoutSeconds": int(occupancy.terms.idle),
            "endsAt": timestamp(occupancy.ends_at),
            "runs": self._runs,
            "lastUsed": timestamp(occupancy.last_used),
        }

    def _next_write(self) -> float | None:
        """When a change of use is to be written; None if there is none. Not while a run goes on."""
        if self._noted == (self._runs, self._occupancy.last_used) or self._occupancy.current is not None:
            return None
        return time.time() + self._written + self._tools.settings.pool_status_seconds - time.monotonic()

    async def _write_use(self) -> None:
        due = self._next_write()
        if due is None or due > time.time():
            return
        self._noted = (self._runs, self._occupancy.last_used)
        self._note_use()
        self._written = time.monotonic()
        await self._answer.progress(self._record.active())

    # --- the end ----------------------------------------------------------------------------------

    async def _conclude(self, outcome: Outcome) -> dict[str, Any] | None:
        self._finish(outcome)
        if self._occupancy.opened:
            self._note_use()
        else:
            self._record.workspace = self.session.status.get("workspace")
        return await super()._conclude(outcome)

    def abandon(self) -> None:
        """It was deleted: its pod goes, and whoever is in it or waits for it."""
        self._finish(Outcome(Reason.CANCELLED, "the workspace was deleted"))
        if self._current is not None:
            self._current.stop()
        super().abandon()

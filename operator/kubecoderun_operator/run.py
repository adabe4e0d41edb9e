"""One session, from the moment the operator sees it to its answer."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from kubecoderun_crds.pool import PoolLimits
from kubecoderun_crds.reasons import Mode, Phase, Reason, StartType
from kubecoderun_operator import grants, metrics, orders, outcomes, outputs, resumption
from kubecoderun_operator.answer import Answer, PodTakenError, SessionGoneError
from kubecoderun_operator.binding import Binder, Binding, Bond, EndedError, longest_fetch_seconds
from kubecoderun_operator.cluster import NotLeadingError
from kubecoderun_operator.held import HeldPod
from kubecoderun_operator.intake import accept
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Order, Session
from kubecoderun_operator.outcomes import Outcome, Record, timestamp
from kubecoderun_operator.pool import PoolKeeper
from kubecoderun_operator.recovery import Step
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.sidecars import SidecarRefusedError
from kubecoderun_operator.stopwatch import Stopwatch
from kubecoderun_operator.toolcalls import ToolCalls
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.vigil import NodeSilentError, SidecarUnreachableError
from kubecoderun_operator.waiting import CancelRequestedError, PoolGoneError, WaitExpiredError
from kubecoderun_sidecar.protocol import RunResult, StartRequest

logger = logging.getLogger(__name__)

_PAUSES: Final = (0.0, 0.1, 0.4, 1.0)
"""Before each further connection to the sidecar of a run; the last one repeats."""


class Run:
    """Carries one session out. The desk calls the methods that tell of events, and awaits `execute` in a
    task."""

    def __init__(self, session: Session, tools: Tools, registry: Registry, *, fresh: bool) -> None:
        """fresh: nobody can have worked on the session before."""
        self._clock = Stopwatch()
        self.answered = False
        """The final status is being written: leaving the set of unfinished sessions is expected now."""
        self.under_way = asyncio.Event()
        """The program has been started, as far as is known: its output can be asked for."""
        self._fresh = fresh
        self._tools = tools
        self._registry = registry
        self.session: Session
        self._record: Record
        self._answer: Answer
        self._calls: ToolCalls
        self._named: bool
        """The status names the pod and says that the session runs."""
        self._see(session)
        self._keeper: PoolKeeper | None = None
        self._order: Order | None = None
        self.held: HeldPod | None = None
        self._waiter: asyncio.Future[Member] | None = None
        self._binding: asyncio.Task[Binding] | None = None
        self._deadline: float | None = None
        self.owner = session.uid
        """Who owns the pod: the session itself, or the workspace that it runs in."""
        self.run_uid: str | None = None
        """In a workspace: which of its runs this is."""
        self._alarm: asyncio.TimerHandle | None = None
        self._broken = 0

    @property
    def began(self) -> float:
        """When serving the session began (monotonic)."""
        return self._clock.began

    # --- events -----------------------------------------------------------------------------------

    def update(self, session: Session) -> None:
        """The session has changed; all that matters here is that it may be cancelled now."""
        asked_before = self.session.cancel
        self.session = session
        self._record.generation = max(self._record.generation, session.generation)
        self._calls.seen(session)
        if not session.cancel or asked_before:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(CancelRequestedError())
        elif self._binding is not None:
            self._binding.cancel()
        elif self.under_way.is_set() and self.held is not None:
            self._tools.background.spawn(self._cancel(self.held.pod), f"cancel {session.name}")

    def pod_changed(self, pod: Member, gone: bool) -> None:
        """Something about the session's pod."""
        if self.held is not None and pod.uid == self.held.pod.uid:
            self.held.changed(pod, gone)

    # --- the whole way ----------------------------------------------------------------------------

    async def execute(self) -> dict[str, Any] | None:
        """Serve the session to its answer; returns it as stored, or None if it was deleted. Cancel the task
        to give it up.

        Being cancelled frees what the session holds only if `abandon` was called; otherwise the next operator
        goes on with it.
        """
        try:
            outcome = await self._serve()
        except EndedError as ended:
            outcome = ended.outcome
        except NotLeadingError:
            raise
        except SessionGoneError:
            logger.info("a session was gone before it ran", extra=self._about())
            self.abandon()
            return None
        except Exception:
            logger.exception("a session could not be served", extra=self._about())
            outcome = Outcome(Reason.OPERATOR_ERROR)
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
        return await self._conclude(outcome)

    def abandon(self) -> None:
        """Free the pod or the place in the queue. For a session that was deleted."""
        if self._keeper is not None:
            self._keeper.withdraw(self.session.uid)
        if self.held is not None:
            self._registry.discard(self.held.pod, "finished")
        elif self._keeper is not None:
            self._keeper.release(self.session.uid)

    async def _serve(self) -> Outcome:
        if self.session.mode == Mode.FILES:
            return outcomes.held(len(self.session.request.get("files") or ()))
        self._record.timings.setdefault("queued", timestamp(time.time()))
        if not self._fresh:
            resumed = await self._resume()
            if resumed is not None:
                return resumed
        order, keeper = await self._accepted()
        first = False
        for _ in range(self._tools.settings.pods_tried):
            pod = await self._obtain(keeper, first)
            self._clock.mark("waiting")
            self.held = HeldPod(pod, self._tools.cluster)
            self._record.attempts += 1
            binding = await self._bind(pod, order)
            if binding.bond is Bond.BOUND and not self.held.pod.deleting and not self.held.gone:
                self._record.timings.update(binding.timings)
                return await self._start(self.held)
            self._give_up(keeper, pod, binding)
            if binding.bond is Bond.TAKEN and (resumed := await self._resume()) is not None:
                return resumed
            first = True
        return Outcome(Reason.OPERATOR_ERROR, f"{self._tools.settings.pods_tried} pods could not be used")

    async def _accepted(self) -> tuple[Order, PoolKeeper]:
        """The request, checked against its pool and the files that it names."""
        self._order, self._keeper = await accept(self.session, self._registry, self._tools)
        return self._order, self._keeper

    async def _bind(self, pod: Member, order: Order) -> Binding:
        """Give the pod to the session. Fetching its files may take long: spec.cancel ends it early."""
        self._record.name_pod(pod)
        self._expect_to_go_on()
        try:
            return await self._unless_cancelled(Binder(self._tools).bind(pod, order, self._note_pod))
        except PodTakenError as error:
            self._see(orders.session(error.found))
            return Binding(Bond.TAKEN, "taken")

    async def _unless_cancelled(self, work: Coroutine[Any, Any, Binding]) -> Binding:
        """spec.cancel ends the attempt to give a pod to the session."""
        self._binding = asyncio.create_task(work)
        try:
            return await self._binding
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.session.cancel or (task is not None and task.cancelling()):
                raise
            raise EndedError(Outcome(Reason.CANCELLED)) from None
        finally:
            self._binding = None

    async def _note_pod(self) -> None:
        """Have the session's status name its pod. After this, another operator asks that pod."""
        await self._answer.assign(self._record.running())
        self._named = True
        if (keeper := self._pool()) is not None:
            keeper.assigned(self.session.uid)

    def _see(self, session: Session) -> None:
        """Go by the session as it stands: at the start, and when another operator has written its status."""
        self.session = session
        self._record = Record.of(session, self._tools.epoch())
        self._answer = Answer(session, self._record, self._tools.cluster)
        self._calls = ToolCalls(session, self._record, self._answer, self._tools)
        self._named = session.phase == Phase.RUNNING

    async def _obtain(self, keeper: PoolKeeper, first: bool) -> Member:
        """A pod, at once or after a while in the queue."""
        loop = asyncio.get_running_loop()
        settings, empty = self._tools.settings, keeper.spec.on_empty
        if self._deadline is None:
            self._deadline = loop.time() + empty.wait_seconds
        claimed = keeper.claim(self.session.uid, self._deadline, first=first)
        if isinstance(claimed, Member):
            self._record.start_type = self._record.start_type or StartType.WARM
            return claimed
        if empty.policy == "Reject":
            keeper.withdraw(self.session.uid)
            raise EndedError(Outcome(Reason.POOL_EMPTY))
        self._record.start_type = StartType.WAITED
        self._waiter = claimed
        try:
            done, _ = await asyncio.wait({claimed}, timeout=settings.queued_after_seconds)
            if not done:
                await self._answer.progress(self._record.queued())
            return await claimed
        except WaitExpiredError:
            waited = f"no pod became free within {empty.wait_seconds} s"
            raise EndedError(Outcome(Reason.WAIT_EXPIRED, waited)) from None
        except PoolGoneError:
            raise EndedError(Outcome(Reason.POOL_NOT_FOUND, "the pool was deleted")) from None
        except CancelRequestedError:
            keeper.withdraw(self.session.uid)
            raise EndedError(Outcome(Reason.CANCELLED)) from None
        finally:
            self._waiter = None
            claimed.cancel()  # a run that breaks off here has left the queue

    def _give_up(self, keeper: PoolKeeper, pod: Member, binding: Binding) -> None:
        """The pod cannot be used for this session."""
        cause = binding.cause or "deleted"
        metrics.CONFLICTS.labels(pod.namespace, pod.pool, cause).inc()
        logger.warning("a pod could not be used", extra=self._about(pod=pod.name, cause=cause))
        self.held = None
        if binding.owner:
            # An earlier operator gave it to that session, which goes on there or has ended by now: then the
            # sweeper finds the pod.
            self._registry.hand_over(pod, binding.owner)
            keeper.poke()
        elif binding.bond is Bond.UNUSABLE and cause not in ("bound", "outdated"):
            keeper.unusable(pod, cause)
        else:
            keeper.discard(pod, "unusable")

    # --- after another operator process -------------------------------------------------------------

    async def _resume(self) -> Outcome | None:
        """Go on where an earlier operator process stopped. None if the session is to be run from the
        start."""
        carriers = await resumption.carriers(self.session, self._registry, self._tools.sidecars)
        decision = resumption.take_up(self.session, carriers, self._registry)
        logger.info("a session goes on", extra=self._about(step=decision.step, pods=len(carriers)))
        self._record.attempts = max(self._record.attempts, len(carriers))
        if decision.pod is not None:
            self.held = HeldPod(decision.pod, self._tools.cluster)
        if decision.step is Step.LOST:
            return await self._lost(self.held)
        if self.held is None:
            return None
        if decision.step is Step.ATTACH:
            return await self._start(self.held, attach=True)
        return await self._prepare_again(self.held)

    async def _prepare_again(self, held: HeldPod) -> Outcome | None:
        """The status names the pod, but it has no program yet. None if it cannot be used after all."""
        order, _ = await self._accepted()
        binding = await self._bind(held.pod, order)
        if binding.bond is not Bond.BOUND:
            self._registry.discard(held.pod, "unusable")
            self.held = None
            return None
        self._record.timings.update(binding.timings)
        return await self._start(held)

    # --- the run ----------------------------------------------------------------------------------

    async def _start(self, held: HeldPod, *, attach: bool = False) -> Outcome:
        """Start the program, or attach to its run, and stay until there is an outcome."""
        if self.session.cancel and not attach:
            return Outcome(Reason.CANCELLED)
        self._record.name_pod(held.pod)
        self.under_way.set()
        if self.session.cancel:
            self._tools.background.spawn(self._cancel(held.pod), f"cancel {self.session.name}")
        self._clock.mark("binding")
        self._expect_to_go_on()
        try:
            return await self._follow(held)
        finally:
            self._calls.close()
            self._clock.mark("running")

    async def _follow(self, held: HeldPod) -> Outcome:
        settings = self._tools.settings
        while True:
            try:
                async with held.while_it_lives():
                    await asyncio.sleep(_PAUSES[min(self._broken, len(_PAUSES) - 1)])
                    # Signed anew each time: grants expire, and a connection may break late in a run.
                    found = await self._tools.sidecars.start(
                        held.pod,
                        self.owner,
                        self._start_request(),
                        self._program_started,
                        partial(self._calls.told, held.pod, self.owner, self.run_uid),
                    )
                return await held.explain(self._outcome(found), settings.ending_grace_seconds)
            except TimeoutError:
                return await self._lost(held)
            except SidecarRefusedError as error:
                logger.error("a start was refused", extra=self._about(pod=held.pod.name, cause=str(error)))
                return Outcome(Reason.OPERATOR_ERROR, f"the sidecar refused to start: {error.error}")
            except SidecarUnreachableError as error:
                self._broken += 1
                logger.info("a run's stream broke", extra=self._about(pod=held.pod.name, cause=str(error)))
                gone = isinstance(error, NodeSilentError)
                if gone or self._broken >= settings.sidecar_attempts:
                    return await self._lost(held, gone)
            finally:
                held.left_alone()

    async def _lost(self, held: HeldPod | None, node_silent: bool = False) -> Outcome:
        """The pod is gone or silent. What the run has left in the store counts more than how it was lost."""
        if held is not None:
            self._record.name_pod(held.pod)
        found = await self._tools.results.of(self.session, self._record.timings.get("started"))
        if found is None:
            return await held.lost(node_silent) if held is not None else outcomes.lost(None)
        logger.info("the result of a lost pod was in the store", extra=self._about())
        if held is not None:
            return await held.explain(self._outcome(found), 0)
        return self._outcome(found)

    def _start_request(self) -> StartRequest:
        settings, keeper = self._tools.settings, self._pool()
        limits = keeper.spec.limits if keeper is not None else PoolLimits()
        return grants.collection(
            self._tools.storage,
            self.session,
            self._order.limits if self._order is not None else limits,
            settings.longest_run_seconds(self._limit_seconds(), tools=self.session.has_tools),
            settings.stored_after_seconds,
            self.run_uid,
        )

    def _outcome(self, found: RunResult) -> Outcome:
        """What the sidecar says about the end of the run."""
        seen, limit = self.session, self._limit_seconds()
        files = outputs.report(found, seen.name, seen.inputs())
        return outcomes.ended(found, limit, files)

    def _limit_seconds(self) -> int:
        if self._order is not None:
            return self._order.timeout_seconds
        asked, keeper = self.session.request.get("timeoutSeconds"), self._pool()
        if keeper is not None:
            return orders.time_limit(asked, keeper.spec)
        return int(asked or PoolLimits().max_timeout_seconds)

    def _pool(self) -> PoolKeeper | None:
        return self._keeper or self._registry.known(self.session.namespace, self.session.pool)

    def _program_started(self, at: str) -> None:
        self._record.timings["started"] = at
        self._broken = 0

    def _expect_to_go_on(self) -> None:
        """Most runs are over before this has anything to do."""
        if self._alarm is None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(self._tools.settings.running_after_seconds, self._goes_on)

    def _goes_on(self) -> None:
        """The run takes a while: write down in its pod whose it is, and let the node end it should no
        operator be there to do it. Short runs are spared that: each change of a pod has the node and the
        control plane at work while the program runs."""
        if self.answered or self.held is None:
            return
        if not self._named and self.under_way.is_set() and not self._record.tool_calls:
            running = self._answer.progress(self._record.running())
            self._tools.background.spawn(running, f"running {self.session.name}")
        self._tools.background.spawn(self._mark_pod(self.held), f"mark {self.held.pod.name}")

    async def _mark_pod(self, held: HeldPod) -> None:
        settings = self._tools.settings
        deadline = float(settings.longest_run_seconds(self._limit_seconds(), tools=self.session.has_tools))
        if self._order is not None and self._order.fetches:
            deadline += longest_fetch_seconds(settings.sidecar_fetch_seconds)
        await held.mark(self.session, deadline)

    async def _cancel(self, pod: Member) -> None:
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._tools.sidecars.cancel(pod, self.owner, self.run_uid)
                return
            except SidecarUnreachableError:
                continue
            except SidecarRefusedError as error:
                logger.info("a cancellation was refused", extra=self._about(cause=str(error)))
                return

    # --- endings ----------------------------------------------------------------------------------

    async def _conclude(self, outcome: Outcome) -> dict[str, Any] | None:
        if self.under_way.is_set():
            asked = self.session.request.get("timeoutSeconds")
            outcome = outcome.with_note(orders.cut_note(asked, self._limit_seconds()))
        self.answered = True
        try:
            stored = await self._answer.complete(outcome)
        except SessionGoneError:
            logger.info("a session was gone before its answer", extra=self._about(reason=outcome.reason))
            self.abandon()
            return None
        self._clock.mark("completing")
        self._free_pod()
        self._note(outcome)
        return stored

    def _free_pod(self) -> None:
        """The session does not need its pod any more."""
        if self.held is not None:
            self._registry.discard(self.held.pod, "finished")

    # --- notes ------------------------------------------------------------------------------------

    def _note(self, outcome: Outcome) -> None:
        """Metrics, and the one log line of a normal session."""
        start = str(self._record.start_type or "")
        took = self._clock.tell(self.session, str(outcome.reason), start)
        if (keeper := self._pool()) is not None:
            keeper.ended(self.session.name, outcome.reason, outcome.message)
        pod = self.held.pod.name if self.held is not None else ""
        fields = self._about(reason=str(outcome.reason), start=start, pod=pod, **took)
        logger.info("session ended", extra=fields)

    def _about(self, **fields: object) -> dict[str, Any]:
        seen = self.session
        return about(namespace=seen.namespace, session=seen.name, uid=seen.uid, pool=seen.pool, **fields)

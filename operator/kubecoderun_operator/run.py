"""One session, from the moment the operator sees it to its answer."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_crds.reasons import Phase, Reason, StartType
from kubecoderun_operator import metrics, orders, outcomes, recovery
from kubecoderun_operator.answer import Answer, SessionGoneError
from kubecoderun_operator.binding import Binder, Bond, EndedError
from kubecoderun_operator.cluster import NotLeadingError
from kubecoderun_operator.held import HeldPod
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Order, Refusal, Session
from kubecoderun_operator.outcomes import Outcome, Record, timestamp
from kubecoderun_operator.pool import PoolKeeper
from kubecoderun_operator.recovery import Carrier, Step
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.sidecars import SidecarRefusedError, SidecarUnreachableError, ask_states
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.waiting import PoolGoneError, WaitExpiredError
from kubecoderun_sidecar.protocol import ResultTarget, StartRequest

logger = logging.getLogger(__name__)

_PAUSES: Final = (0.0, 0.1, 0.4, 1.0)
"""Before each further connection to the sidecar of a run; the last one repeats."""
_UPLOAD_SECONDS: Final = 120
"""How much longer than the program the URL for its result is valid."""
_STATE_ATTEMPTS: Final = 3
_STATE_PAUSE: Final = 1.0


class CancelRequestedError(Exception):
    """spec.cancel was set while the session waited for a pod."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What is left to do after the answer: the session as stored, and how long to keep it."""

    stored: dict[str, Any]
    ttl_seconds: float


class Run:
    """Carries one session out. The desk calls the methods that tell of events, and awaits `execute` in a
    task."""

    def __init__(
        self,
        session: Session,
        tools: Tools,
        registry: Registry,
        *,
        fresh: bool,
        vanished: Member | None = None,
    ) -> None:
        """fresh: nobody can have worked on the session before. vanished: a pod that carried it, and is
        gone."""
        self.session = session
        self.began = time.monotonic()
        self.answered = False
        """The final status is being written: leaving the set of unfinished sessions is expected now."""
        self._fresh = fresh
        self._vanished = vanished
        self._tools = tools
        self._registry = registry
        self._record = _record(session, tools.epoch())
        self._answer = Answer(session, self._record, tools.cluster)
        self._keeper: PoolKeeper | None = None
        self._order: Order | None = None
        self._held: HeldPod | None = None
        self._waiter: asyncio.Future[Member] | None = None
        self._deadline: float | None = None
        self._started = False
        self._broken = 0
        self._marks: dict[str, float] = {}

    # --- events -----------------------------------------------------------------------------------

    def update(self, session: Session) -> None:
        """The session has changed; all that matters here is that it may be cancelled now."""
        asked_before = self.session.cancel
        self.session = session
        self._record.generation = max(self._record.generation, session.generation)
        if not session.cancel or asked_before:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(CancelRequestedError())
        elif self._started and self._held is not None:
            self._tools.background.spawn(self._cancel(self._held.pod), f"cancel {session.name}")

    def pod_changed(self, pod: Member, gone: bool) -> None:
        """Something about the session's pod."""
        if self._held is not None and pod.uid == self._held.pod.uid:
            self._held.changed(pod, gone)

    # --- the whole way ----------------------------------------------------------------------------

    async def execute(self) -> Ending | None:
        """Serve the session to its answer; None if it was deleted. Cancel the task to give it up.

        Being cancelled frees what the session holds only if `abandon` was called; otherwise the next operator
        goes on with it.
        """
        try:
            outcome = await self._serve()
        except EndedError as ended:
            outcome = ended.outcome
        except NotLeadingError:
            raise
        except Exception:
            logger.exception("a session could not be served", extra=self._about())
            outcome = Outcome(Reason.OPERATOR_ERROR)
        return await self._conclude(outcome)

    def abandon(self) -> None:
        """Free the pod or the place in the queue. For a session that was deleted."""
        if self._keeper is not None:
            self._keeper.withdraw(self.session.uid)
        if self._held is not None:
            self._registry.discard(self._held.pod, "finished")
        elif self._keeper is not None:
            self._keeper.release(self.session.uid)

    async def _serve(self) -> Outcome:
        self._record.timings.setdefault("queued", timestamp(time.time()))
        if not self._fresh:
            resumed = await self._resume()
            if resumed is not None:
                return resumed
        order, keeper = await self._accept()
        first = False
        for _ in range(self._tools.settings.pods_tried):
            pod = await self._obtain(keeper, first)
            self._mark("waiting")
            self._held = HeldPod(pod, self._tools.cluster)
            self._record.attempts += 1
            binding = await Binder(self._tools).bind(pod, order)
            if binding.bond is Bond.BOUND:
                self._record.timings.update(binding.timings)
                keeper.assigned(self.session.uid)
                return await self._start(self._held)
            self._give_up(keeper, pod, binding.bond, binding.cause)
            first = True
        return Outcome(Reason.OPERATOR_ERROR, f"{self._tools.settings.pods_tried} pods could not be used")

    async def _accept(self) -> tuple[Order, PoolKeeper]:
        """Check the request against its pool."""
        if self.session.cancel:
            raise EndedError(Outcome(Reason.CANCELLED))
        keeper = await self._registry.find(self.session.namespace, self.session.pool)
        if keeper is None:
            raise EndedError(Outcome(Reason.POOL_NOT_FOUND, f"there is no pool {self.session.pool}"))
        self._keeper = keeper
        order = orders.order(self.session, keeper.spec)
        if isinstance(order, Refusal):
            raise EndedError(Outcome(order.reason, order.message))
        self._order = order
        return order, keeper

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

    def _give_up(self, keeper: PoolKeeper, pod: Member, bond: Bond, cause: str) -> None:
        """The pod cannot be used for this session."""
        metrics.CONFLICTS.labels(pod.namespace, pod.pool, cause).inc()
        logger.warning("a pod could not be used", extra=self._about(pod=pod.name, cause=cause))
        self._held = None
        if bond is Bond.UNUSABLE and cause == "bound":
            # An earlier operator prepared it for somebody; that says nothing about other pods.
            keeper.discard(pod, "unusable")
        elif bond is Bond.UNUSABLE:
            keeper.unusable(pod, cause)
        else:
            keeper.allocator.spend(pod.uid)
            keeper.poke()

    # --- after another operator process -------------------------------------------------------------

    async def _resume(self) -> Outcome | None:
        """Go on where an earlier operator process stopped. None if the session is to be run from the
        start."""
        seen = self.session
        carriers = self._registry.carriers(seen.uid)
        states = await ask_states(self._tools.sidecars, carriers, seen.uid, _STATE_ATTEMPTS, _STATE_PAUSE)
        named = (seen.status.get("pod") or {}).get("uid", "")
        found = [Carrier(pod, state) for pod, state in zip(carriers, states, strict=True)]
        decision = recovery.decide(seen.uid, seen.phase, named, found, self._vanished)
        metrics.RECOVERED.labels(decision.step).inc()
        logger.info("a session goes on", extra=self._about(step=decision.step, pods=len(carriers)))
        for pod in decision.discard:
            self._registry.discard(pod, "orphan")
        self._record.attempts = max(self._record.attempts, len(carriers))
        if decision.pod is not None:
            self._held = HeldPod(decision.pod, self._tools.cluster)
        if decision.step is Step.LOST:
            return await self._lost(self._held)
        if self._held is None:
            return None
        if decision.step is Step.ATTACH:
            return await self._start(self._held, attach=True)
        return await self._prepare_again(self._held)

    async def _prepare_again(self, held: HeldPod) -> Outcome | None:
        """The pod carries the session's label but has no program yet. None if it cannot be used after all."""
        order, _ = await self._accept()
        binding = await Binder(self._tools).prepare(held.pod, order)
        if binding.bond is not Bond.BOUND:
            self._registry.discard(held.pod, "unusable")
            self._held = None
            return None
        self._record.timings.update(binding.timings)
        return await self._start(held)

    # --- the run ----------------------------------------------------------------------------------

    async def _start(self, held: HeldPod, *, attach: bool = False) -> Outcome:
        """Start the program, or attach to its run, and stay until there is an outcome."""
        if self.session.cancel and not attach:
            return Outcome(Reason.CANCELLED)
        self._record.name_pod(held.pod)
        self._started = True
        if self.session.cancel:
            self._tools.background.spawn(self._cancel(held.pod), f"cancel {self.session.name}")
        self._mark("binding")
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(self._tools.settings.running_after_seconds, self._say_running)
        try:
            return await self._follow(held)
        finally:
            alarm.cancel()
            self._mark("running")

    async def _follow(self, held: HeldPod) -> Outcome:
        settings, request = self._tools.settings, self._start_request()
        while True:
            try:
                async with held.while_it_lives():
                    await asyncio.sleep(_PAUSES[min(self._broken, len(_PAUSES) - 1)])
                    found = await self._tools.sidecars.start(
                        held.pod, self.session.uid, request, self._program_started
                    )
                return await held.explain(found, self._limit_seconds(), settings.ending_grace_seconds)
            except TimeoutError:
                return await self._lost(held)
            except SidecarRefusedError as error:
                logger.error("a start was refused", extra=self._about(pod=held.pod.name, cause=str(error)))
                return Outcome(Reason.OPERATOR_ERROR, f"the sidecar refused to start: {error.error}")
            except SidecarUnreachableError as error:
                self._broken += 1
                logger.info("a run's stream broke", extra=self._about(pod=held.pod.name, cause=str(error)))
                if self._broken >= settings.sidecar_attempts:
                    return await self._lost(held)
            finally:
                held.left_alone()

    async def _lost(self, held: HeldPod | None) -> Outcome:
        """The pod is gone or silent. What the run has left in the store counts more than how it was lost."""
        if held is not None:
            self._record.name_pod(held.pod)
        found = await self._tools.results.of(self.session, self._record.timings.get("started"))
        if found is None:
            return await held.lost() if held is not None else outcomes.lost(None)
        logger.info("the result of a lost pod was in the store", extra=self._about())
        if held is not None:
            return await held.explain(found, self._limit_seconds(), 0)
        return outcomes.ended(found, self._limit_seconds())

    def _start_request(self) -> StartRequest:
        storage = self._tools.storage
        if storage is None:
            return StartRequest()
        seen = self.session
        url = storage.result_url(seen.namespace, seen.name, self._limit_seconds() + _UPLOAD_SECONDS)
        settings = self._tools.settings
        return StartRequest(ResultTarget(url, after_seconds=settings.stored_after_seconds))

    def _limit_seconds(self) -> int:
        if self._order is not None:
            return self._order.timeout_seconds
        keeper = self._registry.known(self.session.namespace, self.session.pool)
        asked = (self.session.spec.get("request") or {}).get("timeoutSeconds")
        default = keeper.spec.session_defaults.timeout_seconds if keeper is not None else 0
        return int(asked or default)

    def _program_started(self, at: str) -> None:
        self._record.timings["started"] = at
        self._broken = 0

    def _say_running(self) -> None:
        if not self.answered and self.session.phase != Phase.RUNNING:
            self._tools.background.spawn(
                self._answer.progress(self._record.running()), f"running {self.session.name}"
            )

    async def _cancel(self, pod: Member) -> None:
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                await self._tools.sidecars.cancel(pod, self.session.uid)
                return
            except SidecarUnreachableError:
                continue
            except SidecarRefusedError as error:
                logger.info("a cancellation was refused", extra=self._about(cause=str(error)))
                return

    # --- endings ----------------------------------------------------------------------------------

    async def _conclude(self, outcome: Outcome) -> Ending | None:
        self.answered = True
        try:
            stored = await self._answer.complete(outcome)
        except SessionGoneError:
            logger.info("a session was gone before its answer", extra=self._about(reason=outcome.reason))
            self.abandon()
            return None
        self._mark("completing")
        if self._held is not None:
            self._registry.discard(self._held.pod, "finished")
        self._note(outcome)
        keeper = self._keeper or self._registry.known(self.session.namespace, self.session.pool)
        ttl: float = self._tools.settings.ttl_seconds
        if keeper is not None:
            ttl = keeper.spec.session_defaults.ttl_seconds_after_finished
        return Ending(stored, ttl)

    # --- notes ------------------------------------------------------------------------------------

    def _mark(self, phase: str) -> None:
        self._marks[phase] = time.monotonic()

    def _note(self, outcome: Outcome) -> None:
        """Metrics, and the one log line of a normal session."""
        pool, start = self.session.pool, str(self._record.start_type or "")
        metrics.SESSIONS.labels(self.session.namespace, pool, str(outcome.reason), start).inc()
        took, before = {}, self.began
        for phase, at in self._marks.items():
            took[phase], before = at - before, at
        took["total"] = before - self.began
        for phase, duration in took.items():
            metrics.PHASE_SECONDS.labels(pool, phase).observe(duration)
        milliseconds = {f"{phase}_ms": round(duration * 1000, 1) for phase, duration in took.items()}
        pod = self._held.pod.name if self._held is not None else ""
        fields = self._about(reason=str(outcome.reason), start=start, pod=pod, **milliseconds)
        logger.info("session ended", extra=fields)

    def _about(self, **fields: object) -> dict[str, Any]:
        seen = self.session
        return about(namespace=seen.namespace, session=seen.name, uid=seen.uid, pool=seen.pool, **fields)


def _record(session: Session, epoch: int) -> Record:
    """What is known of the session, from its status."""
    status = session.status
    start = status.get("startType")
    return Record(
        generation=session.generation,
        epoch=epoch,
        attempts=int(status.get("attempts") or 0),
        start_type=StartType(start) if start in set(StartType) else None,
        pod=status.get("pod"),
        timings=dict(status.get("timings") or {}),
    )


def is_fresh(session: Session, carriers: list[Member]) -> bool:
    """Whether nobody can have started the session: no pod carries it, and its status names no run."""
    return not carriers and session.phase in ("", Phase.PENDING, Phase.QUEUED)

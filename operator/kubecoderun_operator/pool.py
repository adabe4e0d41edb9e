"""Keeps one pool: makes and removes its pods as `sizing` says, serves its queue, and reports its status.

One worker per pool does all creates and status writes. It sleeps until something happens; nothing polls.
"""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import EventReason, PoolReason, Reason
from kubecoderun_operator import metrics, pods, sizing
from kubecoderun_operator.allocator import Allocator, Standing
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, NotLeadingError
from kubecoderun_operator.conditions import Facts, Setback, Verdict
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member, member
from kubecoderun_operator.networks import PolicyKeeper
from kubecoderun_operator.notices import Subject
from kubecoderun_operator.report import StatusReport
from kubecoderun_operator.sizing import Brake, Expectations, Pace, Target
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.waiting import WaitingRoom

logger = logging.getLogger(__name__)

_FAULT_PAUSE: Final = 5.0
_REJECTIONS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)


class PoolKeeper:
    """One pool, from its first event to its deletion."""

    def __init__(self, raw: dict[str, Any], tools: Tools) -> None:
        meta = raw["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.uid: str = meta["uid"]
        self.allocator = Allocator()
        self.closed = False
        self._tools = tools
        self._room = WaitingRoom(self.allocator, self.poke)
        self._expected = Expectations(tools.settings.create_expectation_seconds)
        self.policy = PolicyKeeper(self.namespace, self.name, self.uid, tools.cluster)
        self._pace = Pace()
        self._brake = Brake(tools.settings.backoff_first_seconds, tools.settings.backoff_longest_seconds)
        self._verdict = Verdict()
        self._setback: Setback | None = None
        self._failed: set[str] = set()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[Any] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._report = StatusReport(self.namespace, self.name, self.uid, raw.get("status") or {}, tools)
        self.spec: PoolSpec
        self._generation = -1
        self.update(raw)

    # --- what events say --------------------------------------------------------------------------

    def update(self, raw: dict[str, Any]) -> None:
        """The pool was added or changed. Events about its status only, our own included, change nothing."""
        meta = raw["metadata"]
        generation = int(meta.get("generation", 1))
        if meta.get("deletionTimestamp"):
            self.close()
            return
        if generation <= self._generation:
            return
        self.spec = PoolSpec.model_validate(raw["spec"])
        self._generation = generation
        made = pods.template(self.namespace, self.name, self.uid, self.spec, self._tools.pod_defaults)
        if self.allocator.revision != made.revision:
            self._brake.reset()
            self._setback = None
            self._failed.clear()
            self._verdict = self._verdict_before(made.revision)
        self._template = made
        self.allocator.revision = made.revision
        self.poke()

    def observe(self, seen: Member) -> None:
        """A pod of the pool was added or changed."""
        self._expected.settle(seen.name)
        before = self.allocator.seat(seen.uid)
        was_usable = before is not None and before.member.usable
        if not self.allocator.observe(seen):
            return
        seat = self.allocator.seat(seen.uid)
        if seen.usable and not was_usable and seat is not None and seat.standing is Standing.FREE:
            self._tools.background.spawn(self._tools.sidecars.greet(seen), f"greet {seen.name}")
        self._room.serve()
        self.poke()

    def forget(self, uid: str) -> None:
        """A pod of the pool is gone."""
        self.allocator.forget(uid, time.monotonic())
        self._failed.discard(uid)
        self.poke()

    def close(self) -> None:
        """The pool is gone: make nothing, let nobody wait. Pods with a session stay with it."""
        if self.closed:
            return
        self.closed = True
        self._room.close()
        metrics.forget_pool(self.namespace, self.name)
        self._tools.notices.forget(self.uid)
        self.stop()

    def ended(self, session: str, reason: Reason, message: str) -> None:
        """A session has ended; if it lost its pod, or a part of it, people may want to know."""
        if str(reason) not in set(EventReason):
            return
        subject = Subject(self.namespace, self.name, self.uid)
        self._tools.notices.post(subject, EventReason(reason), f"session {session}: {message}")

    # --- sessions ---------------------------------------------------------------------------------

    def claim(self, session: str, deadline: float, *, first: bool = False) -> Member | asyncio.Future[Member]:
        """A ready pod, at once; or a future for one, which fails with WaitExpiredError or PoolGoneError.

        deadline: on the clock of the event loop.
        """
        found = self.allocator.claim(session, deadline, first=first)
        if found is not None:
            return found
        self.poke()
        return self._room.enter(session)

    def withdraw(self, session: str) -> None:
        """The session does not want to wait any longer."""
        self._room.leave(session)
        self.poke()

    def release(self, session: str) -> None:
        """The session gives its reserved pod back; the pod has not been asked anything yet."""
        self.allocator.release(session)
        self._room.serve()

    def assigned(self, session: str) -> None:
        """The session's pod carries its label now: make another one.

        At once if sessions wait; otherwise when the session has its answer (`discard`), but not much later
        than now: on a small node, starting a pod takes the processor away from the program that just starts.
        """
        pod = self.allocator.assigned(session)
        if pod is not None:
            self._consider(pod, serves=True)
        delay = self._tools.settings.replacement_delay_seconds
        if delay and not self.allocator.waiting:
            asyncio.get_running_loop().call_later(delay, self.poke)
        else:
            self.poke()

    def discard(self, pod: Member, cause: str) -> None:
        """The pod has served its session, or will serve none: remove it."""
        self.allocator.spend(pod.uid)
        self._tools.remover.remove(pod, cause)
        self.poke()

    def unusable(self, pod: Member, cause: str) -> None:
        """The pod looked ready, and its sidecar would not serve a session. Counts as a failed pod, so that a
        network in which no sidecar can be reached does not cost a pod after the other at full speed."""
        self._has_trouble(pod, f"its sidecar cannot be used: {cause}")
        self.allocator.prefer_others(pod.node)
        self.discard(pod, "unusable")

    # --- the worker -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to make and remove pods. Before that only sessions are served, from pods that are there."""
        if self._worker is None and not self.closed:
            self._worker = self._tools.background.spawn(self._work(), f"pool {self.namespace}/{self.name}")

    def stop(self) -> None:
        """Make and remove nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._worker is not None:
            self._worker.cancel()

    def poke(self) -> None:
        """Something has changed: look at the pool soon."""
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except NotLeadingError:
                raise
            except Exception:
                logger.exception("a pool could not be looked after", extra=self._about())
                await asyncio.sleep(_FAULT_PAUSE)
                self.poke()

    async def _look(self) -> None:
        if not self._verdict.accepted:
            await self._check_template()
        unsettled = await self._settle_policy()
        now = time.time()
        late = self._expected.expire(now)
        if late:
            metrics.EXPECTATIONS_EXPIRED.labels(self.namespace, self.name).inc(len(late))
        self._count_failures(now)
        target, counts = self._target(), self.allocator.counts()
        most = self._pace.left(target, now)
        plan = sizing.plan(target, counts, len(self._expected), self._brake, self._has_failed, now, most)
        for victim in plan.retire:
            if self.allocator.retire(victim.uid):
                cause = "unusable" if self._has_failed(victim) else "surplus"
                self._tools.remover.remove(victim, cause, retire=True)
        if plan.create and self._verdict.accepted and unsettled is None:
            self._pace.begin(plan.create)
            await self._create(plan.create)
        due = await self._report.write(self._facts(plan.paced))
        next_start = self._pace.next_at(target, now) if plan.paced else None
        moments = [plan.again_at, next_start, unsettled, None if due is None else time.time() + due]
        self._set_alarm(now, moments)

    async def _settle_policy(self) -> float | None:
        """Bring the pool's NetworkPolicy up to date, before any pod is made that needs it. Returns when to
        try again if that has failed."""
        cause = await self.policy.settle(self.spec)
        failed = self._setback is not None and self._setback.reason is PoolReason.NETWORK_POLICY_FAILED
        if cause:
            self._setback = Setback(PoolReason.NETWORK_POLICY_FAILED, cause)
            return time.time() + _FAULT_PAUSE
        if failed:
            self._setback = None
        return None

    def _target(self) -> Target:
        strategy = self.spec.update_strategy
        rolls = strategy.type == "Rolling" and self._verdict.accepted
        return Target(
            replicas=self.spec.replicas,
            max_pods=self.spec.max_pods,
            revision=self._template.revision,
            max_unavailable=strategy.max_unavailable if rolls else None,
            starts_per_minute=self.spec.starts_per_minute,
        )

    def _has_failed(self, pod: Member) -> bool:
        return pod.failed(time.time(), self._tools.settings.pod_ready_grace_seconds)

    def _count_failures(self, now: float) -> None:
        """Let the brake know of pods that failed, each once, and of pods that prove the template."""
        free = self.allocator.counts().free
        for pod in free:
            if pod.uid not in self._failed and self._has_failed(pod):
                self._failed.add(pod.uid)
                self._has_trouble(pod, pod.message or "it started but never became ready")
        for pod in free:
            self._consider(pod)

    def _has_trouble(self, pod: Member, cause: str) -> None:
        self._brake.failed(time.time())
        self._setback = Setback(PoolReason.PODS_FAILING, f"pod {pod.name}: {cause}")
        logger.warning("a warm pod failed", extra=self._about(pod=pod.name, cause=cause))

    def _consider(self, pod: Member, *, serves: bool = False) -> None:
        """A pod that works may show that failing pods are a thing of the past."""
        proven = self._brake.proof(pod, time.time(), serves=serves)
        if proven and self._setback is not None and self._setback.reason is PoolReason.PODS_FAILING:
            self._setback = None

    def _facts(self, paced: bool) -> Facts:
        return Facts(
            self.name,
            self._generation,
            self._target(),
            self.allocator.counts(),
            self._verdict,
            self._setback,
            paced,
        )

    def _set_alarm(self, looked: float, moments: list[float | None]) -> None:
        """Look again at the soonest of these, or when a pause or an expectation ends, or when a pod that
        starts runs out of time or has proven the template. What has come since `looked`, when this look
        began, was missed by it, and is due at once."""
        moments.append(self._expected.next_expiry())
        if not self._verdict.accepted:
            moments.append(self._brake.until)
        grace = self._tools.settings.pod_ready_grace_seconds
        for pod in self.allocator.counts().free:
            if not pod.usable:
                ripe = pod.waiting_since + grace + 0.1
            elif self._brake.failures and pod.ready_since is not None:
                ripe = pod.ready_since + sizing.PROVEN_SECONDS + 0.1
            else:
                continue
            if ripe > looked:
                moments.append(ripe)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        soonest = min((moment for moment in moments if moment is not None), default=None)
        if soonest is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(max(0.01, soonest - time.time()), self.poke)

    # --- making pods ------------------------------------------------------------------------------

    def _verdict_before(self, revision: str) -> Verdict:
        """What the pool's status says about this very template, so that a restart need not ask again."""
        status = self._report.status
        if status.get("revision") == revision:
            for entry in status.get("conditions") or ():
                if (
                    entry.get("type") == names.PoolCondition.TEMPLATE_ACCEPTED
                    and entry.get("status") == "True"
                ):
                    return Verdict(accepted=True)
        return Verdict()

    async def _check_template(self) -> None:
        """Ask the API server whether it would create such a pod, before any old pod is given up for it."""
        if self._brake.blocked(time.time()):
            return
        try:
            await self._tools.cluster.create_pod(self._new_pod(), dry_run=True)
        except ApiError as error:
            self._refused(error)
        except ApiUnreachableError as error:
            self._brake.failed(time.time())
            self._verdict = Verdict(None, str(error))
        else:
            self._verdict = Verdict(accepted=True)

    async def _create(self, count: int) -> None:
        results = await asyncio.gather(*(self._create_one() for _ in range(count)))
        if all(results):
            self._brake.created()
        # More may be wanted than this batch; the next look says.
        self.poke()

    async def _create_one(self) -> bool:
        manifest = self._new_pod()
        name = manifest["metadata"]["name"]
        self._expected.ask(name, time.time())
        try:
            made = await self._tools.cluster.create_pod(manifest, seen=lambda: name not in self._expected)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                # An earlier attempt whose answer was lost has made it; the watch will show it.
                return True
            self._expected.settle(name)
            self._refused(error)
            return False
        except ApiUnreachableError as error:
            # It may exist: the expectation stays until the pod is seen or the entry expires.
            self._brake.failed(time.time())
            self._count_create("failed")
            logger.warning("a pod may not have been created", extra=self._about(cause=str(error)))
            return False
        self._count_create("created")
        if self._setback is not None and self._setback.reason is PoolReason.QUOTA_EXCEEDED:
            self._setback = None
        found = member(made)
        if found is not None:
            self.observe(found)
        return True

    def _refused(self, error: ApiError) -> None:
        """The API server will not have the pod. Its own words go into the pool's status. The pause begins
        now, however long the API server has taken for its answer."""
        now = time.time()
        self._count_create("refused")
        logger.warning("a pod was refused", extra=self._about(cause=str(error)))
        if error.status == HTTPStatus.FORBIDDEN and "exceeded quota" in error.message:
            self._setback = Setback(PoolReason.QUOTA_EXCEEDED, error.message)
            self._brake.failed(now, at_least=self._tools.settings.quota_pause_seconds)
            if self._verdict.accepted is None:
                self._verdict = Verdict(accepted=True)
            return
        self._brake.failed(now)
        if error.status in _REJECTIONS:
            # Asked again after the pause: what refuses a pod (a policy, a class) can change without the pool.
            self._verdict = Verdict(accepted=False, message=error.message)

    def _new_pod(self) -> dict[str, Any]:
        taken = {pod.runtime_uid for pod in self.allocator.members()}
        uid = pods.pick_uid(self._tools.pod_defaults, taken)
        return pods.manifest(self._template, names.pod_name(self.name), uid)

    def _count_create(self, outcome: str) -> None:
        metrics.POD_CREATES.labels(self.namespace, self.name, outcome).inc()

    def _about(self, **fields: object) -> dict[str, Any]:
        return about(namespace=self.namespace, pool=self.name, **fields)

"""A run in a workspace: waits for its turn, and leaves the pod to the next one.

Its status says Running before its program starts. So after a crash: any other phase means that it never
started. With Running, the pod's sidecar says what has become of it, or the pod is lost.
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any, Final

from kubecoderun_crds.reasons import Phase, Reason
from kubecoderun_operator import intake, outcomes
from kubecoderun_operator.binding import Binder, Binding, Bond, EndedError
from kubecoderun_operator.held import HeldPod
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Order, Session
from kubecoderun_operator.outcomes import Outcome, timestamp
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.run import Run
from kubecoderun_operator.sidecars import SidecarRefusedError
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.vigil import SidecarUnreachableError
from kubecoderun_operator.waiting import CancelRequestedError
from kubecoderun_operator.workspace import TooManyWaitError, Workspace, WorkspaceEndedError
from kubecoderun_operator.workspaces import Workspaces

logger = logging.getLogger(__name__)

_POD_IS_LOST: Final = frozenset({Reason.POD_LOST, Reason.NODE_LOST, Reason.SIDECAR_LOST, Reason.RUNTIME_LOST})
_PAUSES: Final = (0.0, 0.3, 1.0, 2.0)
_CLEAR_SECONDS: Final = 10.0
_CLEAR_PAUSE: Final = 0.2


class WorkspaceRun(Run):
    """Carries out one session that names a workspace."""

    def __init__(
        self, session: Session, tools: Tools, registry: Registry, workspaces: Workspaces, *, fresh: bool
    ) -> None:
        super().__init__(session, tools, registry, fresh=fresh)
        self._workspaces = workspaces
        self._workspace: Workspace | None = None
        self._stopped = False

    def update(self, session: Session) -> None:
        super().update(self._with_pool(session))

    def stop(self) -> None:
        """The workspace ends, and this run with it."""
        self._stopped = True
        if self.held is not None and not self.answered:
            self._tools.background.spawn(self._cancel(self.held.pod), f"cancel {self.session.name}")

    # --- the whole way ----------------------------------------------------------------------------

    async def _serve(self) -> Outcome:
        self._record.timings.setdefault("queued", timestamp(time.time()))
        may_have_started = self.session.phase == Phase.RUNNING
        if self.session.cancel and not may_have_started:
            return Outcome(Reason.CANCELLED)
        try:
            workspace = self._workspace = await self._workspaces.find(self.session)
            self.owner, self.run_uid = workspace.uid, self.session.uid
            self.session = self._with_pool(self.session)
            pod = await self._turn(workspace)
        except EndedError:
            if may_have_started:
                return await self._lost(None)
            raise
        if may_have_started and self.session.named_pod != pod.uid:
            return await self._lost(None)
        self.held = HeldPod(pod, self._tools.cluster)
        outcome = await self._in_pod(workspace, self.held, again=may_have_started)
        if outcome.reason in _POD_IS_LOST:
            workspace.broken(Outcome(outcome.reason, outcome.message))
        return outcome

    def _with_pool(self, session: Session) -> Session:
        """The session as of the workspace's pool, which it need not name."""
        return session if self._workspace is None else replace(session, pool=self._workspace.session.pool)

    async def _turn(self, workspace: Workspace) -> Member:
        """Wait until the workspace is free. Raises EndedError if that does not come."""
        settings = self._tools.settings
        waited = 300.0 if workspace.pool_spec is None else float(workspace.pool_spec.on_empty.wait_seconds)
        turn: asyncio.Future[Member] | None = None
        try:
            turn = self._waiter = workspace.turn(self)
            done, _ = await asyncio.wait({turn}, timeout=settings.queued_after_seconds)
            if not done and self.session.phase != Phase.RUNNING:
                await self._answer.progress(self._record.queued(Reason.WAITING_FOR_TURN))
            async with asyncio.timeout(waited):
                pod = await turn
        except TooManyWaitError:
            raise EndedError(Outcome(Reason.WORKSPACE_BUSY, "too many runs wait for the workspace")) from None
        except TimeoutError:
            late = f"the workspace was not free within {waited:.0f} s"
            raise EndedError(Outcome(Reason.WORKSPACE_BUSY, late)) from None
        except WorkspaceEndedError as ended:
            # Who hears of it makes another workspace, and must not find this one again.
            await workspace.settled()
            raise EndedError(ended.outcome) from None
        except CancelRequestedError:
            raise EndedError(Outcome(Reason.CANCELLED)) from None
        finally:
            self._waiter = None
            if turn is not None:
                turn.cancel()  # or the turn of a run that is gone would come
        self._clock.mark("waiting")
        return pod

    async def _in_pod(self, workspace: Workspace, held: HeldPod, *, again: bool) -> Outcome:
        """again: an earlier operator may have started it here. Then its sidecar has it, and goes on with it
        whatever is asked; if it does not have it, it never started."""
        order = await self._checked(workspace)
        if not again:
            self._record.attempts += 1
        self._record.name_pod(held.pod)
        if self._record.workspace_run is None:
            self._record.workspace_run = {"uid": workspace.uid, "number": workspace.next_number()}
        # Both at once; the program is started when both are acknowledged.
        preparing = asyncio.create_task(self._prepare(held, order))
        try:
            await self._answer.assign(self._record.running())
            binding = await preparing
        finally:
            preparing.cancel()
        if binding.cause == "unreachable" and again:
            return await self._lost(held)  # it may have run there, and nobody can say
        if binding.bond is not Bond.BOUND:
            workspace.broken(await self._why_broken(held, binding.cause))
            gone = f"the pod of the workspace could not be used: {binding.cause}"
            return Outcome(Reason.WORKSPACE_ENDED, gone)
        self._record.timings.update(binding.timings)
        if self._stopped and not again:
            return Outcome(Reason.WORKSPACE_ENDED)
        return await self._start(held, attach=again)

    async def _prepare(self, held: HeldPod, order: Order) -> Binding:
        """Other runs would take another pod when a sidecar does not answer. This one holds what the user has
        left, so it is asked more than once."""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            binding = await self._unless_cancelled(Binder(self._tools).prepare(held.pod, order))
            if binding.cause != "unreachable" or outcomes.ended_pod(held.pod, held.gone) is not None:
                break
        return binding

    async def _checked(self, workspace: Workspace) -> Order:
        assert workspace.pool_spec is not None
        order = await intake.check(self.session, workspace.pool_spec, self._tools)
        self._order = order = replace(order, owner=workspace.uid)
        return order

    async def _why_broken(self, held: HeldPod, cause: str) -> Outcome:
        if cause == "runtime_lost":
            return Outcome(Reason.RUNTIME_LOST, "the runtime of the pod is gone")
        return await held.lost()

    def _goes_on(self) -> None:
        """The pod is labelled, and has a deadline, for the life of the workspace."""

    # --- endings ----------------------------------------------------------------------------------

    async def _conclude(self, outcome: Outcome) -> dict[str, Any] | None:
        try:
            return await super()._conclude(outcome)
        except Exception:
            if self._workspace is not None and self._workspace.is_current(self):
                self._workspace.comes_again(self)
            raise

    def _free_pod(self) -> None:
        """The pod stays with the workspace. Only now: the next run makes it forget this one's result."""
        if self._workspace is not None and self._workspace.is_current(self):
            self._workspace.left(self)

    def abandon(self) -> None:
        """The session was deleted: end its program, then let the next run come."""
        if self._workspace is not None and self._workspace.is_current(self):
            self._tools.background.spawn(self._clear(), f"clear {self.session.name}")

    async def _clear(self) -> None:
        held = self.held
        if held is not None and not await self._ended_in(held.pod) and self._workspace is not None:
            self._workspace.broken(Outcome(Reason.SIDECAR_LOST, "a run could not be ended"))
        self._free_pod()

    async def _ended_in(self, pod: Member) -> bool:
        """End the program, and see that it has ended."""
        sidecars = self._tools.sidecars
        try:
            async with asyncio.timeout(_CLEAR_SECONDS):
                while True:
                    try:
                        await sidecars.cancel(pod, self.owner, self.run_uid)
                        state = await sidecars.state(pod, self.owner)
                    except SidecarRefusedError:
                        return True  # another run is there, or none
                    except SidecarUnreachableError:
                        await asyncio.sleep(_CLEAR_PAUSE)
                        continue
                    if state.run != "running":
                        return True
                    await asyncio.sleep(_CLEAR_PAUSE)
        except TimeoutError:
            return False

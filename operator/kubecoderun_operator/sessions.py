"""The desk: which sessions are being served, and which run an event is about."""

import asyncio
import logging
import time
from collections import OrderedDict
from typing import Any, Final, Protocol

from kubecoderun_crds.reasons import Mode
from kubecoderun_operator import orders
from kubecoderun_operator.cluster import NotLeadingError
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Session
from kubecoderun_operator.recovery import is_fresh
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.run import Run
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.workspace import Workspace
from kubecoderun_operator.workspace_run import WorkspaceRun
from kubecoderun_operator.workspaces import Workspaces

logger = logging.getLogger(__name__)

_REMEMBERED_SECONDS: Final = 900.0
"""How long an ended session is remembered, so that a late event of it starts nothing."""


class Calendar(Protocol):
    """What knows when sessions are to be deleted."""

    def finished(self, session: dict[str, Any]) -> None:
        """The session has ended, and stands in the cluster like this."""

    def expires(self, session: Session) -> None:
        """The session names a time at which it is to be deleted."""


class Desk:
    """One run per unfinished session. Methods only enqueue; the work is done in tasks."""

    def __init__(self, tools: Tools, registry: Registry, calendar: Calendar) -> None:
        self._tools = tools
        self._registry = registry
        self._calendar = calendar
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._unanswered: set[str] = set()
        """Sessions whose answer could not be written; they are served again when the sweeper sees them."""
        self._closed = False
        self.workspaces = Workspaces(tools.cluster, lambda raw: self.session_seen(None, raw))

    def session_seen(self, kind: str | None, raw: dict[str, Any]) -> None:
        """A session was listed, added or changed, or has left the set of unfinished sessions."""
        uid = raw["metadata"]["uid"]
        if kind == "DELETED":
            self.gone(uid)
            return
        session = orders.session(raw)
        run = self._runs.get(uid)
        if session.expires_at is not None:
            self._calendar.expires(session)
        if not session.terminal:
            self.take_pod(session)
        if run is not None:
            run.update(session)
        elif not session.terminal and uid not in self._ended and not self._closed:
            self._begin(session)

    def take_pod(self, session: Session) -> None:
        """Nobody else gets the pod that the status of an unfinished session names. That of a run in a
        workspace is the workspace's."""
        if session.named_pod and not session.in_workspace:
            self._registry.take(session.named_pod, session.uid)

    def pod_seen(self, pod: Member, gone: bool, session_uid: str) -> None:
        """Something about a pod; it may belong to a session."""
        run = self._runs.get(session_uid)
        if run is not None:
            run.pod_changed(pod, gone)

    def gone(self, uid: str) -> None:
        """The session was deleted, or ended by somebody else: stop, unless it is our own answer that ended
        it."""
        self._unanswered.discard(uid)
        run = self._runs.get(uid)
        if run is None or run.answered:
            return
        task = self._tasks[uid]
        task.cancel()
        logger.info("a session was deleted while it was served", extra=about(session=run.session.name))

    def serves(self, uid: str) -> bool:
        """Whether the session is being served, or has been to its end."""
        return uid in self._runs or uid in self._ended

    def needs_pod(self, uid: str) -> bool:
        """Whether the session is being served, or will be again: its pod must stay."""
        return uid in self._runs or uid in self._unanswered

    def run_of(self, uid: str) -> Run | None:
        """The run of a session while it is being served."""
        return self._runs.get(uid)

    def running(self, namespace: str) -> dict[str, float]:
        """Sessions being served in a namespace, with the time (monotonic) at which that began."""
        return {uid: run.began for uid, run in self._runs.items() if run.session.namespace == namespace}

    async def close(self, seconds: float) -> None:
        """Take nothing new, let runs come to their end for so long, and leave the rest to the next
        operator."""
        self._closed = True
        tasks = list(self._tasks.values())
        if tasks and seconds > 0:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, session: Session) -> None:
        run = self._run_of(session)
        self._unanswered.discard(session.uid)
        self._runs[session.uid] = run
        self._tasks[session.uid] = self._tools.background.spawn(self._serve(run), f"session {session.name}")

    def _run_of(self, session: Session) -> Run:
        tools, registry = self._tools, self._registry
        fresh = is_fresh(session, registry.carriers(session.uid))
        if session.mode == Mode.WORKSPACE:
            rivals = self.workspaces.of_pool(session.namespace, session.pool)
            workspace = Workspace(session, tools, registry, fresh=fresh, rivals=rivals)
            self.workspaces.add(workspace)
            return workspace
        if session.in_workspace:
            return WorkspaceRun(session, tools, registry, self.workspaces, fresh=fresh)
        return Run(session, tools, registry, fresh=fresh)

    async def _serve(self, run: Run) -> None:
        uid = run.session.uid
        try:
            stored = await run.execute()
        except asyncio.CancelledError:
            # On close, pods stay as they are: the next operator attaches to them.
            if not self._closed:
                run.abandon()
                self._remember(uid)
            raise
        except NotLeadingError:
            raise
        except Exception:
            # The answer could not be written. The sweeper finds the session again.
            logger.exception("a session has no answer yet", extra=about(session=run.session.name))
            self._unanswered.add(uid)
            return
        else:
            self._remember(uid)
            if stored is not None:
                self._calendar.finished(stored)
        finally:
            self._leave(uid)

    def _leave(self, uid: str) -> None:
        run = self._runs.pop(uid, None)
        self._tasks.pop(uid, None)
        if isinstance(run, Workspace):
            self.workspaces.remove(run)

    def _remember(self, uid: str) -> None:
        now = time.monotonic()
        self._ended[uid] = now
        while self._ended and next(iter(self._ended.values())) < now - _REMEMBERED_SECONDS:
            self._ended.popitem(last=False)

"""Tool calls of one run: from the sidecar into the session's status, and results from its spec to the
sidecar.

What waits is known to the sidecar alone; it tells whoever attaches. So nothing is lost with an operator, and
no result reaches the program twice.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kubecoderun_crds.toolcalls import result_object
from kubecoderun_operator.answer import Answer
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outcomes import Record
from kubecoderun_operator.sidecars import SidecarRefusedError
from kubecoderun_operator.storage import Storage
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.vigil import SidecarUnreachableError
from kubecoderun_sidecar.protocol import ResultsRequest, ToolCall, ToolResult

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 32
"""Results in one request: as many short ones fit, however their text is escaped."""
_PAUSES: Final = (0.05, 0.2, 0.5, 1.0)
_STORE_ATTEMPTS: Final = 4
_GRANT_SECONDS: Final = 300.0
_LOST: Final = "the result is not in the object store any more"


def as_status(call: ToolCall) -> dict[str, Any]:
    """A call in the form of status.toolCalls."""
    if call.input is not None:
        return {"name": call.name, "input": call.input}
    return {"name": call.name, "inputRef": {"bytes": call.bytes, "sha256": call.sha256}}


def as_result(id: str, given: Mapping[str, Any], storage: Storage | None, session: Session) -> ToolResult:
    """What the sidecar is told of an entry of spec.toolResults."""
    if "error" in given:
        return ToolResult(id, error=given["error"])
    if "value" in given:
        return ToolResult(id, value=given["value"])
    if storage is None:
        return ToolResult(id, error="no object store is configured")
    url = storage.value_url(session.namespace, session.name, result_object(id), _GRANT_SECONDS)
    return ToolResult(id, url=url, bytes=given["valueRef"]["bytes"], sha256=given["valueRef"]["sha256"])


class ToolCalls:
    """The calls of one run. `told` and `seen` only take note; the work is done in the background."""

    def __init__(self, session: Session, record: Record, answer: Answer, tools: Tools) -> None:
        self._session = session
        self._record = record
        self._answer = answer
        self._tools = tools
        self._waiting: set[str] = set()
        """Calls that the sidecar has told of and that have not been given a result."""
        self._pod: Member | None = None
        self._owner = ""
        self._run: str | None = None
        self._giving: asyncio.Task[Any] | None = None
        self._more = False

    def told(self, pod: Member, owner: str, run: str | None, calls: Sequence[ToolCall]) -> None:
        """The sidecar tells of calls that wait: the status will say so. owner: who has the pod; run: which
        of its runs this is, if that is a workspace."""
        self._pod, self._owner, self._run = pod, owner, run
        self._waiting.update(call.id for call in calls)
        new = [call for call in calls if call.id not in self._record.tool_calls]
        for call in new:
            self._record.tool_calls[call.id] = as_status(call)
        self._record.answered = frozenset(self._given())
        self._give()
        if new:
            waiting = self._answer.progress(self._record.running())
            self._tools.background.spawn(waiting, f"tool calls of {self._session.name}")

    def seen(self, session: Session) -> None:
        """The session has changed."""
        self._session = session
        self._give()

    def close(self) -> None:
        """The run is over."""
        self._waiting.clear()
        if self._giving is not None:
            self._giving.cancel()

    def _given(self) -> Mapping[str, Mapping[str, Any]]:
        return self._session.spec.get("toolResults") or {}

    def _give(self) -> None:
        if self._pod is None or self._waiting.isdisjoint(self._given()):
            return
        self._more = True
        if self._giving is None or self._giving.done():
            name = f"results for {self._session.name}"
            self._giving = self._tools.background.spawn(self._give_all(self._pod), name)

    async def _give_all(self, pod: Member) -> None:
        failures = 0
        while self._more:
            self._more = False
            given = self._given()
            due = sorted(self._waiting.intersection(given))[:_AT_ONCE]
            if not due:
                return
            results = [as_result(id, given[id], self._tools.storage, self._session) for id in due]
            try:
                await self._bring(pod, *results)
            except (SidecarUnreachableError, SidecarRefusedError) as error:
                failures += 1
                if not await self._overcome(error, pod, results, failures):
                    return
            else:
                failures = 0
                self._waiting.difference_update(due)
            self._more = True

    async def _bring(self, pod: Member, *results: ToolResult) -> None:
        await self._tools.sidecars.results(pod, self._owner, ResultsRequest(results, self._run))

    async def _overcome(
        self, error: Exception, pod: Member, results: list[ToolResult], failures: int
    ) -> bool:
        """Whether to try again, after a while. A result that cannot be had becomes an error of its call."""
        seen = self._session
        where = about(namespace=seen.namespace, session=seen.name, pod=pod.name, cause=str(error))
        logger.info("a tool result was not taken", extra=where)
        if isinstance(error, SidecarRefusedError):
            place = error.refusal.input
            lost = error.error == "result_unavailable" or (
                error.error == "store_unavailable" and failures >= _STORE_ATTEMPTS
            )
            if lost and place is not None and place < len(results):
                id = results[place].id
                try:
                    await self._bring(pod, ToolResult(id, error=_LOST))
                    self._waiting.discard(id)
                except (SidecarUnreachableError, SidecarRefusedError):
                    logger.warning("a lost tool result was not told", extra=where)
            elif error.error not in ("store_unavailable", "busy"):
                return False  # the run has no use for it
        await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])
        return True

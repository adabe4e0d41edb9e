"""What goes into a session's status: the sidecar's result, or why there is none. Pure."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from kubecoderun_crds.fields import MESSAGE_MAX_LENGTH
from kubecoderun_crds.names import ConditionStatus, SessionCondition
from kubecoderun_crds.printable import is_printable, printable
from kubecoderun_crds.reasons import REASON_MEANINGS, Phase, Reason, StartType, phase_of
from kubecoderun_crds.result import INLINE_OUTPUT_BYTES
from kubecoderun_operator.members import OOM_KILLED, Member
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outputs import FileReport
from kubecoderun_sidecar.protocol import PREFIX, Captured, RunResult, memory_advice

_MARKER_BYTES: Final = 256
"""A preview may be longer than INLINE_OUTPUT_BYTES by the line that says what was left out."""
_SIGNAL: Final = re.compile(r"SIG[A-Z0-9+-]{1,13}")
_MOST_BYTES: Final = INLINE_OUTPUT_BYTES + _MARKER_BYTES
_TAIL_BYTES: Final = INLINE_OUTPUT_BYTES // 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one definite answer to a session."""

    reason: Reason
    message: str = ""
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    usage: Mapping[str, Any] | None = None
    timings: Mapping[str, str] = field(default_factory=dict)
    files: FileReport | None = None

    def with_note(self, note: str) -> "Outcome":
        """The same, with one more remark in its message."""
        if not note:
            return self
        return replace(self, message=f"{self.message or REASON_MEANINGS[self.reason]}; {note}")


def held(files: int) -> Outcome:
    """The outcome of a session that keeps files and has nothing to run."""
    return Outcome(Reason.FILES_HELD, "1 file" if files == 1 else f"{files} files", files=FileReport(files))


def timestamp(moment: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- from the sidecar's result --------------------------------------------------------------------


def ended(found: RunResult, limit_seconds: int, files: FileReport) -> Outcome:
    """The outcome of a run that the sidecar has seen to its end. files: what became of its files."""
    reason, signal = Reason(found.reason), _signal(found)
    notes = [_describe(found, reason, signal, limit_seconds)]
    if found.detail:
        notes.append(found.detail)
    if found.store_error:
        notes.append(f"the full output was not stored: {found.store_error}")
    notes.append(files.note())
    result = {
        "exitCode": found.exit_code,
        "signal": signal,
        **_stream("stdout", found.stdout),
        **_stream("stderr", found.stderr),
        "stored": found.stored,
    }
    usage = {
        "cpuSeconds": found.usage.cpu_seconds,
        "maxRssBytes": found.usage.max_rss_bytes,
        "wallSeconds": found.usage.wall_seconds,
    }
    timings = {"started": found.started_at, "finished": found.finished_at, "stored": found.stored_at}
    return Outcome(
        reason,
        "; ".join(note for note in notes if note),
        {key: value for key, value in result.items() if value is not None},
        {key: value for key, value in usage.items() if value is not None},
        {key: value for key, value in timings.items() if value is not None and _is_time(value)},
        files,
    )


def _signal(found: RunResult) -> str | None:
    """The runner's word, which is the user's: only a name of a signal may go on."""
    return found.signal if found.signal and _SIGNAL.fullmatch(found.signal) else None


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _describe(found: RunResult, reason: Reason, signal: str | None, limit_seconds: int) -> str:
    if reason is Reason.NON_ZERO_EXIT:
        return f"exit code {found.exit_code}"
    if reason is Reason.SIGNALLED:
        return f"ended by {signal or 'a signal'}"
    if reason is Reason.TIME_LIMIT:
        return f"killed after {limit_seconds} s"
    return REASON_MEANINGS[reason]


def _stream(name: str, captured: Captured) -> dict[str, Any]:
    made: dict[str, Any] = {f"{name}Bytes": captured.bytes, f"{name}Truncated": captured.truncated}
    if captured.base64 is None:
        text = captured.text or ""
        if len(text) > _MOST_BYTES:
            text = _beginning(text) if name == "stdout" else _preview(text)
            made[f"{name}Truncated"] = True
        if len(text) <= _MOST_BYTES and is_printable(text):
            return {name: text, **made}
        data = text.encode("utf-8", "surrogatepass")
    else:
        data = base64.b64decode(captured.base64)
    if len(data) > _MOST_BYTES:
        made[f"{name}Truncated"] = True
    return {f"{name}Base64": base64.b64encode(data[:_MOST_BYTES]).decode("ascii"), **made}


def _beginning(text: str) -> str:
    """As much of a text as a status takes: of standard output there is only what the program wrote."""
    return text.encode("utf-8", "surrogatepass")[:INLINE_OUTPUT_BYTES].decode("utf-8", "ignore")


def _preview(text: str) -> str:
    """Beginning and end of a text that is too long for a status. The sidecar sends such previews itself; a
    result from the store has all that was kept."""
    data = text.encode("utf-8", "surrogatepass")
    head = data[: INLINE_OUTPUT_BYTES - _TAIL_BYTES].decode("utf-8", "ignore")
    tail = data[-_TAIL_BYTES:].decode("utf-8", "ignore")
    omitted = len(data) - len(head.encode()) - len(tail.encode())
    return f"{head}\n[... {omitted} bytes omitted ...]\n{tail}"


def with_cause(outcome: Outcome, pod: Member | None) -> Outcome:
    """A run whose runtime container died, after a look at its pod (None: it is gone). Output and files are
    kept."""
    cause = lost(pod)
    if cause.reason not in (Reason.OOM_KILLED, Reason.POD_LOST, Reason.TIME_LIMIT, Reason.DISK_FULL):
        return outcome
    result = {**(outcome.result or {}), "signal": "SIGKILL"}
    result.pop("exitCode", None)
    if cause.reason is Reason.OOM_KILLED:
        _advise(result)
    found = replace(outcome, reason=cause.reason, message=cause.message, result=result)
    return found.with_note(outcome.files.note() if outcome.files is not None else "")


def _advise(result: dict[str, Any]) -> None:
    """The sidecar could not know that memory was the cause, so what to do about it is told here."""
    text = result.get("stderr", "")
    if not isinstance(text, str) or "stderrBase64" in result:
        return
    gap = "\n" if text and not text.endswith("\n") else ""
    told = f"{text}{gap}{PREFIX}{memory_advice(None)}\n"
    if len(told) <= _MOST_BYTES:
        result["stderr"] = told


# --- without a result -----------------------------------------------------------------------------


def lost(member: Member | None, node_silent: bool = False) -> Outcome:
    """Why the sidecar of a running session cannot be reached, from what is known of its pod (None: it is
    gone). node_silent: its node takes no connections either."""
    if member is None:
        return Outcome(Reason.POD_LOST, "the pod was deleted")
    if member.pod_reason == "DeadlineExceeded":
        return Outcome(Reason.TIME_LIMIT, "the node ended the pod at its deadline")
    if member.pod_reason == "NodeLost":
        return Outcome(Reason.NODE_LOST, f"node {member.node} stopped answering")
    if member.pod_reason == "Evicted" and "emptydir" in member.message.lower():
        return Outcome(Reason.DISK_FULL, f"the node evicted the pod: {member.message}")
    if member.pod_reason:
        return Outcome(Reason.POD_LOST, f"{member.pod_reason}: {member.message}".rstrip(": "))
    if member.runtime_ending is not None and member.runtime_ending.reason == OOM_KILLED:
        return Outcome(Reason.OOM_KILLED, REASON_MEANINGS[Reason.OOM_KILLED], {"signal": "SIGKILL"})
    if member.deleting:
        return Outcome(Reason.POD_LOST, "the pod was deleted")
    if member.sidecar_ending is not None:
        return Outcome(Reason.SIDECAR_LOST, f"the sidecar ended: {member.sidecar_ending.reason}")
    if member.runtime_ending is not None:
        return Outcome(Reason.RUNTIME_LOST, f"the runtime container ended: {member.runtime_ending.reason}")
    if not member.ready:
        return Outcome(
            Reason.NODE_LOST, f"the sidecar does not answer, and node {member.node} says not ready"
        )
    if node_silent:
        return Outcome(Reason.NODE_LOST, f"node {member.node} does not answer")
    return Outcome(Reason.SIDECAR_LOST, "the sidecar does not answer")


def ended_pod(member: Member, gone: bool) -> Outcome | None:
    """Why a pod that nothing runs in serves nobody any more; None if it does."""
    if gone:
        return lost(None)
    return lost(member) if member.deleting or member.ended else None


# --- the status -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Record:
    """What the operator knows of one session, in the order in which it learns it."""

    generation: int
    epoch: int
    attempts: int = 0
    start_type: StartType | None = None
    pod: Mapping[str, Any] | None = None
    timings: dict[str, str] = field(default_factory=dict)
    workspace: Mapping[str, Any] | None = None
    """How a workspace is used."""
    workspace_run: Mapping[str, Any] | None = None
    """Where a run stands in its workspace."""
    tool_calls: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Calls that the program has made, in the form of the status."""
    answered: frozenset[str] = frozenset()
    """Those of them whose results stand in the spec."""

    @classmethod
    def of(cls, session: Session, epoch: int) -> "Record":
        """What is known of the session, from its status."""
        status = session.status
        start = status.get("startType")
        return cls(
            generation=session.generation,
            epoch=epoch,
            attempts=int(status.get("attempts") or 0),
            start_type=StartType(start) if start in set(StartType) else None,
            pod=status.get("pod"),
            timings=dict(status.get("timings") or {}),
            workspace=status.get("workspace"),
            workspace_run=status.get("workspaceRun"),
            tool_calls=dict(status.get("toolCalls") or {}),
        )

    def name_pod(self, pod: Member) -> None:
        """The session's program is about to be started in this pod."""
        named = {"name": pod.name, "uid": pod.uid, "ip": pod.ip, "node": pod.node}
        self.pod = {key: value for key, value in named.items() if value}

    def queued(self, reason: Reason = Reason.WAITING_FOR_POD) -> dict[str, Any]:
        """Status of a session that waits for a pod, or for its turn in one."""
        return self._status(Phase.QUEUED, reason, REASON_MEANINGS[reason])

    def running(self) -> dict[str, Any]:
        """Status of a session whose program has been running for a while, or waits for tools."""
        if self.answered.issuperset(self.tool_calls):
            return self._status(Phase.RUNNING, None, "")
        reason = Reason.WAITING_FOR_TOOLS
        return self._status(Phase.RUNNING, reason, REASON_MEANINGS[reason])

    def active(self) -> dict[str, Any]:
        """Status of a workspace that has its pod."""
        return self._status(Phase.ACTIVE, None, "")

    def completed(self, outcome: Outcome, now: float) -> dict[str, Any]:
        """The final status."""
        moment = timestamp(now)
        timings = {**self.timings, **outcome.timings, "completed": moment}
        message = printable(outcome.message or REASON_MEANINGS[outcome.reason], MESSAGE_MAX_LENGTH)
        self.answered = frozenset(self.tool_calls)
        made = self._status(phase_of(outcome.reason), outcome.reason, message)
        made["timings"] = timings
        if outcome.result is not None:
            made["result"] = dict(outcome.result)
        if outcome.usage:
            made["usage"] = dict(outcome.usage)
        if outcome.files is not None:
            made.update(outcome.files.status())
        made["conditions"] = [
            {
                "type": str(SessionCondition.COMPLETED),
                "status": str(ConditionStatus.TRUE),
                "reason": str(outcome.reason),
                "message": message,
                "lastTransitionTime": moment,
                "observedGeneration": self.generation,
            }
        ]
        return made

    def _status(self, phase: Phase, reason: Reason | None, message: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "observedGeneration": self.generation,
            "phase": str(phase),
            "attempts": self.attempts,
            "epoch": self.epoch,
            "timings": dict(self.timings),
        }
        if reason is not None:
            made["reason"] = str(reason)
        if message:
            made["message"] = message
        if self.start_type is not None:
            made["startType"] = str(self.start_type)
        if self.pod is not None:
            made["pod"] = dict(self.pod)
        if self.workspace is not None:
            made["workspace"] = dict(self.workspace)
        if self.workspace_run is not None:
            made["workspaceRun"] = dict(self.workspace_run)
        if self.tool_calls:
            made["toolCalls"] = {
                id: {"name": call["name"]} if id in self.answered else dict(call)
                for id, call in self.tool_calls.items()
            }
        return made

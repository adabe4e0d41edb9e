"""From the end of a session to the answer of /exec. Decided by reason, never by phase.

A program that failed, was killed or ran out of time is an HTTP 200 with text in stderr: anything else makes
models run it again. Only what kept the program from running, or lost it, is an error status, and even that
becomes a 200 with text once the status line is out.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kubecoderun_api import session_files, wire
from kubecoderun_crds.reasons import Reason

Json = dict[str, Any]
PREFIX: Final = "[kubecoderun] "


@dataclass(frozen=True)
class Answer:
    """One complete answer to /exec, in both forms it may need."""

    status: int
    body: Json
    """JSON to send with that status."""
    reason: str
    """Why, for log and metrics: a `Reason` or a name of ours."""
    text: str = ""
    """For an error status: what the model reads in stderr if 200 has been sent already."""
    headers: dict[str, str] = field(default_factory=dict)

    def late_body(self, session: str) -> Json:
        """The JSON to send when 200 is out already."""
        if self.status == 200:
            return self.body
        return _exec_body(session, stderr=_line(self.text), message=self.text)


@dataclass(frozen=True)
class _Fault:
    """An error answer that needs no result of a program."""

    status: int
    error: str
    text: str


_RAN: Final = frozenset(
    {
        Reason.SUCCEEDED,
        Reason.NON_ZERO_EXIT,
        Reason.SIGNALLED,
        Reason.TIME_LIMIT,
        Reason.TOOL_WAIT_EXPIRED,
        Reason.OOM_KILLED,
        Reason.OUTPUT_LIMIT,
        Reason.DISK_FULL,
        Reason.PROCESS_LIMIT,
        Reason.OPEN_FILES_LIMIT,
        Reason.RUNTIME_LOST,
    }
)
"""Ends of a program that ran: always 200, whatever is known of its output."""

_KILLED: Final[dict[str, tuple[str, str]]] = {
    Reason.TIME_LIMIT: ("TO", "Time limit exceeded"),
    Reason.TOOL_WAIT_EXPIRED: ("TO", "Tool results did not come in time"),
    Reason.OOM_KILLED: ("SG", "Out of memory"),
    Reason.OUTPUT_LIMIT: ("OL", "Output limit exceeded"),
    Reason.CANCELLED: ("SG", "Cancelled"),
}
"""Ends by our hand or the kernel's: official status, message (also put into stderr)."""
_CUT: Final = "stdout length exceeded"
_FAILED: Final[dict[str, str]] = {
    Reason.DISK_FULL: "No space left",
    Reason.PROCESS_LIMIT: "Too many processes",
    Reason.OPEN_FILES_LIMIT: "Too many open files",
}
"""Limits that a program met and failed by itself: the message. Its own words are in stderr."""

_FAULTS: Final[dict[str, _Fault]] = {
    Reason.RUNTIME_LOST: _Fault(503, "execution_lost", "The sandbox failed while the program ran."),
    Reason.SIDECAR_LOST: _Fault(
        503, "execution_lost", "The sandbox stopped answering while the program ran."
    ),
    Reason.POD_LOST: _Fault(503, "execution_lost", "The sandbox was removed while the program ran."),
    Reason.NODE_LOST: _Fault(503, "execution_lost", "The sandbox's machine failed while the program ran."),
    Reason.CANCELLED: _Fault(503, "cancelled", "The run was cancelled."),
    Reason.POOL_NOT_FOUND: _Fault(
        400, wire.UNSUPPORTED, "The sandbox pool for this language no longer exists."
    ),
    Reason.LANGUAGE_NOT_IN_POOL: _Fault(400, wire.UNSUPPORTED, "This language is no longer offered."),
    Reason.INVALID_REQUEST: _Fault(400, "invalid_request", "The run was refused."),
    Reason.CODE_UNAVAILABLE: _Fault(
        503, "code_unavailable", "The program could not be fetched by the sandbox."
    ),
    Reason.STORE_UNAVAILABLE: _Fault(503, "store_unavailable", "The object store did not answer."),
    Reason.WORKSPACE_BUSY: _Fault(
        409, "runtime_session_busy", "Other runs of this session have not ended: try again later."
    ),
    Reason.WORKSPACE_ENDED: _Fault(
        503, "runtime_session_ended", "The session's sandbox ended before the program was started."
    ),
    Reason.WORKSPACE_NOT_FOUND: _Fault(
        503, "runtime_session_ended", "The session's sandbox was removed before the program was started."
    ),
    Reason.OPERATOR_ERROR: _Fault(500, "internal_error", "The run failed for an internal reason."),
}
_BUSY: Final[dict[str, str]] = {
    Reason.POOL_EMPTY: "No sandbox is free right now.",
    Reason.WAIT_EXPIRED: "No sandbox became free in time.",
}
_UNKNOWN: Final = _Fault(503, "execution_failed", "The run ended for a reason this front end does not know.")

OWN_FAULTS: Final[dict[str, _Fault]] = {
    "SessionDeleted": _Fault(503, "session_deleted", "The run was deleted before it finished."),
    "Taken": _Fault(409, "continuation_in_flight", "The program is being continued by another call."),
    "NotContinued": _Fault(
        503, "cluster_unavailable", "The tool results could not be handed to the cluster."
    ),
    "NotCancelled": _Fault(503, "cluster_unavailable", "The run could not be cancelled."),
    "NoAnswer": _Fault(504, "execution_timeout", "The run did not finish in the expected time."),
    "ShuttingDown": _Fault(503, "shutting_down", "The service is shutting down."),
    "NotCreated": _Fault(503, "cluster_unavailable", "The run could not be handed to the cluster."),
    "Rejected": _Fault(400, "invalid_request", "The cluster does not accept this request."),
    "Refused": _Fault(503, "cluster_refused", "The cluster refused the run."),
    "UploadFailed": _Fault(503, "store_unavailable", "The object store did not take the program."),
    "StoreFailed": _Fault(503, "store_unavailable", "The object store could not do it."),
    "Unreadable": _Fault(503, "cluster_unavailable", "The cluster could not be asked about the files."),
    "NotChanged": _Fault(503, "cluster_unavailable", "The session could not be changed."),
    "NameTaken": _Fault(503, "cluster_refused", "Another session has the name of this one."),
    "InternalError": _Fault(500, "internal_error", "The run failed for an internal reason."),
}
"""Ends that no session reports: the front end itself could not get one."""


def own_fault(name: str) -> Answer:
    """The answer for a key of OWN_FAULTS."""
    return _fault(name, OWN_FAULTS[name])


def key_reused() -> Answer:
    """409 for an idempotency key that stands for another request."""
    text = "The idempotency key was used for another request: send this one with a key of its own."
    return Answer(409, {"error": "idempotency_key_reused", "message": text}, "KeyReused", text)


def refused(error: wire.BadRequest) -> Answer:
    """The answer for a request that turns out to make no sense."""
    body = error.body
    return Answer(error.status, body, "Refused", str(body.get("message") or body["error"]))


def busy(reason: str, retry_after_seconds: int, text: str = "No sandbox is free right now.") -> Answer:
    """429 in the form that LibreChat's clients understand."""
    return Answer(
        status=429,
        body={"error": "rate_limited", "message": text, "retry_after_seconds": retry_after_seconds},
        reason=reason,
        text=f"{text} Try again in {retry_after_seconds} seconds.",
        headers={"retry-after": str(retry_after_seconds)},
    )


def accepted(session: str) -> Answer:
    """202 for a run that was handed in without waiting for its end."""
    events = f"/exec/{session}/events"
    body = {"session_id": session, "status": "accepted", "result": f"/exec/{session}", "events": events}
    return Answer(202, body, "Submitted", headers={"preference-applied": "respond-async"})


def not_run(session: str, lines: Sequence[str]) -> Answer:
    """200 for a program that was not run for a reason its author can mend; the first line says which."""
    body = _exec_body(session, stderr=_with_lines("", lines), message=lines[0])
    return Answer(200, body, Reason.INPUT_UNAVAILABLE)


def wants_stored(status: Mapping[str, Any]) -> bool:
    """Whether the store has more of the output than the resource."""
    result = status.get("result") or {}
    if not result.get("stored"):
        return False
    return any(result.get(f"{name}Truncated") for name in ("stdout", "stderr"))


def from_status(
    session: str,
    status: Mapping[str, Any],
    *,
    stored: Mapping[str, Any] | None,
    retry_after_seconds: int,
    inherited: Sequence[Json] = (),
) -> Answer:
    """The answer for a session that ended.

    `stored` is the full result from the store, if it was wanted and could be read. `inherited` are the inputs
    to tell of after the program's own files, if it has run.
    """
    reason = str(status.get("reason") or "")
    if reason in _BUSY:
        return busy(reason, retry_after_seconds, _BUSY[reason])
    if reason == Reason.INPUT_UNAVAILABLE:
        why = str(status.get("message") or "An input file is not available.")
        return not_run(session, ["The program was not run: an input file is not available.", why])
    if reason not in _RAN and not _has_result(status.get("result") or {}):
        fault = _FAULTS.get(reason, _UNKNOWN)
        if reason == Reason.INVALID_REQUEST and status.get("message"):
            fault = _Fault(fault.status, fault.error, str(status["message"])[:300])
        return _fault(reason or "Unknown", fault)
    missing = wants_stored(status) and stored is None
    body = _program_body(session, reason, status, stored, missing)
    return Answer(200, {**body, "files": [*body["files"], *inherited]}, reason)


def has_output(status: Mapping[str, Any]) -> bool:
    """Whether a program has run, so that there may be output of it."""
    return _has_result(status.get("result") or {})


def known_beginning(
    status: Mapping[str, Any], stored: Mapping[str, Any] | None, name: str
) -> tuple[bytes, int]:
    """The bytes of one stream of a run that ended from its first one on, as far as nothing is missing between
    them; and how many there were. Of stdout that is all that was kept; of stderr that was cut, nothing."""
    result = status.get("result") or {}
    total = int(result.get(f"{name}Bytes") or 0)
    if not result.get(f"{name}Truncated"):
        return _bytes(result, name), total
    if stored and (name == "stdout" or not (stored.get(name) or {}).get("truncated")):
        return _stored_bytes(stored, name), total
    return (_bytes(result, name) if name == "stdout" else b""), total


def in_runtime_session(answer: Answer, id: str, status: Mapping[str, Any]) -> Answer:
    """The answer with what is known of the runtime session that the program ran in."""
    number = (status.get("workspaceRun") or {}).get("number")
    if answer.status != 200 or number is None:
        return answer
    told = {"runtime_session_id": id, "runtime_status": "new" if number == 1 else "reused"}
    return replace(answer, body={**answer.body, **told})


def _has_result(result: Mapping[str, Any]) -> bool:
    """Whether anything of a program was reported: how it ended, or some output."""
    return any(result.get(name) is not None for name in ("exitCode", "signal", "stdoutBytes", "stderrBytes"))


def _program_body(
    session: str, reason: str, status: Mapping[str, Any], stored: Mapping[str, Any] | None, missing: bool
) -> Json:
    result = status.get("result") or {}
    stdout = _stored_bytes(stored, "stdout") if stored else _bytes(result, "stdout")
    stderr = _stored_bytes(stored, "stderr") if stored else _bytes(result, "stderr")
    cut = (stored.get("stdout") or {}).get("truncated") if stored else result.get("stdoutTruncated")
    letters, message = _verdict(reason, result.get("signal"), bool(cut))
    text = stderr.decode("utf-8", "replace")
    unsaid = message and message != _CUT and not _is_told(text)
    notes = [message] if message and unsaid else []
    if missing:
        notes.append("Only part of the output could be read.")
    skipped = session_files.skipped_note(status)
    if skipped:
        notes.append(skipped)
    body = _exec_body(
        session,
        stdout=stdout.decode("utf-8", "replace"),
        stderr=_with_lines(text, notes),
        code=result.get("exitCode"),
        signal=result.get("signal") or ("SIGKILL" if reason in _KILLED else None),
        message=message,
        status=letters,
        files=session_files.outputs(session, status),
        usage=status.get("usage") or {},
    )
    return body | session_files.reports(status)


def _is_told(stderr: str) -> bool:
    """Whether the sandbox has said already how the program met a limit, and what to do about it."""
    return stderr.rstrip("\n").rpartition("\n")[2].startswith(PREFIX)


def _verdict(reason: str, signal: Any, cut: bool) -> tuple[str | None, str | None]:
    """The official two-letter status and the message for a program that ran."""
    if reason in _KILLED:
        return _KILLED[reason]
    if reason in _FAILED:
        return "SG" if signal else None, _FAILED[reason]
    if reason == Reason.SIGNALLED:
        return "SG", f"Killed by signal {signal or 'unknown'}"
    if reason not in (Reason.SUCCEEDED, Reason.NON_ZERO_EXIT):
        return "SG", _FAULTS.get(reason, _UNKNOWN).text
    if cut:
        return "OL", _CUT
    return None, None


def _exec_body(
    session: str,
    *,
    stdout: str = "",
    stderr: str = "",
    code: int | None = None,
    signal: str | None = None,
    message: str | None = None,
    status: str | None = None,
    files: Sequence[Json] = (),
    usage: Mapping[str, Any] | None = None,
) -> Json:
    usage = usage or {}
    return {
        "session_id": session,
        "stdout": stdout,
        "stderr": stderr,
        "files": list(files),
        "code": code,
        "signal": signal,
        "message": message,
        "status": status,
        "wall_time": _milliseconds(usage.get("wallSeconds")),
        "cpu_time": _milliseconds(usage.get("cpuSeconds")),
        "memory": usage.get("maxRssBytes"),
    }


def _milliseconds(seconds: Any) -> int | None:
    return round(seconds * 1000) if isinstance(seconds, int | float) else None


def _fault(reason: str, fault: _Fault) -> Answer:
    return Answer(fault.status, {"error": fault.error, "message": fault.text}, reason, fault.text)


def _line(text: str) -> str:
    return f"{PREFIX}{text}\n"


def _with_lines(stderr: str, notes: Sequence[str]) -> str:
    """Stderr with our lines after it, each on a line of its own."""
    if not notes:
        return stderr
    gap = "\n" if stderr and not stderr.endswith("\n") else ""
    return stderr + gap + "".join(_line(note) for note in notes)


def _bytes(result: Mapping[str, Any], name: str) -> bytes:
    """One stream of a session's result: text, or base64 where text would not be exact."""
    return _decoded(result.get(name), result.get(f"{name}Base64"))


def _stored_bytes(stored: Mapping[str, Any], name: str) -> bytes:
    """The same from the sidecar's result object."""
    stream = stored.get(name) or {}
    return _decoded(stream.get("text"), stream.get("base64"))


def _decoded(text: Any, encoded: Any) -> bytes:
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded)
        except (binascii.Error, ValueError):
            return b""
    return text.encode("utf-8", "replace") if isinstance(text, str) else b""

"""Programmatic tool calling as LibreChat's client speaks it: requests read, answers made, and what a session
waits for. Pure.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kubecoderun_api import wire
from kubecoderun_api.answers import Answer
from kubecoderun_api.idempotency import SECRET_BYTES
from kubecoderun_crds import names
from kubecoderun_crds.printable import printable
from kubecoderun_crds.reasons import TERMINAL_PHASES, Reason
from kubecoderun_crds.toolcalls import (
    INLINE_RESULTS_CHARACTERS,
    INLINE_VALUE_CHARACTERS,
    MAX_CALLS,
    MAX_ERROR_LENGTH,
    MAX_RESULT_BYTES,
    MAX_RESULTS_BYTES,
    MAX_TOOL_NAME_LENGTH,
    MAX_TOOLS,
    TOOL_LANGUAGES,
    clash,
    is_call_id,
)

Json = dict[str, Any]
REQUEST_ID_HEADER: Final = "x-librechat-code-request-id"
WORKSPACE_HEADER: Final = "x-librechat-code-workspace-id"
PENDING: Final = "pendingToolCalls"
"""Where `pending` puts the calls that wait."""
_TOKEN: Final = re.compile(r"([a-z0-9]{21})\.([A-Za-z0-9_-]{24})")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_GONE: Final = frozenset({Reason.TOOL_WAIT_EXPIRED})
"""Ends after which a continuation comes too late."""
_FAILED: Final = "Execution failed or timed out"
_ERRORS: Final[Mapping[str, str]] = {
    Reason.TIME_LIMIT: "Time limit exceeded",
    Reason.OOM_KILLED: "Out of memory",
    Reason.SIGNALLED: "Sandbox exited with code unknown",
}
"""Texts that clients know; all others are shown as a failure of a general kind."""


# --- requests -------------------------------------------------------------------------------------


def parse_start(body: Mapping[str, Any]) -> wire.ExecRequest:
    """Read a call that starts a program. Raises BadRequest."""
    language = body.get("lang") or body.get("language") or "py"
    call = wire.parse_exec({**body, "lang": language, "args": None})
    if call.language not in TOOL_LANGUAGES:
        wire.refuse(
            f"Programs that call tools are in {' or '.join(TOOL_LANGUAGES)}, not in {call.language}.",
            error=wire.UNSUPPORTED,
        )
    return replace(call, tools=_tools(body.get("tools"), call.language))


def _tools(value: Any, language: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        wire.refuse("Missing required field: tools (must be a non-empty array)")
    if len(value) > MAX_TOOLS:
        wire.refuse(f"Too many tools provided ({len(value)}). Maximum is {MAX_TOOLS}.")
    tools: list[str] = []
    for place, tool in enumerate(value):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TOOL_NAME_LENGTH:
            wire.refuse(f"tools[{place}].name must be a string of 1 to {MAX_TOOL_NAME_LENGTH} characters")
        if not name.isprintable() or printable(name, MAX_TOOL_NAME_LENGTH) != name:
            wire.refuse(f"tools[{place}].name must not have control or invisible characters")
        tools.append(name)
    wrong = clash(tools, language)
    if wrong:
        wire.refuse(wrong)
    return tuple(tools)


@dataclass(frozen=True)
class Given:
    """A tool result as it was sent."""

    call: str
    value: str | None
    """JSON in ASCII; None for an error."""
    error: str


@dataclass(frozen=True)
class Continuation:
    """A call that brings results."""

    session: str
    secret: str
    results: tuple[Given, ...]


def parse_continuation(body: Mapping[str, Any]) -> Continuation:
    """Read it. Raises BadRequest."""
    token = body.get("continuation_token")
    found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
    if found is None:
        wire.refuse("Invalid continuation token")
    results = body.get("tool_results")
    if not isinstance(results, list) or not results:
        wire.refuse("tool_results must be a non-empty array")
    if len(results) > MAX_CALLS:
        wire.refuse(f"tool_results must have at most {MAX_CALLS} elements")
    given = tuple(_given(place, entry) for place, entry in enumerate(results))
    if len({entry.call for entry in given}) < len(given):
        wire.refuse("tool_results must have one result for each call")
    return Continuation(found[1], found[2], given)


def _given(place: int, entry: Any) -> Given:
    if not isinstance(entry, dict):
        wire.refuse(f"tool_results[{place}] must be an object")
    call, failed = entry.get("call_id"), entry.get("is_error", False)
    if not isinstance(call, str) or not is_call_id(call):
        wire.refuse(f"tool_results[{place}].call_id must be the id of a call")
    if not isinstance(failed, bool):
        wire.refuse(f"tool_results[{place}].is_error must be true or false")
    if failed:
        why = entry.get("error_message")
        text = why if isinstance(why, str) and why else "Tool execution failed"
        return Given(call, None, printable(text, MAX_ERROR_LENGTH))
    try:
        value = json.dumps(entry.get("result"), separators=(",", ":"))
    except RecursionError:
        wire.refuse(f"tool_results[{place}].result is nested too deeply")
    if len(value) > MAX_RESULT_BYTES:
        wire.refuse(
            f"tool_results[{place}].result is over {MAX_RESULT_BYTES} bytes",
            error="result_too_large",
            status=413,
        )
    return Given(call, value, "")


def parse_request_id(value: Any) -> str:
    """The id of a call, by which it can be cancelled. Raises BadRequest."""
    if not isinstance(value, str) or _REQUEST_ID.fullmatch(value) is None:
        wire.refuse("request_id must have 16 to 128 letters, digits, dashes or underscores")
    return value


def request_label(request_id: str, tenant: str | None) -> str:
    """Value of the label that finds the session of a call."""
    return hashlib.sha256(f"{tenant or ''}\0{request_id}".encode()).hexdigest()[:40]


# --- tokens ---------------------------------------------------------------------------------------


def new_secret() -> str:
    """A new secret; who has it may bring results."""
    return secrets.token_urlsafe(SECRET_BYTES)


def token(session: str, secret: str) -> str:
    """What a client continues with."""
    return f"{session}.{secret}"


def digest(secret: str) -> str:
    """What the session keeps of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def may_continue(resource: Mapping[str, Any], secret: str) -> bool:
    """Whether the secret is that of the session."""
    kept = (resource["metadata"].get("annotations") or {}).get(names.ANNOTATION_CONTINUATION) or ""
    return hmac.compare_digest(kept, digest(secret))


# --- sessions -------------------------------------------------------------------------------------


def pending(resource: Mapping[str, Any]) -> Json | None:
    """The calls that a session waits for, under PENDING; None if it does not wait."""
    status = resource.get("status") or {}
    if has_ended(status):
        return None
    given = resource["spec"].get("toolResults") or {}
    calls = {id: call for id, call in (status.get("toolCalls") or {}).items() if id not in given}
    return {PENDING: calls} if calls else None


def has_ended(status: Mapping[str, Any]) -> bool:
    """Whether a status is final."""
    return status.get("phase") in TERMINAL_PHASES


def is_too_late(status: Mapping[str, Any]) -> bool:
    """Whether a session has ended because nobody continued it."""
    return has_ended(status) and status.get("reason") in _GONE


@dataclass(frozen=True)
class NewResults:
    """What is to be added to spec.toolResults."""

    inline: Json
    stored: tuple[Given, ...]
    """Those that go to the store first."""


def new_results(resource: Mapping[str, Any], results: tuple[Given, ...]) -> NewResults:
    """Compare what has been sent with what is there. Raises BadRequest for results that nobody has asked
    for, and for those that contradict earlier ones."""
    had = resource["spec"].get("toolResults") or {}
    calls = (resource.get("status") or {}).get("toolCalls") or {}
    inline: Json = {}
    stored: list[Given] = []
    characters = sum(len(entry.get("value") or "") for entry in had.values())
    size = characters + sum((entry.get("valueRef") or {}).get("bytes", 0) for entry in had.values())
    for entry in results:
        if entry.call not in calls:
            wire.refuse(f"tool_results has a result for {entry.call}, which was not issued")
        if entry.call in had:
            if not _same(had[entry.call], entry):
                wire.refuse(f"tool_results has another result for {entry.call} than before")
            continue
        if entry.value is None:
            inline[entry.call] = {"error": entry.error}
            continue
        length = len(entry.value)
        size += length
        if length <= INLINE_VALUE_CHARACTERS and characters + length <= INLINE_RESULTS_CHARACTERS:
            characters += length
            inline[entry.call] = {"value": entry.value}
        else:
            stored.append(entry)
    if size > MAX_RESULTS_BYTES:
        wire.refuse(
            f"the results of a program must not have more than {MAX_RESULTS_BYTES} bytes together",
            error="results_too_large",
            status=413,
        )
    return NewResults(inline, tuple(stored))


def _same(had: Mapping[str, Any], entry: Given) -> bool:
    if entry.value is None:
        return had.get("error") == entry.error
    if "value" in had:
        return bool(had["value"] == entry.value)
    kept = had.get("valueRef") or {}
    return bool(kept.get("sha256") == hashlib.sha256(entry.value.encode()).hexdigest())


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProgrammaticAnswer(Answer):
    """An answer of /exec/programmatic."""

    def late_body(self, session: str) -> Json:
        """The JSON to send when 200 is out already."""
        if self.status == 200:
            return self.body
        text = f"[kubecoderun] {self.text}\n"
        return {"status": "error", "error": _FAILED, "stdout": "", "stderr": text, "session_id": session}


def asking(session: str, secret: str, calls: Mapping[str, tuple[str, Any]]) -> ProgrammaticAnswer:
    """The program waits for tools; `calls` are name and input by id."""
    body = {
        "status": "tool_call_required",
        "session_id": session,
        "continuation_token": token(session, secret),
        "tool_calls": [
            {"id": id, "name": name, "input": given} for id, (name, given) in sorted(calls.items())
        ],
    }
    return ProgrammaticAnswer(200, body, Reason.WAITING_FOR_TOOLS)


def final(answer: Answer) -> ProgrammaticAnswer:
    """The end of a program, from what /exec would answer."""
    if answer.status != 200:
        return ProgrammaticAnswer(answer.status, answer.body, answer.reason, answer.text, answer.headers)
    said = answer.body
    body = {key: value for key, value in said.items() if key not in ("status", "message")}
    if answer.reason == Reason.SUCCEEDED:
        return ProgrammaticAnswer(200, {"status": "completed", **body}, answer.reason)
    error = _ERRORS.get(answer.reason, _FAILED)
    if answer.reason == Reason.NON_ZERO_EXIT:
        error = f"Sandbox exited with code {said.get('code')}"
    return ProgrammaticAnswer(200, {"status": "error", "error": error, **body}, answer.reason)


def cancelled(session: str) -> ProgrammaticAnswer:
    """The client has cancelled the call, and still listens."""
    body = {"status": "error", "error": _FAILED, "stdout": "", "stderr": "[kubecoderun] Cancelled\n"}
    return ProgrammaticAnswer(200, {**body, "session_id": session}, Reason.CANCELLED)

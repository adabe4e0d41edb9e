"""Programmatic tool calling, where it is decided: names, the book of calls, what a session waits for."""

import asyncio
import json
from collections.abc import Callable

import pytest

from kubecoderun_api import toolcalls as api
from kubecoderun_api.wire import BadRequest
from kubecoderun_crds import names
from kubecoderun_crds.toolcalls import (
    INLINE_VALUE_CHARACTERS,
    ToolResult,
    call_id,
    clash,
    identifier,
    is_call_id,
)
from kubecoderun_sidecar.fields import ProtocolError
from kubecoderun_sidecar.timelimit import TimeLimit
from kubecoderun_sidecar.toolcalls import (
    MAX_CALLS,
    MAX_INLINE_BYTES,
    AskedCall,
    CallBook,
    CallRefusedError,
    ResultsRequest,
    is_value,
    parse_call,
)
from kubecoderun_sidecar.toolcalls import ToolResult as Brought


@pytest.mark.parametrize(
    ("tool", "python", "bash"),
    [
        ("get-weather", "get_weather", "get_weather"),
        ("get weather", "get_weather", "get_weather"),
        ("a.b", "ab", "a_b"),
        ("2fast", "_2fast", "_2fast"),
        ("class", "class_tool", "class"),
        ("match", "match", "match"),
        ("if", "if_tool", "if_tool"),
        ("export", "export", "export_tool"),
        ("größe", "gre", "gre"),
        ("日本", "", ""),
    ],
)
def test_functions_are_called_as_clients_tell_their_models(tool: str, python: str, bash: str) -> None:
    assert identifier(tool, "py") == python
    assert identifier(tool, "bash") == bash


def test_tools_must_differ_as_functions() -> None:
    assert clash(["a.b", "ab"], "bash") == ""
    assert "a.b and ab" in clash(["a.b", "ab"], "py")
    assert "日本" in clash(["日本"], "py")


def test_ids() -> None:
    assert [call_id(1), call_id(20), call_id(1000)] == ["call_001", "call_020", "call_1000"]
    assert is_call_id("call_001")
    assert not is_call_id("call_1")
    assert not is_call_id("call_001\n")


def asked(tool: str = "add", text: str = "{}") -> AskedCall:
    return AskedCall(1, tool, text, True)


def test_the_book_takes_registered_tools_and_values_only() -> None:
    book = CallBook(frozenset({"add"}))
    with pytest.raises(CallRefusedError, match="unregistered tool: r\\?m"):
        book.add(asked("r\x1bm"))
    for text in ("", "{", "NaN", '"é"', '"\n"', "[" * 100_000):
        with pytest.raises(CallRefusedError, match="not JSON"):
            book.add(asked(text=text))
    assert book.add(asked()).id == "call_001"
    assert list(book.waiting) == ["call_001"], "what was refused has no number"


def test_the_book_is_bounded() -> None:
    book = CallBook(frozenset({"add"}))
    text = json.dumps("x" * (MAX_INLINE_BYTES - 2))
    calls = [book.add(asked(text=text)) for _ in range(30)]
    assert sum(call.short for call in calls) == CallBook.MAX_ALL_INLINE_BYTES // MAX_INLINE_BYTES
    with pytest.raises(CallRefusedError, match="over"):
        book.add(asked(text=json.dumps("x" * 500_000)))
    long = json.dumps("x" * 400_000)
    for _ in range(CallBook.MAX_HELD_BYTES // len(long)):
        if (
            sum(call.bytes for call in book.waiting.values() if not call.short) + len(long)
            < CallBook.MAX_HELD_BYTES
        ):
            book.add(asked(text=long))
    with pytest.raises(CallRefusedError, match="same time"):
        book.add(asked(text=long))


def test_a_run_makes_so_many_calls() -> None:
    book = CallBook(frozenset({"add"}))
    for _ in range(MAX_CALLS):
        del book.waiting[book.add(asked()).id]
    with pytest.raises(CallRefusedError, match=f"at most {MAX_CALLS}"):
        book.add(asked())


def test_values() -> None:
    assert is_value('{"a": [1, "\\u00e9"]}')
    assert not is_value('{"a": 1}x')
    assert not is_value('{"value": 1}, "other": {')


@pytest.mark.parametrize(
    "payload",
    [b"{}", b"[]", b'{"number": 0, "tool": "a", "input": "1"}', b'{"number": 1, "tool": 1, "input": "1"}'],
)
def test_calls_that_are_none(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_call(payload)


def test_results_on_the_wire() -> None:
    request = ResultsRequest(
        (
            Brought("call_001", value="1"),
            Brought("call_002", error="x"),
            Brought("call_003", url="u", sha256="a" * 64),
        )
    )
    assert ResultsRequest.parse(request.to_json()) == request
    with pytest.raises(ProtocolError):
        ResultsRequest.parse(b'{"results": [{"id": "call_001"}]}')
    with pytest.raises(ProtocolError):
        ResultsRequest.parse(b'{"results": [{"id": "call_001", "value": "1", "error": "x"}]}')


async def test_the_time_limit_stands_still_while_a_program_waits() -> None:
    told: list[str] = []
    limit = TimeLimit(
        0.2, 60, 60, overdue=lambda: told.append("overdue"), abandoned=lambda: told.append("abandoned")
    )
    limit.start()
    limit.wait()
    await asyncio.sleep(0.4)
    assert told == []
    limit.go_on()
    await asyncio.sleep(0.6)
    assert told == ["overdue"]


@pytest.mark.parametrize(("wait", "all_waits"), [(0.2, 60), (60, 0.2)])
async def test_waiting_is_bounded(wait: float, all_waits: float) -> None:
    told: list[str] = []

    def note(what: str) -> Callable[[], None]:
        return lambda: told.append(what)

    limit = TimeLimit(60, wait, all_waits, overdue=note("overdue"), abandoned=note("abandoned"))
    limit.wait()
    assert told == [], "it has not started"
    limit.start()
    limit.wait()
    await asyncio.sleep(0.6)
    assert told == ["abandoned"]
    limit.stop()
    limit.go_on()


# --- the front end --------------------------------------------------------------------------------


def session(status: dict[str, object], results: dict[str, object] | None = None) -> dict[str, object]:
    return {"metadata": {"name": "s"}, "spec": {"toolResults": results or {}}, "status": status}


def test_what_a_session_waits_for() -> None:
    calls = {"call_001": {"name": "add", "input": "{}"}, "call_002": {"name": "add"}}
    waiting: dict[str, object] = {"phase": "Running", "toolCalls": calls}
    assert api.pending(session(waiting)) == {api.PENDING: calls}
    left = api.pending(session(waiting, {"call_001": {"value": "1"}}))
    assert left == {api.PENDING: {"call_002": {"name": "add"}}}
    assert api.pending(session(waiting, {id: {"value": "1"} for id in calls})) is None
    assert api.pending(session({**waiting, "phase": "Failed"})) is None
    assert api.pending({"metadata": {}, "spec": {}}) is None


def test_tokens() -> None:
    secret = api.new_secret()
    token = api.token("a" * 21, secret)
    found = api.parse_continuation({"continuation_token": token, "tool_results": [{"call_id": "call_001"}]})
    assert (found.session, found.secret) == ("a" * 21, secret)
    kept = {names.ANNOTATION_CONTINUATION: api.digest(secret)}
    assert api.may_continue({"metadata": {"annotations": kept}}, secret)
    assert not api.may_continue({"metadata": {"annotations": kept}}, api.new_secret())
    assert not api.may_continue({"metadata": {}}, secret)


def test_every_result_fits_its_resource() -> None:
    """What the front end writes is what the models of the resource take, whatever the client sends."""
    sent = ["\x00\u202e\ud800", {"é": [None, 1e300]}, "x" * (INLINE_VALUE_CHARACTERS - 2), None]
    entries = [{"call_id": call_id(n), "result": value} for n, value in enumerate(sent, 1)]
    entries.append({"call_id": "call_009", "is_error": True, "error_message": "\x1b[2J\u202e" + "y" * 9000})
    body = {"continuation_token": api.token("a" * 21, api.new_secret()), "tool_results": entries}
    given = api.parse_continuation(body).results
    calls = {entry.call: {"name": "add"} for entry in given}
    fresh = api.new_results(session({"phase": "Running", "toolCalls": calls}), given)
    assert not fresh.stored
    for entry in fresh.inline.values():
        ToolResult.model_validate(entry)
        text = entry.get("value") or entry["error"]
        assert text.isprintable() or "\n" in text


def test_results_together_are_bounded() -> None:
    had = {call_id(n): {"valueRef": {"bytes": 5 * 1024 * 1024, "sha256": "a" * 64}} for n in range(1, 9)}
    given = (api.Given("call_009", "1", ""),)
    with pytest.raises(BadRequest) as refused:
        api.new_results(session({"toolCalls": {"call_009": {"name": "add"}}}, had), given)
    assert refused.value.status == 413

"""POST /exec/programmatic: real front end, real HTTP server, fake API server; the test is operator and
client."""

import asyncio
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.fakes_api.apiserver import ended, pool, succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, Json, System, another, running
from kubecoderun_crds import names
from kubecoderun_crds.toolcalls import INLINE_VALUE_CHARACTERS

PATH = "/exec/programmatic"
TOOLS = [{"name": "get-weather", "description": "w", "parameters": {"type": "object"}}, {"name": "add"}]
REQUEST_ID = "3f0f1c1a-6d0e-4a38-9a1f-0a0d1c1b2e3f"


def start(system: System, headers: dict[str, str] | None = None, **fields: Any) -> asyncio.Task[Reply]:
    """Begin to start a program."""
    body = {"code": "print(await add(a=1, b=2))", "tools": TOOLS, **fields}
    return post(system, body, headers)


def post(system: System, body: Json, headers: dict[str, str] | None = None) -> asyncio.Task[Reply]:
    return asyncio.create_task(system.request("POST", PATH, body, {"X-API-Key": KEY, **(headers or {})}))


def carry_on(system: System, asked: Json, *results: Json, **headers: str) -> asyncio.Task[Reply]:
    """Begin to bring results."""
    body = {"continuation_token": asked["continuation_token"], "tool_results": list(results)}
    return post(system, body, {name.replace("_", "-"): value for name, value in headers.items()})


def result(call: str, value: Any = None, error: str | None = None) -> Json:
    if error is not None:
        return {"call_id": call, "result": None, "is_error": True, "error_message": error}
    return {"call_id": call, "result": value, "is_error": False}


def waiting(**calls: Any) -> Json:
    """The status of a program that has made these calls of `add`."""
    made = {id: {"name": "add", "input": json.dumps(given)} for id, given in calls.items()}
    return {"phase": "Running", "reason": "WaitingForTools", "toolCalls": made}


async def begun(system: System, reply: asyncio.Task[Reply], **calls: Any) -> tuple[str, Json]:
    """Let the program make calls; the session's name, and what the client is told."""
    name = (await system.api.created())["metadata"]["name"]
    system.api.finish(name, waiting(**(calls or {"call_001": {"a": 1, "b": 2}})))
    told = await reply
    assert told.status == 200, told.raw
    return name, told.json


async def results_in(system: System, name: str, count: int = 1) -> Json:
    """Wait until so many results stand in the session."""
    session = system.api.objects
    key = (names.SESSION_PLURAL, name)
    await system.api.until(lambda: len(session[key]["spec"].get("toolResults", {})) >= count)
    return dict(session[key]["spec"]["toolResults"])


async def test_one_round_trip_and_the_end() -> None:
    async with running(replica_uid="replica-1") as system:
        before = system.api.requests.copy()
        name, asked = await begun(system, start(system, session_id="any", timeout=15000))
        assert asked == {
            "status": "tool_call_required",
            "session_id": name,
            "continuation_token": asked["continuation_token"],
            "tool_calls": [{"id": "call_001", "name": "add", "input": {"a": 1, "b": 2}}],
        }
        request = system.api.sessions()[0]["spec"]["request"]
        assert request["tools"] == ["get-weather", "add"], "names only: the rest is between client and model"
        assert (request["language"], request["timeoutSeconds"]) == ("py", 15)
        reply = carry_on(system, asked, result("call_001", {"sum": "3\n€"}))
        assert await results_in(system, name) == {"call_001": {"value": '{"sum":"3\\n\\u20ac"}'}}
        system.api.finish(name, succeeded("3\n"))
        told = (await reply).json
        assert (told["status"], told["stdout"], told["stderr"], told["files"]) == ("completed", "3\n", "", [])
        assert told["session_id"] == name
        writes = system.api.requests - before
        expected = {"create executionsessions": 1, "patch executionsessions": 1, "get executionsessions": 1}
        assert writes == expected, "one write to start, one for each round trip"


async def test_calls_made_together_come_together_and_later_ones_later() -> None:
    async with running() as system:
        calls = {f"call_{n:03d}": {"n": n} for n in (1, 2, 3)}
        name, asked = await begun(system, start(system), **calls)
        assert [call["id"] for call in asked["tool_calls"]] == list(calls)
        # The client may bring some of them: it is asked for the others again.
        reply = await carry_on(system, asked, result("call_002", 2))
        assert [call["id"] for call in reply.json["tool_calls"]] == ["call_001", "call_003"]
        again = carry_on(system, reply.json, result("call_001", 1), result("call_003", error="no luck"))
        given = await results_in(system, name, 3)
        assert given["call_003"] == {"error": "no luck"}
        system.api.finish(name, waiting(**calls, call_004={"n": 4}))
        assert [call["id"] for call in (await again).json["tool_calls"]] == ["call_004"]


async def test_an_old_event_does_not_ask_for_the_same_calls_again() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        system.api.deaf = True
        system.api.finish(name, {**waiting(call_001={"a": 1, "b": 2}), "message": "an event on its way"})
        reply = carry_on(system, asked, result("call_001", 3))
        await results_in(system, name)
        system.api.deaf = False
        system.api.finish(name, {**waiting(call_001={"a": 1, "b": 2}), "message": "another"})
        await asyncio.sleep(0.1)
        assert not reply.done()
        system.api.finish(name, succeeded())
        assert (await reply).json["status"] == "completed"


async def test_a_continuation_may_reach_another_replica() -> None:
    async with running(replica_uid="one") as first, another(first) as second:
        name, asked = await begun(first, start(first))
        reply = carry_on(second, asked, result("call_001", 3))
        await results_in(first, name)
        labels = first.api.objects[names.SESSION_PLURAL, name]["metadata"]["labels"]
        assert labels[names.LABEL_FRONT_END] == "another"
        assert len(first.api.patches) == 1, "label and result in one patch"
        first.api.finish(name, succeeded("3\n"))
        assert (await reply).json["stdout"] == "3\n"


async def test_who_brings_the_results_later_takes_the_program_over() -> None:
    async with running(replica_uid="one") as first, another(first) as second:
        name, asked = await begun(first, start(first))
        lost = carry_on(first, asked, result("call_001", 3))
        await results_in(first, name)
        again = carry_on(second, asked, result("call_001", 3))
        answer = await lost
        assert (answer.status, answer.json["error"]) == (409, "continuation_in_flight")
        first.api.finish(name, succeeded("3\n"))
        assert (await again).json["status"] == "completed"
        assert all("cancel" not in json.dumps(patch) for patch in first.api.patches)


async def test_one_continuation_at_a_time() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        first = carry_on(system, asked, result("call_001", 3))
        await results_in(system, name)
        second = await carry_on(system, asked, result("call_001", 3))
        assert (second.status, second.json["error"]) == (409, "continuation_in_flight")
        system.api.finish(name, succeeded())
        assert (await first).json["status"] == "completed"


async def test_a_repeated_continuation_gets_the_same_answer() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        first = carry_on(system, asked, result("call_001", 3))
        await results_in(system, name)
        system.api.finish(name, succeeded("3\n"))
        assert (await first).json["stdout"] == "3\n"
        again = await carry_on(system, asked, result("call_001", 3))
        assert (again.status, again.json["stdout"]) == (200, "3\n")


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"continuation_token": "x"}, 400, "Invalid continuation token"),
        ({"continuation_token": 7}, 400, "Invalid continuation token"),
        ({"tool_results": []}, 400, "non-empty array"),
        ({"tool_results": "x"}, 400, "non-empty array"),
        ({"tool_results": [7]}, 400, "must be an object"),
        ({"tool_results": [{"call_id": "x"}]}, 400, "call_id"),
        ({"tool_results": [{"call_id": "call_001", "is_error": 1}]}, 400, "is_error"),
        ({"tool_results": [{"call_id": "call_001"}] * 2}, 400, "one result for each call"),
        ({"tool_results": [{"call_id": "call_002"}]}, 400, "not issued"),
        ({"tool_results": [{"call_id": "call_001", "result": "x" * 5_300_000}]}, 413, "over 5242880 bytes"),
    ],
)
async def test_continuations_that_make_no_sense(change: Json, status: int, said: str) -> None:
    async with running() as system:
        _, asked = await begun(system, start(system))
        body = {"continuation_token": asked["continuation_token"], "tool_results": [result("call_001")]}
        reply = await post(system, {**body, **change})
        assert reply.status == status, reply.raw
        assert said in reply.json["message"]
        assert not system.api.patches, "nothing reached the cluster"


async def test_results_cannot_be_changed() -> None:
    async with running() as system:
        _, asked = await begun(system, start(system), call_001={}, call_002={})
        assert (await carry_on(system, asked, result("call_001", 3))).status == 200
        for other in (result("call_001", 4), result("call_001", error="x")):
            reply = await carry_on(system, asked, other, result("call_002", 1))
            assert (reply.status, "another result" in reply.json["message"]) == (400, True)


async def test_a_token_with_another_secret_opens_nothing() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        assert name in asked["continuation_token"], "so the session's id alone must not suffice"
        forged = {"continuation_token": f"{name}.{'A' * 24}"}
        reply = await carry_on(system, forged, result("call_001", 3))
        assert (reply.status, reply.json["error"]) == (404, "Execution not found or expired")
        unknown = {"continuation_token": f"{'x' * 21}.{'A' * 24}"}
        assert (await carry_on(system, unknown, result("call_001", 3))).status == 404


async def test_a_program_that_was_given_up_is_gone() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        system.api.finish(name, {**ended("ToolWaitExpired"), "phase": "TimedOut"})
        reply = await carry_on(system, asked, result("call_001", 3))
        assert (reply.status, reply.json["error"]) == (404, "Execution not found or expired")


async def test_long_results_go_to_the_store() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        long = "x" * INLINE_VALUE_CHARACTERS
        reply = carry_on(system, asked, result("call_001", long))
        given = (await results_in(system, name))["call_001"]
        stored = system.store.files["call_001.result"]
        assert json.loads(stored) == long
        digest = hashlib.sha256(stored).hexdigest()
        assert given == {"valueRef": {"bytes": len(stored), "sha256": digest}}
        system.api.finish(name, succeeded())
        assert (await reply).json["status"] == "completed"


async def test_what_stands_in_one_resource_is_bounded() -> None:
    async with running() as system:
        ids = [f"call_{n:03d}" for n in range(1, 41)]
        name, asked = await begun(system, start(system), **{id: {} for id in ids})
        text = "x" * (INLINE_VALUE_CHARACTERS - 2)
        carrying = carry_on(system, asked, *(result(id, text) for id in ids))
        given = await results_in(system, name, 40)
        assert sum("value" in entry for entry in given.values()) == 24
        assert sum("valueRef" in entry for entry in given.values()) == 16
        system.api.finish(name, succeeded())
        await carrying


async def test_long_inputs_come_from_the_store() -> None:
    async with running() as system:
        reply = start(system)
        name = (await system.api.created())["metadata"]["name"]
        text = json.dumps({"text": "x" * 20_000})
        prefix = names.session_prefix("kubecoderun", "kubecoderun", name)
        system.store.objects[f"/kubecoderun/{prefix}call_001.input"] = text.encode()
        reference = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
        call = {"name": "add", "inputRef": reference}
        system.api.finish(name, {"phase": "Running", "toolCalls": {"call_001": call}})
        assert (await reply).json["tool_calls"][0]["input"] == json.loads(text)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        ({**succeeded(), "phase": "Failed", "reason": "NonZeroExit"}, "Sandbox exited with code 0", 0),
        (ended("TimeLimit", result={"signal": "SIGKILL"}), "Time limit exceeded", None),
        (ended("OOMKilled", result={"signal": "SIGKILL"}), "Out of memory", None),
        (ended("Signalled", result={"signal": "SIGSEGV"}), "Sandbox exited with code unknown", None),
        (ended("RuntimeLost"), "Execution failed or timed out", None),
    ],
)
async def test_a_program_that_fails_is_an_error_in_a_200(status: Json, error: str, code: int | None) -> None:
    async with running() as system:
        system.api.answer = lambda session: status
        reply = await start(system)
        assert reply.status == 200
        told = reply.json
        assert (told["status"], told["error"], told["code"]) == ("error", error, code)
        assert {"stdout", "stderr", "session_id"} <= set(told)


async def test_what_does_not_run_is_an_error_status() -> None:
    async with running() as system:
        system.api.answer = lambda session: ended("PoolEmpty")
        reply = await start(system)
        assert (reply.status, reply.json["error"]) == (429, "rate_limited")


async def test_a_failure_that_comes_late_is_an_error_in_the_body() -> None:
    async with running(heartbeat_after_seconds=0.05, heartbeat_every_seconds=0.05) as system:
        reply = start(system)
        name = (await system.api.created())["metadata"]["name"]
        await asyncio.sleep(0.2)
        system.api.finish(name, ended("PodLost"))
        told = await reply
        assert told.spaces
        assert (told.status, told.json["status"]) == (200, "error")
        assert "The sandbox was removed" in told.json["stderr"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": ""}, "Missing required field: code"),
        ({"tools": []}, "Missing required field: tools (must be a non-empty array)"),
        ({"tools": None}, "Missing required field: tools (must be a non-empty array)"),
        (
            {"tools": [{"name": f"t{n}"} for n in range(101)]},
            "Too many tools provided (101). Maximum is 100.",
        ),
        ({"tools": [{"x": 1}]}, "tools[0].name"),
        ({"tools": [{"name": "a\nb"}]}, "tools[0].name"),
        ({"tools": [{"name": "a-b"}, {"name": "a_b"}]}, "would both be the function a_b"),
        ({"tools": [{"name": "日本"}]}, "without any letter"),
        ({"lang": "js"}, "not in js"),
        ({"lang": "cobol"}, "Known languages"),
    ],
)
async def test_starts_that_make_no_sense(change: Json, said: str) -> None:
    async with running() as system:
        reply = await start(system, **change)
        assert reply.status == 400
        assert said in reply.json["message"]
        assert not system.api.sessions()


async def test_the_session_is_kept_as_long_as_its_program_may_wait() -> None:
    async with running(tool_waits_seconds=50_000) as system:
        await begun(system, start(system))
        label = system.api.sessions()[0]["metadata"]["labels"][names.LABEL_EXPIRES]
        assert label >= names.expiry_bucket(datetime.now(UTC) + timedelta(seconds=50_000))


async def test_bash_and_its_names() -> None:
    async with running() as system:
        system.api.put_pool(pool("python", "py", "bash"))
        await system.api.until(lambda: "bash" in system.services.pools.languages())
        system.api.answer = lambda session: succeeded()
        reply = await start(system, lang="bash", tools=[{"name": "a.b"}, {"name": "if"}])
        assert reply.json["status"] == "completed"
        assert system.api.sessions()[0]["spec"]["request"]["language"] == "bash"


async def test_workspaces_of_the_users_own_are_refused_for_good() -> None:
    async with running() as system:
        headers = {"X-LibreChat-Code-Workspace-ID": "ws-1"}
        reply = await start(system, headers, lang="bash", tools=[])
        assert (reply.status, reply.json["error"]) == (400, "stateful_workspace_unsupported")


async def test_a_key_is_needed() -> None:
    async with running() as system:
        for path in (PATH, f"{PATH}/cancel"):
            assert (await system.request("POST", path, {"tools": TOOLS, "code": "x"})).status == 401


# --- cancelling -----------------------------------------------------------------------------------


async def cancel(system: System, request_id: Any) -> Reply:
    return await system.request("POST", f"{PATH}/cancel", {"request_id": request_id}, {"X-API-Key": KEY})


async def cancelled(system: System, name: str) -> None:
    key = (names.SESSION_PLURAL, name)
    await system.api.until(lambda: system.api.objects[key]["spec"].get("cancel") is True)


HEADER = {"X-LibreChat-Code-Request-ID": REQUEST_ID}


async def test_cancel_ends_the_call_and_the_program() -> None:
    async with running() as system:
        reply = start(system, HEADER)
        name = (await system.api.created())["metadata"]["name"]
        answer = await cancel(system, REQUEST_ID)
        assert (answer.status, answer.json) == (202, {"status": "cancellation_requested"})
        await cancelled(system, name)
        assert (await reply).json["status"] == "error"
        assert not system.services.calls


async def test_cancel_reaches_a_call_in_another_replica() -> None:
    async with running(replica_uid="one") as first, another(first) as second:
        reply = start(first, HEADER)
        name = (await first.api.created())["metadata"]["name"]
        assert (await cancel(second, REQUEST_ID)).status == 202
        await cancelled(first, name)
        first.api.finish(name, ended("Cancelled"))
        assert (await reply).status in (200, 503)
        assert (await cancel(second, REQUEST_ID)).json == {"status": "already_completed"}


async def test_each_call_has_an_id_of_its_own() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system, HEADER))
        other = "another-request-id-0001"
        reply = carry_on(system, asked, result("call_001", 3), X_LibreChat_Code_Request_ID=other)
        await results_in(system, name)
        assert (await cancel(system, REQUEST_ID)).status == 404, "that call is over"
        assert (await cancel(system, other)).status == 202
        await cancelled(system, name)
        await reply


async def test_cancels_that_make_no_sense() -> None:
    async with running() as system:
        assert (await cancel(system, "unknown-request-id-1")).status == 404
        for wrong in (None, 7, "short", "with spaces in it at all"):
            assert (await cancel(system, wrong)).status == 400
        assert (await start(system, {"X-LibreChat-Code-Request-ID": "!"})).status == 400


async def test_two_calls_with_one_id() -> None:
    async with running() as system:
        first = start(system, HEADER)
        name = (await system.api.created())["metadata"]["name"]
        second = await start(system, HEADER)
        assert (second.status, second.json["error"]) == (409, "duplicate_request")
        system.api.finish(name, succeeded())
        assert (await first).json["status"] == "completed"


async def test_a_client_that_leaves_ends_its_program() -> None:
    async with running() as system:
        name, asked = await begun(system, start(system))
        body = {"continuation_token": asked["continuation_token"], "tool_results": [result("call_001", 1)]}
        async with system.connection() as connection:
            await connection.send("POST", PATH, json.dumps(body).encode(), {"X-API-Key": KEY})
            await results_in(system, name)
        await cancelled(system, name)


async def test_between_calls_nobody_waits_and_the_program_goes_on() -> None:
    async with running() as system:
        name, _ = await begun(system, start(system))
        await asyncio.sleep(0.1)
        assert not system.api.patches
        assert re.fullmatch("[a-z0-9]{21}", name)

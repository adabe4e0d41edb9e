"""Runs that call tools: the real operator between a fake API server and fake sidecars."""

import asyncio
from typing import Any

import pytest

from contract.fakes.rival import overtaken
from contract.fakes.store import Json
from contract.fakes.system import NAMESPACE, SHORT_LEASE, System, system
from kubecoderun_crds import names
from kubecoderun_crds.session import SessionSpec, SessionStatus
from kubecoderun_sidecar.protocol import Refusal

TOOLS = ["add", "get-weather"]


async def begun(on: System, code: str, **request: Any) -> Json:
    """A session whose program waits for tools."""
    session = on.session(code, tools=TOOLS, **request)
    await on.until(lambda: unanswered(on, session), "calls in the status")
    return session


def unanswered(on: System, session: Json) -> list[str]:
    """Ids of the calls in the status that have no result."""
    spec = on.api.store.get(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"])["spec"]
    calls = on.status(session).get("toolCalls") or {}
    return [id for id in calls if id not in spec.get("toolResults", {})]


def give(on: System, session: Json, **results: Json) -> None:
    """Write results into the spec, as a front end does."""
    spec = on.api.store.get(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"])["spec"]
    merged = {**spec.get("toolResults", {}), **results}
    SessionSpec.model_validate({**spec, "toolResults": merged})
    on.edit_session(session, toolResults=merged)


async def test_calls_stand_in_the_status_and_results_reach_the_program() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:2 print:end")
        status = on.status(session)
        SessionStatus.model_validate(status)
        assert (status["phase"], status["reason"]) == ("Running", "WaitingForTools")
        assert status["toolCalls"] == {
            "call_001": {"name": "add", "input": '{"id":"call_001"}'},
            "call_002": {"name": "add", "input": '{"id":"call_002"}'},
        }
        give(on, session, call_001={"value": "1"})
        give(on, session, call_002={"error": "no luck"})
        ended = await on.ended(session)
        assert ended["result"]["stdout"] == "1,no luck,end"
        assert ended["toolCalls"] == {"call_001": {"name": "add"}, "call_002": {"name": "add"}}
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.request is not None
        functions = {tool.name: tool.function for tool in sidecar.request.tools}
        assert functions == {"add": "add", "get-weather": "get_weather"}


async def test_one_write_for_each_round() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:1 call:1 call:1 call:1 call:1")
        before = len(on.api.log)
        for number in range(1, 6):
            id = f"call_{number:03d}"
            await on.until(lambda id=id: id in unanswered(on, session), f"{id} waits")  # type: ignore[misc]
            calls = on.status(session)["toolCalls"]
            assert [name for name, call in calls.items() if "input" in call] == [id], "old inputs are gone"
            give(on, session, **{id: {"value": str(number)}})
        ended = await on.ended(session)
        assert ended["result"]["stdout"] == "1,2,3,4,5,"
        made = on.api.writes(since=before)
        writes = sum(entry.resource.startswith(names.SESSION_PLURAL) for entry in made)
        assert writes <= 5 + 1, "one for each round, and at most one that says Running"


async def test_operator_restarts_while_the_program_waits() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:2 print:end")
        give(on, session, call_001={"value": "1"})
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        await on.until(lambda: "call_001" in sidecar.given, "the first result")
        await on.kill(first)
        # Meanwhile a result comes that nobody brings to the program.
        give(on, session, call_002={"value": "2"})
        await asyncio.sleep(0.1)
        assert "call_002" not in sidecar.given
        await on.start()
        ended = await on.ended(session)
        assert ended["result"]["stdout"] == "1,2,end"
        assert sidecar.starts == 1


async def test_a_call_that_an_ended_operator_did_not_write_down() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = on.session("sleep:0.5 call:1", tools=TOOLS)
        uid = session["metadata"]["uid"]
        await on.until(lambda: any(side.starts for side in on.node.of_session(uid)), "the program runs")
        on.api.held["patch", "executionsessions/status"] = asyncio.Event()
        await on.until(lambda: any(side.waiting for side in on.node.of_session(uid)), "a call")
        await on.kill(first)
        del on.api.held["patch", "executionsessions/status"]
        await on.start()
        await on.until(lambda: unanswered(on, session) == ["call_001"], "the call in the status")
        give(on, session, call_001={"value": "7"})
        assert (await on.ended(session))["result"]["stdout"] == "7,"


async def test_calls_of_a_run_whose_pod_an_earlier_operator_has_named() -> None:
    """They are written beside the name of that pod, and their results brought to it."""
    async with system(**SHORT_LEASE) as on:
        session, early = await overtaken(on, "call:1 call:1 print:end", tools=TOOLS)
        await on.until(lambda: unanswered(on, session) == ["call_001"], "the call in the status")
        assert on.status(session)["pod"]["uid"] == early.pod_uid
        give(on, session, call_001={"value": "1"})
        await on.until(lambda: unanswered(on, session) == ["call_002"], "the second call")
        give(on, session, call_002={"value": "2"})
        ended = await on.ended(session)
        assert (ended["pod"]["uid"], ended["attempts"]) == (early.pod_uid, 1)
        assert ended["result"]["stdout"] == "1,2,end"
        assert set(early.given) == {"call_001", "call_002"}


async def test_a_stream_that_breaks_while_the_program_waits() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:1 call:1")
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        sidecar.refuse_results = [(503, Refusal("busy")), (502, Refusal("store_unavailable", input=0))]
        give(on, session, call_001={"value": "1"})
        await on.until(lambda: unanswered(on, session) == ["call_002"], "the second call")
        give(on, session, call_002={"value": "2"})
        assert (await on.ended(session))["result"]["stdout"] == "1,2,"


async def test_long_values_are_signed_for() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "store:9000")
        assert on.status(session)["toolCalls"]["call_001"] == {
            "name": "add",
            "inputRef": {"bytes": 9000, "sha256": "a" * 64},
        }
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.target is not None
        name = session["metadata"]["name"]
        slots = {slot.id: slot.url for slot in sidecar.target.call_slots}
        assert len(slots) == 200
        assert f"/kubecoderun/{name}/call_200.input?" in slots["call_200"]
        give(on, session, call_001={"valueRef": {"bytes": 20_000, "sha256": "b" * 64}})
        await on.until(lambda: "call_001" in sidecar.given, "the result")
        result = sidecar.given["call_001"]
        assert (result.bytes, result.sha256) == (20_000, "b" * 64)
        assert f"/kubecoderun/{name}/call_001.result?" in result.url
        await on.ended(session)


async def test_a_result_that_is_lost_becomes_an_error_of_its_call() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:2")
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        sidecar.refuse_results = [(422, Refusal("result_unavailable", "it does not exist", input=0))]
        lost = {"valueRef": {"bytes": 20_000, "sha256": "b" * 64}}
        give(on, session, call_001=lost, call_002={"value": "2"})
        ended = await on.ended(session)
        assert ended["result"]["stdout"] == "the result is not in the object store any more,2,"


async def test_cancel_while_the_program_waits() -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:1")
        on.cancel(session)
        ended = await on.ended(session)
        assert (ended["phase"], ended["reason"]) == ("Cancelled", "Cancelled")


async def test_the_bounds_of_waiting_reach_sidecar_and_node() -> None:
    async with system(tool_wait_seconds=7, all_tool_waits_seconds=70, running_after_seconds=0.05) as on:
        await on.start()
        on.pool()
        await on.ready(2)
        session = await begun(on, "call:1")
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.request is not None
        limits = sidecar.request.limits
        assert (limits.tool_wait_seconds, limits.all_tool_waits_seconds) == (7, 70)

        def deadlines() -> list[int]:
            return [pod["spec"].get("activeDeadlineSeconds", 0) for pod in on.pods("assigned")]

        await on.until(lambda: any(deadlines()), "a deadline of the pod")
        assert min(deadlines()) >= 30 + 70 + 120 + 60
        give(on, session, call_001={"value": "1"})
        await on.ended(session)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (["a-b", "a_b"], "the tools a-b and a_b would both be the function a_b"),
        (["日本"], "without any letter"),
    ],
)
async def test_tools_that_cannot_be_offered(tools: list[str], said: str) -> None:
    async with system() as on:
        await on.start()
        on.pool()
        await on.ready(2)
        ended = await on.ended(on.session("print:x", tools=tools))
        assert ended["reason"] == "InvalidRequest"
        assert said in ended["message"]

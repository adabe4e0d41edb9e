"""Idempotency keys of programs that call tools: one program and one answer, whichever front end is asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contract.fakes_api.apiserver import ended, succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, Json, System, beside, running
from kubecoderun_crds import names

PATH = "/exec/programmatic"
SECRET = "a-secret-of-all-front-ends"
TOOLS = [{"name": "add"}]
REQUEST_ID = "3f0f1c1a-6d0e-4a38-9a1f-0a0d1c1b2e3f"


@asynccontextmanager
async def two() -> AsyncIterator[tuple[System, System]]:
    """Two front ends before one cluster."""
    async with (
        running(idempotency_secret=SECRET) as first,
        beside(first, idempotency_secret=SECRET) as second,
    ):
        yield first, second


def post(system: System, body: Json, key: str | None = "k", **headers: str) -> asyncio.Task[Reply]:
    sent = {"X-API-Key": KEY, **({} if key is None else {"Idempotency-Key": key}), **headers}
    return asyncio.create_task(system.request("POST", PATH, body, sent))


def start(system: System, key: str = "k", **fields: Any) -> asyncio.Task[Reply]:
    return post(system, {"code": "x", "tools": TOOLS, **fields}, key)


def carry_on(
    system: System, asked: Json, value: Any = 3, call: str = "call_001", key: str | None = None
) -> asyncio.Task[Reply]:
    results = [{"call_id": call, "result": value, "is_error": False}]
    return post(system, {"continuation_token": asked["continuation_token"], "tool_results": results}, key)


def waiting(*ids: str) -> Json:
    calls = {id: {"name": "add", "input": json.dumps({"of": id})} for id in ids}
    return {"phase": "Running", "reason": "WaitingForTools", "toolCalls": calls}


async def given(system: System, name: str, call: str = "call_001") -> None:
    """Wait for the result of a call."""
    key = (names.SESSION_PLURAL, name)
    await system.api.until(lambda: call in system.api.objects[key]["spec"].get("toolResults", {}))


async def begun(system: System) -> tuple[str, Json]:
    """Start a program that waits for a call; the session's name and what the client is told."""
    reply = start(system)
    name = (await system.api.created())["metadata"]["name"]
    system.api.finish(name, waiting("call_001"))
    return name, (await reply).json


async def test_a_repeated_start_is_told_what_the_program_waits_for() -> None:
    async with two() as (first, second):
        calls = [start(first), start(first), start(second)]
        name = (await first.api.created())["metadata"]["name"]
        await asyncio.sleep(0.2)
        first.api.finish(name, waiting("call_001", "call_002"))
        told = [reply.json for reply in await asyncio.gather(*calls)]
        assert told[0] == told[1] == told[2], "the token is the same, too"
        assert [call["id"] for call in told[0]["tool_calls"]] == ["call_001", "call_002"]
        later = await start(second)
        assert later.json == told[0]
        assert later.headers["idempotency-replayed"] == "true"
        assert len(first.api.sessions()) == 1
        token = told[0]["continuation_token"]
        assert token.partition(".")[2] not in json.dumps(first.api.sessions())


async def test_a_repeated_start_while_the_program_goes_on_and_after_its_end() -> None:
    async with two() as (first, second):
        name, asked = await begun(first)
        reply = carry_on(second, asked)
        await given(first, name)
        again = start(first)
        await asyncio.sleep(0.1)
        assert not again.done(), "the program works"
        first.api.finish(name, waiting("call_001", "call_002"))
        assert (await again).json["tool_calls"] == (await reply).json["tool_calls"]
        reply = carry_on(first, asked, 4, "call_002")
        await given(first, name, "call_002")
        first.api.finish(name, succeeded("7\n"))
        final = (await reply).json
        assert (final["status"], final["stdout"]) == ("completed", "7\n")
        for system in (first, second):
            assert (await start(system)).json == final
        assert len(first.api.sessions()) == 1


@pytest.mark.parametrize(
    "changed", [{"code": "y"}, {"tools": [{"name": "other"}]}, {"timeout": 1000}], ids=str
)
async def test_another_program_with_the_key_is_refused(changed: dict[str, Any]) -> None:
    async with two() as (first, second):
        await begun(first)
        for system in (first, second):
            reply = await start(system, **changed)
            assert (reply.status, reply.json["error"]) == (409, "idempotency_key_reused")
        headers = {"X-API-Key": KEY, "Idempotency-Key": "k"}
        plain = await first.request("POST", "/exec", {"lang": "py", "code": "x"}, headers)
        assert plain.status == 409, "a program without tools is another one"
        assert len(first.api.sessions()) == 1


async def test_what_never_ran_may_be_started_again() -> None:
    async with two() as (first, second):
        first.api.answer = lambda session: ended("WaitExpired")
        assert (await start(first)).status == 429
        first.api.answer = lambda session: succeeded("later")
        assert (await start(second)).json["stdout"] == "later"


async def test_a_client_that_leaves_finds_its_program() -> None:
    async with two() as (first, second):
        async with first.connection() as connection:
            headers = {"X-API-Key": KEY, "Idempotency-Key": "k"}
            body = json.dumps({"code": "x", "tools": TOOLS}).encode()
            await connection.send("POST", PATH, body, headers)
            name = (await first.api.created())["metadata"]["name"]
        await first.api.until(lambda: first.metric("disconnects_total", action="cancel") == 1)
        again = start(second)
        await asyncio.sleep(0.05)
        first.api.finish(name, waiting("call_001"))
        asked = (await again).json
        body = json.dumps(
            {
                "continuation_token": asked["continuation_token"],
                "tool_results": [{"call_id": "call_001", "result": 3, "is_error": False}],
            }
        ).encode()
        async with first.connection() as connection:
            await connection.send("POST", PATH, body, {"X-API-Key": KEY})
            await given(first, name)
        await first.api.until(lambda: first.metric("disconnects_total", action="cancel") == 2)
        reply = carry_on(second, asked)
        await asyncio.sleep(0.05)
        first.api.finish(name, succeeded("3\n"))
        assert (await reply).json["stdout"] == "3\n"
        assert all("cancel" not in json.dumps(patch) for patch in first.api.patches)


async def test_results_may_be_brought_again_while_it_works_after_the_next_call_and_after_the_end() -> None:
    async with two() as (first, second):
        name, asked = await begun(first)
        reply = carry_on(first, asked)
        await given(first, name)
        first.api.finish(name, waiting("call_001", "call_002"))
        told = (await reply).json
        assert [call["id"] for call in told["tool_calls"]] == ["call_002"]
        for system in (first, second):
            assert (await carry_on(system, asked)).json == told, "after the next call"
        refused = await carry_on(second, asked, "another")
        assert (refused.status, "another result" in refused.json["message"]) == (400, True)
        reply = carry_on(first, asked, 4, "call_002")
        await given(first, name, "call_002")
        first.api.finish(name, succeeded("7\n"))
        final = (await reply).json
        for system in (first, second):
            for call, value in (("call_001", 3), ("call_002", 4)):
                assert (await carry_on(system, asked, value, call)).json == final, "after the end"


async def test_continuations_with_a_key_are_joined() -> None:
    async with two() as (first, _):
        name, asked = await begun(first)
        calls = [carry_on(first, asked, key="r") for _ in range(3)]
        await given(first, name)
        other = await carry_on(first, asked, 4, key="r")
        assert (other.status, other.json["error"]) == (409, "idempotency_key_reused")
        without = await carry_on(first, asked)
        assert (without.status, without.json["error"]) == (409, "continuation_in_flight")
        first.api.finish(name, succeeded("3\n"))
        told = [reply.json for reply in await asyncio.gather(*calls)]
        assert [one["stdout"] for one in told] == ["3\n"] * 3
        assert (await carry_on(first, asked, key="r")).json == told[0]


async def test_a_call_with_a_key_is_cancelled_by_its_id() -> None:
    async with two() as (first, _):
        body = {"code": "x", "tools": TOOLS}
        reply = post(first, body, **{"X-LibreChat-Code-Request-ID": REQUEST_ID})
        name = (await first.api.created())["metadata"]["name"]
        joined = post(first, body, **{"X-LibreChat-Code-Request-ID": REQUEST_ID})
        await asyncio.sleep(0.1)
        headers = {"X-API-Key": KEY}
        answer = await first.request("POST", f"{PATH}/cancel", {"request_id": REQUEST_ID}, headers)
        assert answer.status == 202
        key = (names.SESSION_PLURAL, name)
        await first.api.until(lambda: first.api.objects[key]["spec"].get("cancel") is True)
        assert (await reply).json["status"] == "error"
        first.api.finish(name, ended("Cancelled"))
        assert (await joined).status == 503


async def test_without_a_secret_keys_are_refused() -> None:
    async with running() as system:
        for reply in (
            start(system),
            carry_on(system, {"continuation_token": "a" * 21 + "." + "b" * 24}, key="k"),
        ):
            assert ((await reply).status, (await reply).json["error"]) == (400, "idempotency_unavailable")

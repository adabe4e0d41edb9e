"""Back-pressure as clients see it: 429 with the body they read, in time."""

import asyncio
from typing import Any

import pytest

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, System, running

FILE = f"{KEY}\nother-key tenant=other\n"


async def post(system: System, key: str = KEY, **fields: Any) -> Reply:
    return await system.request("POST", "/exec", {"lang": "py", "code": "x"} | fields, {"X-API-Key": key})


def refused(reply: Reply) -> bool:
    if reply.status != 429:
        return False
    assert reply.json["error"] == "rate_limited"
    assert reply.json["retry_after_seconds"] == int(reply.headers["retry-after"]) >= 1
    assert reply.json["message"]
    assert reply.headers["connection"] == "close"
    return True


@pytest.mark.parametrize(("replicas", "admitted"), [(1, 4), (2, 2)])
async def test_a_tenant_that_asks_too_often(replicas: int, admitted: int) -> None:
    settings = {"tenant_runs_per_minute": 1, "tenant_burst": 4, "limit_wait_seconds": 0, "replicas": replicas}
    async with running(**settings) as system:
        system.keys_file.write_text(FILE)
        system.api.answer = lambda session: succeeded()
        assert [refused(await post(system)) for _ in range(5)] == [False] * admitted + [True] * (5 - admitted)
        assert not refused(await post(system, "other-key")), "another tenant has its own"
        assert len(system.api.sessions()) == admitted + 1
        assert system.metric("runs_total", language="py", reason="TenantLimit") == 5 - admitted


async def test_a_tenant_with_too_many_open_runs() -> None:
    async with running(tenant_runs_at_once=1, limit_wait_seconds=0.05, retry_after_seconds=9) as system:
        system.keys_file.write_text(FILE)
        first = system.start_exec()
        made = await system.api.created()
        reply = await post(system)
        assert refused(reply)
        assert reply.json["retry_after_seconds"] == 9
        system.api.answer = lambda session: succeeded()
        assert (await post(system, "other-key")).status == 200
        system.api.finish(made["metadata"]["name"], succeeded())
        assert (await first).status == 200
        assert (await post(system)).status == 200


async def test_a_run_is_held_back_for_a_place_rather_than_refused() -> None:
    async with running(tenant_runs_at_once=1, limit_wait_seconds=1.5) as system:
        first = system.start_exec()
        made = await system.api.created()
        second = system.start_exec()
        system.api.answer = lambda session: succeeded("second")
        system.api.finish(made["metadata"]["name"], succeeded("first"))
        assert [(await one).json["stdout"] for one in (first, second)] == ["first", "second"]


async def test_programs_that_call_tools_are_runs_of_their_tenant() -> None:
    """They share the limit with other runs; bringing them results is no new one."""
    settings = {"tenant_runs_per_minute": 1, "tenant_burst": 1, "limit_wait_seconds": 0}
    async with running(**settings) as system:
        code = {"code": "print(await add(a=1))", "tools": [{"name": "add"}]}
        call = asyncio.create_task(system.request("POST", "/exec/programmatic", code, {"X-API-Key": KEY}))
        name = (await system.api.created())["metadata"]["name"]
        paused = {"phase": "Running", "reason": "WaitingForTools"}
        system.api.finish(name, {**paused, "toolCalls": {"call_001": {"name": "add", "input": "{}"}}})
        told = (await call).json
        again = await system.request("POST", "/exec/programmatic", code, {"X-API-Key": KEY})
        assert (again.status, again.json["error"]) == (429, "rate_limited")
        assert (await system.exec()).status == 429
        results = [{"call_id": "call_001", "result": 1, "is_error": False}]
        body = {"continuation_token": told["continuation_token"], "tool_results": results}
        go_on = asyncio.create_task(system.request("POST", "/exec/programmatic", body, {"X-API-Key": KEY}))
        await system.api.until(lambda: "toolResults" in system.api.sessions()[0]["spec"])
        system.api.finish(name, succeeded())
        assert (await go_on).json["status"] == "completed"

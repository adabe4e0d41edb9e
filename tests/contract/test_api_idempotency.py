"""The same idempotency key and request: one run and one result, whatever has happened."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contract.fakes_api.apiserver import ended, succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, System, beside, running

SECRET = "a-secret-of-all-front-ends"
FILE = f"{KEY}\nother-key tenant=other\n"


async def post(system: System, key: str = "k", *, credential: str = KEY, **fields: Any) -> Reply:
    headers = {"X-API-Key": credential, "Idempotency-Key": key}
    return await system.request("POST", "/exec", {"lang": "py", "code": "print(1)"} | fields, headers)


@asynccontextmanager
async def system_with_keys(**settings: Any) -> AsyncIterator[System]:
    async with running(idempotency_secret=SECRET, **settings) as system:
        yield system


async def test_a_repeated_request_gets_the_result_of_the_first() -> None:
    async with system_with_keys() as system:
        system.api.answer = lambda session: succeeded("one")
        first, second = await post(system), await post(system, user_id="u", unknown=1)
        assert first.json == second.json
        assert first.json["stdout"] == "one"
        assert "idempotency-replayed" not in first.headers
        assert second.headers["idempotency-replayed"] == "true"
        assert len(system.api.sessions()) == 1
        made = system.api.sessions()[0]
        assert first.json["session_id"] == made["metadata"]["name"]
        assert "k" not in made["metadata"]["annotations"].values()


@pytest.mark.parametrize("changed", [{"code": "print(2)"}, {"args": ["a"]}, {"timeout": 1000}])
async def test_another_request_with_the_key_is_refused(changed: dict[str, Any]) -> None:
    async with system_with_keys() as system:
        system.api.answer = lambda session: succeeded()
        await post(system)
        reply = await post(system, **changed)
        assert (reply.status, reply.json["error"]) == (409, "idempotency_key_reused")
        assert len(system.api.sessions()) == 1


async def test_other_keys_and_other_tenants_have_runs_of_their_own() -> None:
    async with system_with_keys() as system:
        system.keys_file.write_text(FILE)
        system.api.answer = lambda session: succeeded()
        replies = [await post(system), await post(system, "k2"), await post(system, credential="other-key")]
        replies += [await post(system, credential="other-key", code="print(2)", key="k3")]
        assert len({reply.json["session_id"] for reply in replies}) == 4


async def test_many_at_once_make_one_run() -> None:
    async with system_with_keys() as system:
        calls = [asyncio.create_task(post(system)) for _ in range(5)]
        other = asyncio.create_task(post(system, code="print(2)"))
        made = await system.api.created()
        await asyncio.wait([other, *calls], return_when=asyncio.FIRST_COMPLETED, timeout=5)
        system.api.finish(made["metadata"]["name"], succeeded("one"))
        replies = await asyncio.gather(*calls, other)
        stdout = [reply.json.get("stdout") for reply in replies if reply.status == 200]
        conflicts = [reply for reply in replies if reply.status == 409]
        assert len(system.api.sessions()) == 1
        assert (set(stdout), len(stdout) + len(conflicts)) == ({"one"}, 6)
        assert len(conflicts) in (1, 5)  # depending on which of the two requests came first


async def test_a_client_that_leaves_and_asks_again_finds_its_run() -> None:
    async with system_with_keys() as system:
        async with system.connection() as connection:
            headers = {"X-API-Key": KEY, "Idempotency-Key": "k"}
            await connection.send("POST", "/exec", b'{"lang":"py","code":"print(1)"}', headers)
            made = await system.api.created()
        await system.api.until(lambda: system.metric("disconnects_total", action="cancel") == 1)
        again = asyncio.create_task(post(system))
        await asyncio.sleep(0.05)
        assert not system.api.patches, "it must not be cancelled"
        system.api.finish(made["metadata"]["name"], succeeded("one"))
        assert (await again).json["stdout"] == "one"
        assert len(system.api.sessions()) == 1


async def test_through_another_front_end_at_the_same_time_and_after_a_restart() -> None:
    async with system_with_keys() as system:
        async with beside(system, idempotency_secret=SECRET) as second:
            calls = [asyncio.create_task(post(one)) for one in (system, second)]
            made = await system.api.created()
            system.api.finish(made["metadata"]["name"], succeeded("one"))
            assert [reply.json["stdout"] for reply in await asyncio.gather(*calls)] == ["one", "one"]
            assert (await post(second, code="print(2)")).status == 409
        async with beside(system, idempotency_secret=SECRET) as third:
            assert (await post(third)).json["stdout"] == "one"
        assert len(system.api.sessions()) == 1


async def test_a_run_outlives_the_front_end_that_began_it() -> None:
    async with system_with_keys() as system:
        async with beside(system, idempotency_secret=SECRET) as second:
            first = asyncio.create_task(post(second))
            made = await system.api.created()
            again = asyncio.create_task(post(system))
            second.services.stop()
            assert (await first).status == 503
        assert not system.api.patches, "it must not be cancelled"
        system.api.finish(made["metadata"]["name"], succeeded("one"))
        assert (await again).json["stdout"] == "one"


@pytest.mark.parametrize(("reason", "status", "runs"), [("WaitExpired", 429, 2), ("OOMKilled", 200, 1)])
async def test_what_never_ran_may_be_tried_again(reason: str, status: int, runs: int) -> None:
    async with system_with_keys() as system:
        system.api.answer = lambda session: ended(reason)
        first = await post(system)
        assert first.status == status
        system.api.answer = lambda session: succeeded("later")
        second = await post(system)
        assert system.api.requests["create executionsessions"] == runs
        assert second.json["stdout"] == ("later" if runs == 2 else "")


async def test_an_answer_that_was_lost_on_the_way_to_the_cluster() -> None:
    async with system_with_keys(cluster_attempt_seconds=0.3) as system:
        system.api.answer = lambda session: succeeded("one")
        system.api.swallow_posts = 1
        assert (await post(system)).json["stdout"] == "one"
        assert len(system.api.sessions()) == 1


async def test_keys_that_cannot_be_served() -> None:
    async with system_with_keys() as system:
        for key in ("", "k" * 256):
            assert (await post(system, key)).status == 400
    async with running() as system:
        reply = await post(system)
        assert (reply.status, reply.json["error"]) == (400, "idempotency_unavailable")

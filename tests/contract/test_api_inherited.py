"""Inputs that have not changed are told of again to clients that know what to do with it, whoever answers."""

import asyncio
from typing import Any

import pytest

from contract.fakes_api.apiserver import Json, ended, held, ran, succeeded
from contract.fakes_api.system import KEY, System, another, beside, running
from kubecoderun_crds import names

SESSIONS = names.SESSION_PLURAL
S, F = "s" * 13 + "session1", "s" * 13 + "file0001"
T, G = "t" * 13 + "session2", "t" * 13 + "file0002"
READ_ONLY = "s" * 13 + "file0003"
USER = {"id": F, "resource_id": "u1", "name": "a.csv", "storage_session_id": S, "kind": "user"}
SKILL = {
    "id": READ_ONLY,
    "resource_id": "s1",
    "name": "skills/x/SKILL.md",
    "storage_session_id": S,
    "kind": "skill",
    "version": 3,
}
OUTPUT = {"id": G, "name": "b.png", "storage_session_id": T, "session_id": T}
LEGACY = {"id": G, "name": "b.png", "session_id": T}


def furnish(system: System) -> None:
    entries = [
        {"id": F, "path": "a.csv", "bytes": 1},
        {"id": READ_ONLY, "path": "skills/x/SKILL.md", "bytes": 1, "readOnly": True},
    ]
    system.api.put(SESSIONS, held(S, *entries))
    system.api.put(SESSIONS, ran(T, {"id": G, "path": "b.png", "bytes": 2}))


def echo(reference: Json) -> Json:
    return reference | {"session_id": reference["storage_session_id"], "inherited": True}


def changed(session: Json, path: str = "a.csv") -> Json:
    id = session["metadata"]["name"][:13] + "00000001"
    return {"id": id, "path": path, "bytes": 9, "modifiedFrom": {"session": S, "id": F}}


async def test_unchanged_inputs_come_after_what_the_program_made() -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: succeeded(files=[changed(session, "new.csv")])
        files = (await system.exec(files=[USER, SKILL, OUTPUT])).json["files"]
        assert files[0]["name"] == "new.csv"
        assert files[1:] == [echo(USER), echo(SKILL), echo(OUTPUT)]


async def test_changed_and_removed_ones_do_not_but_read_only_ones_always() -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: succeeded(files=[changed(session)], deletedFiles=["b.png"])
        answer = (await system.exec(files=[USER, SKILL, OUTPUT])).json
        first, second = answer["files"]
        assert (first["name"], first["modified_from"]["id"]) == ("a.csv", F)
        assert "inherited" not in first, "never false"
        assert second == echo(SKILL)
        assert answer["deleted_files"] == ["b.png"]


async def test_old_references_are_never_told_of_again() -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: succeeded()
        old = {"id": F, "session_id": S, "name": "a.csv"}
        for files in ([old, LEGACY], [old | {"storage_session_id": ""}, LEGACY]):
            assert (await system.exec(files=files)).json["files"] == []
            assert not system.api.sessions()[-1]["metadata"].get("annotations")
        assert (await system.exec(files=[old, OUTPUT])).json["files"] == [echo(OUTPUT)]


async def test_a_wrong_session_is_put_right() -> None:
    async with running() as system:
        furnish(system)
        system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{T}/{G}"] = b"x"
        system.api.answer = lambda session: succeeded()
        answer = (await system.exec(files=[OUTPUT | {"storage_session_id": "z" * 21}])).json
        assert answer["files"] == [echo(OUTPUT)]


@pytest.mark.parametrize("reason", ["InputUnavailable", "PoolEmpty"])
async def test_what_has_not_run_tells_of_nothing(reason: str) -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: ended(reason)
        assert not (await system.exec(files=[USER])).json.get("files")


async def test_a_program_that_failed_leaves_its_inputs() -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: ended("TimeLimit", result={"signal": "SIGKILL"})
        assert (await system.exec(files=[USER])).json["files"] == [echo(USER)]


async def test_a_repeated_request_and_a_stored_answer_tell_the_same() -> None:
    secret: dict[str, Any] = {"idempotency_secret": "a-secret-of-all-front-ends"}
    async with running(**secret) as system, beside(system, **secret) as second:
        furnish(system)
        system.api.answer = lambda session: succeeded(files=[changed(session)])
        body = {"lang": "py", "code": "x", "files": [USER, SKILL, OUTPUT]}
        headers = {"X-API-Key": KEY, "Idempotency-Key": "k"}
        replies = [await each.request("POST", "/exec", body, headers) for each in (system, second)]
        assert replies[0].json == replies[1].json
        assert replies[0].json["files"][1:] == [echo(SKILL), echo(OUTPUT)]
        session = replies[0].json["session_id"]
        stored = await second.request("GET", f"/exec/{session}", b"", {"X-API-Key": KEY})
        assert stored.json["files"] == replies[0].json["files"]


async def test_a_run_that_was_handed_in_tells_it_too() -> None:
    async with running() as system:
        furnish(system)
        system.api.answer = lambda session: succeeded()
        body = {"lang": "py", "code": "x", "files": [USER]}
        headers = {"X-API-Key": KEY, "Prefer": "respond-async"}
        accepted = await system.request("POST", "/exec", body, headers)
        assert accepted.status == 202
        stored = await system.request("GET", accepted.json["result"], b"", {"X-API-Key": KEY})
        assert stored.json["files"] == [echo(USER)]


async def test_a_continuation_tells_it_at_another_replica() -> None:
    async with running(replica_uid="one") as first, another(first) as second:
        furnish(first)
        path, headers = "/exec/programmatic", {"X-API-Key": KEY}
        body: Json = {"code": "x", "tools": [{"name": "add"}], "files": [USER, SKILL]}
        reply = asyncio.create_task(first.request("POST", path, body, headers))
        name = (await first.api.created(3))["metadata"]["name"]
        calls = {"call_001": {"name": "add", "input": "{}"}}
        first.api.finish(name, {"phase": "Running", "toolCalls": calls})
        asked = (await reply).json
        assert "files" not in asked
        results = [{"call_id": "call_001", "result": 1, "is_error": False}]
        body = {"continuation_token": asked["continuation_token"], "tool_results": results}
        reply = asyncio.create_task(second.request("POST", path, body, headers))
        session = first.api.objects
        await first.api.until(lambda: bool(session[SESSIONS, name]["spec"].get("toolResults")))
        first.api.finish(name, succeeded())
        told = (await reply).json
        assert (told["status"], told["files"]) == ("completed", [echo(USER), echo(SKILL)])

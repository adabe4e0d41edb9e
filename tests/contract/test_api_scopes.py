"""What was uploaded for an agent, or for a version of a skill, is found by that and not by another one."""

import json
from typing import Any

import pytest

from contract.fakes_api import forms
from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.forms import form
from contract.fakes_api.system import KEY, Json, System, running

HEADERS = {"X-API-Key": KEY}
SKILL = {"kind": "skill", "id": "6650:a_b", "version": "1"}
AGENT = {"kind": "agent", "id": "agent_A"}


async def upload(system: System, path: str = "/upload", **fields: str) -> Json:
    """A reference to a new file, as clients that know of kinds keep it."""
    texts = [forms.text(name, value) for name, value in fields.items()]
    body = form(*texts, forms.file("in.csv", b"1,2"))
    reply = await system.request("POST", path, body, HEADERS | {"Content-Type": forms.TYPE})
    assert reply.status == 200, reply.raw
    return {
        "id": reply.json["files"][0]["fileId"],
        "name": "in.csv",
        "storage_session_id": reply.json["storage_session_id"],
    }


def scoped(reference: Json, kind: str, id: str, version: Any = None) -> Json:
    made = reference | {"kind": kind, "resource_id": id}
    return made if version is None else made | {"version": version}


async def runs_with(system: System, reference: Json) -> bool:
    """Whether a program gets the file."""
    system.api.answer = lambda session: succeeded("ran")
    count = len(system.api.sessions())
    reply = await system.exec(files=[reference])
    assert reply.status == 200, reply.raw
    if reply.json["stdout"] == "ran":
        return True
    assert "in.csv does not exist, or not any more" in reply.json["stderr"]
    assert len(system.api.sessions()) == count, "nothing was run"
    return False


@pytest.mark.parametrize("path", ["/upload", "/upload/batch"])
async def test_the_session_of_an_upload_says_what_it_is_for(path: str) -> None:
    async with running() as system:
        await upload(system, path, **SKILL)
        metadata = system.api.sessions()[-1]["metadata"]
        labels = {name.partition("/")[2]: value for name, value in metadata["labels"].items()}
        assert (labels["kind"], labels["version"]) == ("skill", "1")
        assert labels["resource"].startswith("x-"), "labels refuse a colon"
        assert metadata["annotations"] == {"kubecoderun.io/resource": "6650:a_b"}
        await upload(system, path, **AGENT)
        labels = system.api.sessions()[-1]["metadata"]["labels"]
        assert labels["kubecoderun.io/resource"] == "agent_A"
        assert "kubecoderun.io/version" not in labels
        await upload(system, path)
        assert "kubecoderun.io/kind" not in system.api.sessions()[-1]["metadata"]["labels"]
        await upload(system, path, kind="user", id="someone:else")
        assert "someone" not in json.dumps(system.api.sessions()[-1])


async def test_a_file_tells_what_it_is_for() -> None:
    async with running() as system:
        skill, agent, user = (
            await upload(system, **SKILL),
            await upload(system, **AGENT),
            await upload(system, kind="user", id="u1"),
        )
        for reference, said in (
            (skill, {"kind": "skill", "resource_id": "6650:a_b", "version": 1}),
            (agent, {"kind": "agent", "resource_id": "agent_A"}),
            (user, {"kind": "user"}),
            (await upload(system), {}),
        ):
            session = reference["storage_session_id"]
            told = await system.request("GET", f"/sessions/{session}/objects/{reference['id']}", b"", HEADERS)
            listed = await system.request("GET", f"/files/{session}?detail=normalized", b"", HEADERS)
            for found in (told.json, listed.json[0]):
                keys = ("kind", "resource_id", "version")
                assert {key: found[key] for key in keys if key in found} == said


@pytest.mark.parametrize(
    ("upload_for", "said", "found"),
    [
        (SKILL, ("skill", "6650:a_b", 1), True),
        (SKILL, ("skill", "6650:a_b", "1"), True),
        (SKILL, ("skill", "6650:a_b", 2), False),
        (SKILL, ("skill", "6650:a_c", 1), False),
        (SKILL, ("agent", "6650:a_b"), False),
        (SKILL, ("user", "u1"), True),
        (AGENT, ("agent", "agent_A"), True),
        (AGENT, ("agent", "agent_B"), False),
        (AGENT, ("skill", "agent_A", 1), False),
        ({"kind": "user", "id": "u1"}, ("agent", "agent_A"), False),
        ({"kind": "user", "id": "u1"}, ("user", "a-file-id"), True),
        ({"entity_id": "agent_A"}, ("agent", "agent_B"), True),
        ({}, ("skill", "6650:a_b", 7), True),
    ],
    ids=str,
)
async def test_references_mean_what_they_were_uploaded_for(
    upload_for: dict[str, str], said: tuple[Any, ...], found: bool
) -> None:
    async with running() as system:
        reference = await upload(system, **upload_for)
        session, file = reference["storage_session_id"], reference["id"]
        assert await runs_with(system, scoped(reference, *said)) is found
        wrong_session = {**scoped(reference, *said), "storage_session_id": "z" * 21}
        assert await runs_with(system, wrong_session) is found, "also when it is looked for by its id"
        assert await runs_with(system, {"id": file, "session_id": session, "name": "in.csv"}), "legacy"
        query = "&".join(f"{key}={text}" for key, text in zip(("kind", "id", "version"), said, strict=False))
        status = 200 if found else 404
        for path in (f"/sessions/{session}/objects/{file}", f"/download/{session}/{file}"):
            for method in ("GET", "HEAD"):
                reply = await system.request(method, f"{path}?{query}", b"", HEADERS)
                assert reply.status == status, (method, path)
        listed = await system.request("GET", f"/files/{session}?{query}", b"", HEADERS)
        assert len(listed.json) == int(found)
        reply = await system.request("DELETE", f"/files/{session}/{file}?{query}", b"", HEADERS)
        assert reply.status == status
        reply = await system.request("GET", f"/download/{session}/{file}", b"", HEADERS)
        assert reply.status == (404 if found else 200), "what does not exist cannot be deleted either"


async def test_outputs_may_be_called_anybodys() -> None:
    """Sessions of runs keep nothing about it, so whatever clients say of outputs is right."""
    async with running() as system:
        reference = await upload(system, **AGENT)
        system.api.answer = lambda session: succeeded(
            files=[{"id": session["metadata"]["name"], "path": "in.csv", "bytes": 1}], fileCount=1
        )
        made = (await system.exec(files=[scoped(reference, "agent", "agent_A")])).json["files"][0]
        assert await runs_with(system, scoped(made, "user", made["id"]))
        assert await runs_with(system, scoped(made, "agent", "agent_A"))

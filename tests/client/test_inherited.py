"""Unchanged inputs that an answer names again, through real clients against a real front end: the new ones
attach them to the next call with their own session, the old ones are never told."""

import asyncio
from operator import attrgetter
from typing import Any

import pytest

from client.conftest import Install
from client.node_program import run_node
from client.packages import GENERATIONS, HTTP, Generation
from contract.fakes_api.apiserver import Json, held, ran, succeeded
from contract.fakes_api.system import KEY, running
from kubecoderun_crds import names

S, F, SKILL = "s" * 13 + "session1", "s" * 13 + "file0001", "s" * 13 + "file0002"
T, G = "t" * 13 + "session2", "t" * 13 + "file0003"
NEW = [each for each in GENERATIONS if each.agents in ("3.2.57", "3.9.2")]
OLD = [each for each in GENERATIONS if each.agents in ("2.4.85", "3.1.63")]
FILES: dict[str, tuple[str, str, Json]] = {
    "a.csv": (S, F, {"kind": "user", "resource_id": "user-1"}),
    "skills/x/SKILL.md": (S, SKILL, {"kind": "skill", "resource_id": "s1", "version": 3}),
    "b.png": (T, G, {"kind": "user", "resource_id": G}),
}


def attached(generation: Generation) -> list[Json]:
    """The files as a host of that time gives them to the client."""
    if generation.reference == "session_id":
        return [{"id": id, "session_id": session, "name": name} for name, (session, id, _) in FILES.items()]
    return [
        {"id": id, "storage_session_id": session, "name": name, **scope}
        for name, (session, id, scope) in FILES.items()
    ]


def changing(session: Json) -> Json:
    """The first program makes a file, the second one changes a.csv, the third one does nothing."""
    name, code = session["metadata"]["name"], session["spec"]["request"]["code"]
    made = {"id": f"{name[:13]}00000001", "path": "new.txt", "bytes": 1}
    if "print(0)" in code:
        return succeeded(files=[made])
    if "print(1)" in code:
        origin = {"session": S, "id": F}
        return succeeded(files=[made | {"path": "a.csv", "modifiedFrom": origin}])
    return succeeded()


async def play(generation: Generation, folders: dict[str, str]) -> tuple[Any, list[Json]]:
    """What the client tells, and the sessions of the three runs."""
    async with running() as system:
        skill = {"id": SKILL, "path": "skills/x/SKILL.md", "bytes": 1, "readOnly": True}
        system.api.put(names.SESSION_PLURAL, held(S, {"id": F, "path": "a.csv", "bytes": 1}, skill))
        system.api.put(names.SESSION_PLURAL, ran(T, {"id": G, "path": "b.png", "bytes": 2}))
        system.api.answer = changing
        order = {
            "base": f"http://127.0.0.1:{system.port}",
            "key": KEY,
            "axios": f"axios-{generation.axios}",
            "style": generation.style,
            "files": attached(generation),
            "carrier": "ToolNode" if generation.carrier == "ToolNode" else "host",
            **folders,
        }
        told = await asyncio.to_thread(run_node, "inherited.cjs", order)
        return told, system.api.sessions()[2:]


def folders_of(install: Install, generation: Generation) -> dict[str, str]:
    return {"http": str(install(HTTP)), "agents": str(install(generation.packages))}


def inputs(run: Json) -> dict[str, tuple[str, str]]:
    """Session and id of each input by its name."""
    return {one["path"]: (one["session"], one["id"]) for one in run["spec"]["request"]["inputs"]}


@pytest.mark.parametrize("generation", NEW, ids=attrgetter("agents"))
async def test_an_unchanged_input_is_attached_again_with_its_own_session(
    install: Install, generation: Generation
) -> None:
    told, runs = await play(generation, folders_of(install, generation))
    first, second, third = (inputs(run) for run in runs)
    assert first == {name: (session, id) for name, (session, id, _) in FILES.items()}
    made = runs[0]["metadata"]["name"]
    assert second == first | {"new.txt": (made, f"{made[:13]}00000001")}
    changed = runs[1]["metadata"]["name"]
    assert third == second | {"a.csv": (changed, f"{changed[:13]}00000001")}
    echoed = [{file["name"] for file in call["files"] if file.get("inherited")} for call in told["told"]]
    assert echoed == [set(FILES), {"skills/x/SKILL.md", "b.png", "new.txt"}, set(third)]
    kept = {file["name"]: file for file in told["kept"]}
    for name, (session, id, scope) in FILES.items():
        if name != "a.csv":
            expected = {"id": id, "storage_session_id": session, **scope}
            assert {key: kept[name].get(key) for key in expected} == expected


@pytest.mark.parametrize("generation", OLD, ids=attrgetter("agents"))
async def test_old_clients_are_never_told_and_attach_what_they_had(
    install: Install, generation: Generation
) -> None:
    told, runs = await play(generation, folders_of(install, generation))
    assert [[file["name"] for file in call["files"]] for call in told["told"]] == [["new.txt"], ["a.csv"], []]
    assert not any(file.get("inherited") for call in told["told"] for file in call["files"])
    for name in ("skills/x/SKILL.md", "b.png"):
        session, id, _ = FILES[name]
        assert all(inputs(run)[name] == (session, id) for run in runs)

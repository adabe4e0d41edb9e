"""POST /exec with files: which ones are meant, what becomes of those that are missing, and what comes out."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.fakes_api.apiserver import Json, ended, held, ran, succeeded
from contract.fakes_api.forms import TYPE, file, form
from contract.fakes_api.system import KEY, System, running
from kubecoderun_crds import names
from kubecoderun_crds.session import SessionSpec

SESSIONS = names.SESSION_PLURAL
S = "s" * 13 + "session1"
T = "t" * 13 + "session2"
F = "s" * 13 + "file0001"
G = "t" * 13 + "file0002"
FAR = "2099-01-01T00:00:00Z"


async def system_with_files(system: System) -> None:
    """Two sessions with a file each: an upload that is read-only, and the output of a run."""
    system.api.put(SESSIONS, held(S, {"id": F, "path": "a.csv", "bytes": 1, "readOnly": True}, expiresAt=FAR))
    system.api.put(SESSIONS, ran(T, {"id": G, "path": "b.png", "bytes": 2}, expiresAt=FAR))
    for session, stored in ((S, F), (T, G)):
        system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{session}/{stored}"] = b"x"
    system.api.answer = lambda session: succeeded("ran\n")


def inputs(system: System) -> list[Json]:
    """Of the session that was created last."""
    spec = system.api.sessions()[-1]["spec"]
    SessionSpec.model_validate(spec)
    request = spec["request"]
    assert request["code"] == "print(1)"
    return request.get("inputs", [])


SHAPES: dict[str, Json] = {
    "first": {"id": F, "session_id": S, "name": "in/a.csv"},
    "latest": {
        "id": F,
        "resource_id": "user-1",
        "name": "in/a.csv",
        "storage_session_id": S,
        "kind": "user",
    },
    "skill": {
        "id": F,
        "resource_id": "skill-1",
        "name": "in/a.csv",
        "storage_session_id": S,
        "kind": "skill",
        "version": 3,
    },
    "both": {"id": F, "storage_session_id": S, "session_id": T, "name": "in/a.csv"},
    "an empty newer one": {"id": F, "storage_session_id": "", "session_id": S, "name": "in/a.csv"},
    "echoed": {"id": F, "session_id": S, "name": "in/a.csv", "path": "/in/a.csv", "inherited": True},
}


@pytest.mark.parametrize("generation", SHAPES)
async def test_references_of_all_generations(generation: str) -> None:
    async with running() as system:
        await system_with_files(system)
        before = system.api.requests.copy()
        reply = await system.exec(files=[SHAPES[generation]])
        assert (reply.status, reply.json["stdout"]) == (200, "ran\n")
        new = generation in ("latest", "skill", "both")
        assert [entry["id"] for entry in reply.json["files"]] == ([F] if new else [])
        assert inputs(system) == [{"path": "in/a.csv", "session": S, "id": F, "readOnly": True}]
        assert system.api.requests - before == {f"get {SESSIONS}": 1, f"create {SESSIONS}": 1}
        assert system.store.asked == {}
        assert system.metric("input_references_total", how="exact") == 1


WRONG: dict[str, Json] = {
    "another session": {"id": G, "session_id": S, "name": "b.png"},
    "a session that is gone": {"id": G, "session_id": "x" * 21, "name": "b.png"},
    "no session": {"id": G, "name": "b.png"},
    "null": {"id": G, "session_id": None, "storage_session_id": None, "name": "b.png"},
    "somebody else's id": {"id": G, "session_id": "V1StGXR8_Z5jdHi6B-myT", "name": "b.png"},
    "nonsense": {"id": G, "session_id": "../../etc", "name": "b.png"},
}


@pytest.mark.parametrize("what", WRONG)
async def test_the_right_id_is_enough(what: str) -> None:
    async with running() as system:
        await system_with_files(system)
        assert (await system.exec(files=[WRONG[what]])).json["stdout"] == "ran\n"
        assert inputs(system) == [{"path": "b.png", "session": T, "id": G}]
        assert system.store.asked == {"list": 1}
        assert system.store.queries[0]["prefix"] == f"kubecoderun/kubecoderun/{G[:13]}"
        assert system.metric("input_references_total", how="prefix") == 1


async def test_many_files_of_one_session_cost_one_read_and_one_list() -> None:
    async with running() as system:
        entries = [{"id": f"{T[:13]}{n:08}", "path": f"f{n}", "bytes": 1} for n in range(100)]
        system.api.put(SESSIONS, held(T, *entries, expiresAt=FAR))
        for entry in entries:
            system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{T}/{entry['id']}"] = b"x"
        system.api.answer = lambda session: succeeded()
        files = [{"id": e["id"], "session_id": S, "name": e["path"]} for e in entries]
        assert (await system.exec(files=files)).status == 200
        assert [(one["path"], one["session"]) for one in inputs(system)] == [(e["path"], T) for e in entries]
        assert system.store.asked == {"list": 1}
        assert system.api.requests[f"get {SESSIONS}"] == 2


async def test_of_one_name_the_last_counts() -> None:
    async with running() as system:
        await system_with_files(system)
        files = [
            {"id": F, "session_id": S, "name": "x"},
            {"id": F, "session_id": S, "name": "y"},
            {"id": G, "session_id": T, "name": "x"},
        ]
        await system.exec(files=files)
        assert [(one["path"], one["id"]) for one in inputs(system)] == [("y", F), ("x", G)]


@pytest.mark.parametrize("value", [None, []])
async def test_no_files(value: Any) -> None:
    async with running() as system:
        await system_with_files(system)
        assert (await system.exec(files=value)).json["stdout"] == "ran\n"
        assert "inputs" not in system.api.sessions()[-1]["spec"]["request"]


GOOD = {"id": F, "session_id": S, "name": "a"}
REFUSED: list[tuple[Any, str]] = [
    ("a", "files must be an array"),
    ({"id": F}, "files must be an array"),
    ([GOOD, "a"], "files[1] must be an object"),
    ([{"session_id": S, "name": "a"}], "files[0].id is invalid"),
    ([GOOD | {"id": 5}], "files[0].id is invalid"),
    ([GOOD | {"id": ""}], "files[0].id is invalid"),
    ([GOOD | {"id": "x" * 129}], "files[0].id is invalid"),
    ([GOOD | {"session_id": 5}], "files[0].session_id is invalid"),
    ([GOOD | {"storage_session_id": []}], "files[0].storage_session_id is invalid"),
    ([{"id": F, "session_id": S}], "files[0].name must be a string"),
    ([GOOD | {"name": 5}], "files[0].name must be a string"),
    ([GOOD | {"name": ""}], "files[0].name is empty"),
    ([GOOD | {"name": "../a"}], "files[0].name has a part that is . or .."),
    ([GOOD | {"name": "/a"}], "files[0].name is not relative"),
    ([GOOD | {"name": "a\\b"}], "files[0].name has a backslash"),
    ([GOOD | {"name": "a/"}], "files[0].name ends with a slash"),
    ([GOOD | {"name": "\ud800"}], "files[0].name has control or invisible characters"),
    ([GOOD, GOOD | {"name": "a/b"}], "files names one path both as a file and as a directory"),
    ([GOOD | {"name": "a/b/c"}, GOOD | {"name": "a"}], "files names one path both as a file"),
    ([GOOD | {"name": f"f{n}"} for n in range(257)], "files has more than 256 different names"),
    ([GOOD] * 1025, "files has more than 1024 elements"),
]


async def test_references_that_make_no_sense() -> None:
    async with running() as system:
        await system_with_files(system)
        before = len(system.api.sessions())
        for value, text in REFUSED:
            reply = await system.exec(files=value)
            assert (reply.status, reply.json["error"]) == (400, "invalid_request"), text
            assert reply.json["message"].startswith(text)
        assert len(system.api.sessions()) == before


async def test_as_many_names_as_allowed() -> None:
    async with running() as system:
        await system_with_files(system)
        await system.exec(files=[GOOD | {"name": f"f{n % 256}"} for n in range(1024)])
        assert len(inputs(system)) == 256


MISSING: dict[str, tuple[Json, str]] = {
    "an id nobody has": ({"id": "s" * 13 + "unknown1", "session_id": S, "name": "q.csv"}, "not any more"),
    "an id of another service": (
        {"id": "V1StGXR8_Z5jdHi6B-myT", "session_id": "V1StGXR8_Z5jdHi6B-my2", "name": "q.csv"},
        "not any more",
    ),
    "a file that was deleted": ({"id": F, "session_id": S, "name": "q.csv"}, "was deleted"),
    "a file that was deleted, by its id": ({"id": F, "name": "q.csv"}, "was deleted"),
    "a session that has expired": ({"id": G, "session_id": T, "name": "q.csv"}, "not any more"),
}


@pytest.mark.parametrize("what", MISSING)
async def test_a_missing_file_is_text_for_the_model_and_nothing_runs(what: str) -> None:
    reference, why = MISSING[what]
    async with running() as system:
        await system_with_files(system)
        for session, change in ((S, {"removedFiles": [F]}), (T, {"expiresAt": "2020-01-01T00:00:00Z"})):
            resource = json.loads(json.dumps(system.api.objects[SESSIONS, session]))
            resource["spec"] |= change
            system.api.put(SESSIONS, resource)
        before = system.api.requests[f"create {SESSIONS}"]
        reply = await system.exec(files=[{"id": "x" * 21, "name": "other"}, reference])
        assert reply.status == 200
        answer = reply.json
        assert len(answer["session_id"]) == 21
        assert (answer["stdout"], answer["files"], answer["code"], answer["status"]) == ("", [], None, None)
        first, *lines = answer["stderr"].splitlines()
        assert first == f"[kubecoderun] {answer['message']}"
        assert "was not run: 2 input files are not available" in first
        assert lines[0].startswith("[kubecoderun] Input file other does not exist")
        assert lines[1].startswith("[kubecoderun] Input file q.csv ")
        assert why in lines[1]
        assert system.api.requests[f"create {SESSIONS}"] == before
        assert system.metric("runs_total", language="py", reason="InputUnavailable") == 1
        assert system.metric("input_references_total", how="missing") == 2
        assert reply.headers.get("connection") != "close"


async def test_one_missing_file_among_good_ones_keeps_the_program_from_running() -> None:
    async with running() as system:
        await system_with_files(system)
        files = [GOOD, {"id": "x" * 21, "session_id": S, "name": "gone.csv"}]
        reply = await system.exec(files=files)
        assert "an input file is not available" in reply.json["stderr"]
        assert "gone.csv" in reply.json["stderr"]
        assert len(system.api.sessions()) == 2
        await asyncio.sleep(0.05)
        assert system.api.requests[f"patch {SESSIONS}"] == 0


async def test_many_missing_files_are_counted() -> None:
    async with running() as system:
        reply = await system.exec(files=[{"id": "x" * 21, "name": f"f{n}"} for n in range(25)])
        lines = reply.json["stderr"].splitlines()
        assert len(lines) == 12
        assert lines[-1] == "[kubecoderun] And 15 more."


async def test_bytes_found_missing_later_read_the_same_way() -> None:
    async with running() as system:
        await system_with_files(system)
        system.api.answer = lambda session: ended(
            "InputUnavailable", message="The input file a.csv cannot be used: its bytes are missing."
        )
        reply = await system.exec(files=[GOOD])
        assert reply.status == 200
        assert reply.json["stderr"].splitlines() == [
            "[kubecoderun] The program was not run: an input file is not available.",
            "[kubecoderun] The input file a.csv cannot be used: its bytes are missing.",
        ]
        assert reply.json["session_id"] == system.api.sessions()[-1]["metadata"]["name"]


async def test_a_cluster_or_a_store_that_is_away_gets_503() -> None:
    async with running(store_seconds=0.3) as system:
        await system_with_files(system)
        system.api.get_statuses = [500, 503]
        assert (await system.exec(files=[GOOD])).json["stdout"] == "ran\n"
        system.api.get_statuses = [403]
        reply = await system.exec(files=[GOOD])
        assert (reply.status, reply.json["error"]) == (503, "cluster_unavailable")
        system.store.fail = lambda operation: 503
        reply = await system.exec(files=[{"id": G, "session_id": S, "name": "b"}])
        assert (reply.status, reply.json["error"]) == (503, "store_unavailable")
        assert (await system.exec(files=[GOOD])).json["stdout"] == "ran\n"


async def test_a_slow_look_up_is_covered_by_the_heartbeat() -> None:
    async with running(heartbeat_after_seconds=0.2, heartbeat_every_seconds=0.1) as system:
        await system_with_files(system)
        system.store.open.clear()
        task = system.start_exec(files=[{"id": G, "session_id": S, "name": "b"}])
        await asyncio.sleep(0.5)
        system.store.open.set()
        reply = await task
        assert reply.spaces
        assert reply.json["stdout"] == "ran\n"


async def test_an_upload_goes_into_a_run_and_its_output_into_the_next() -> None:
    async with running() as system:
        headers = {"X-API-Key": KEY, "Content-Type": TYPE}
        upload = (await system.request("POST", "/upload", form(file("d/a.csv")), headers)).json
        stored = upload["files"][0]
        task = system.start_exec(
            files=[{"id": stored["fileId"], "session_id": upload["session_id"], "name": stored["filename"]}]
        )
        run = await system.api.created(2)
        assert run["spec"]["request"]["inputs"] == [
            {"path": "d/a.csv", "session": upload["session_id"], "id": stored["fileId"]}
        ]
        name = run["metadata"]["name"]
        output = {
            "id": name[:13] + "output01",
            "path": "d/a.csv",
            "bytes": 5,
            "modifiedFrom": {"session": upload["session_id"], "id": stored["fileId"]},
        }
        status = succeeded(files=[output], fileCount=1, timings={"completed": "2026-01-01T00:00:00.5Z"})
        system.api.finish(name, status)
        answer = (await task).json
        assert answer["session_id"] == name
        assert answer["files"] == [
            {
                "id": output["id"],
                "name": "d/a.csv",
                "storage_session_id": name,
                "session_id": name,
                "modified_from": {"id": stored["fileId"], "storage_session_id": upload["session_id"]},
            }
        ]
        system.api.answer = lambda session: succeeded("next")
        assert (await system.exec(files=answer["files"])).json["stdout"] == "next"
        assert inputs(system) == [{"path": "d/a.csv", "session": name, "id": output["id"]}]


FAILED = {
    "exit code": {"phase": "Failed", "reason": "NonZeroExit"},
    "time limit": {"phase": "TimedOut", "reason": "TimeLimit"},
    "memory": {"phase": "Failed", "reason": "OOMKilled"},
    "cancelled": {"phase": "Cancelled", "reason": "Cancelled"},
    "signal": {"phase": "Failed", "reason": "Signalled"},
}


@pytest.mark.parametrize("how", FAILED)
async def test_files_of_a_program_that_failed_are_handed_out(how: str) -> None:
    async with running() as system:
        entry = {"id": F, "path": "partial.csv", "bytes": 1}
        system.api.answer = lambda session: succeeded(files=[entry], **FAILED[how])
        reply = await system.exec()
        assert reply.status == 200
        assert [made["name"] for made in reply.json["files"]] == ["partial.csv"]
        assert reply.json["files"][0]["storage_session_id"] == reply.json["session_id"]


async def test_files_that_were_not_kept_are_told_in_stderr() -> None:
    async with running() as system:
        skipped = [
            {"path": "big.bin", "reason": "size"},
            {"path": "x/y.csv", "reason": "count"},
            {"path": "odd", "reason": "something new"},
        ]
        system.api.answer = lambda session: succeeded("out\n", skippedFiles=skipped, skippedFileCount=7)
        reply = await system.exec()
        assert reply.json["stderr"] == (
            "[kubecoderun] 7 new or changed files not kept: big.bin (too big), x/y.csv (too many files), "
            "odd (something new), and 4 more.\n"
        )
        assert (reply.json["message"], reply.json["status"], reply.json["code"]) == (None, None, 0)


@pytest.mark.parametrize(
    ("expires", "moved"), [(timedelta(hours=8.9), True), (timedelta(hours=9.1), False), (None, True)]
)
async def test_sessions_whose_files_are_used_live_on(expires: timedelta | None, moved: bool) -> None:
    async with running(files_ttl_seconds=36_000) as system:
        await system_with_files(system)
        resource = held(S, {"id": F, "path": "a.csv", "bytes": 1})
        # how old it is does not matter, before files_max_seconds
        created = datetime.now(UTC) - timedelta(days=20)
        resource["metadata"]["creationTimestamp"] = created.strftime("%Y-%m-%dT%H:%M:%SZ")
        if expires is not None:
            resource["spec"]["expiresAt"] = (datetime.now(UTC) + expires).strftime("%Y-%m-%dT%H:%M:%SZ")
        system.api.put(SESSIONS, resource)
        await system.exec(files=[GOOD, GOOD | {"name": "again"}, {"id": G, "session_id": T, "name": "b"}])
        await system.api.until(lambda: not system.services.chores._tasks)
        assert system.api.requests[f"patch {SESSIONS}"] == int(moved)
        if moved:
            end = datetime.fromisoformat(system.api.objects[SESSIONS, S]["spec"]["expiresAt"])
            assert abs(end - datetime.now(UTC) - timedelta(hours=10)) < timedelta(seconds=30)


async def test_moving_an_end_does_not_hold_up_the_run() -> None:
    async with running() as system:
        await system_with_files(system)
        system.api.put(SESSIONS, held(S, {"id": F, "path": "a.csv", "bytes": 1}))
        moving = asyncio.Event()
        system.services.lifetimes._cluster.merge_session = lambda *_: moving.wait()  # type: ignore[method-assign]
        assert (await system.exec(files=[GOOD])).json["stdout"] == "ran\n"
        moving.set()

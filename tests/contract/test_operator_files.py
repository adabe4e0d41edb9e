"""Files of sessions: held, given to runs, and left by runs."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from contract.fakes.apiserver import Fault
from contract.fakes.system import NAMESPACE, SHORT_LEASE, System, operating, system
from kubecoderun_crds import names
from kubecoderun_sidecar.protocol import PrepareRequest, Refusal

PREFIX = f"kubecoderun/kubecoderun/{NAMESPACE}"


def name_of(session: dict[str, Any]) -> str:
    return str(session["metadata"]["name"])


def first_file(session: dict[str, Any]) -> str:
    return str(session["spec"]["request"]["files"][0]["id"])


def given(session: dict[str, Any], path: str = "data.csv", **more: Any) -> dict[str, Any]:
    """An input: the first file of a session that holds files."""
    return {"path": path, "session": name_of(session), "id": first_file(session), **more}


def delivered(on: System, session: dict[str, Any]) -> PrepareRequest:
    """What the sidecar of a session was given."""
    (sidecar,) = on.node.of_session(session["metadata"]["uid"])
    assert sidecar.request is not None
    return sidecar.request


# --- held ---------------------------------------------------------------------------------------------


async def test_files_are_held_at_once_and_without_a_pool() -> None:
    async with operating() as on:
        mark = len(on.api.log)
        session = on.files(
            {"id": "a" * 21, "path": "a", "bytes": 1}, {"id": "b" * 21, "path": "b", "bytes": 2}
        )
        status = await on.ended(session, seconds=2)
        assert (status["phase"], status["reason"], status["fileCount"]) == ("Held", "FilesHeld", 2)
        assert status["timings"]["completed"]
        assert [entry["type"] for entry in status["conditions"]] == ["Completed"]
        assert [(entry.verb, entry.resource) for entry in on.api.writes(since=mark)] == [
            ("patch", "executionsessions/status")
        ]


async def test_held_sessions_are_no_work_for_the_next_operator() -> None:
    async with system() as on:
        first = await on.start()
        session = on.files()
        await on.ended(session)
        await on.stop(first)
        mark = len(on.api.log)
        late = on.files()
        await on.start()
        assert (await on.ended(late))["phase"] == "Held"
        await asyncio.sleep(0.2)
        patched = [
            entry.name for entry in on.api.writes(since=mark) if entry.resource.startswith("executions")
        ]
        assert patched == [name_of(late)]


async def test_held_files_outlive_ended_runs() -> None:
    """Without a time of its own a session with files is kept longer."""
    async with operating(ttl_seconds=0, files_ttl_seconds=60) as on:
        held, gone = on.files(), on.session("print:x", pool="none")
        await on.ended(held)
        await on.until(
            lambda: (NAMESPACE, name_of(gone)) not in on.api.store.collections[names.SESSION_PLURAL].objects,
            "the run is deleted",
        )
        assert on.status(held)["phase"] == "Held"


async def test_runs_with_files_are_kept_as_their_pool_says() -> None:
    async with operating() as on:
        on.pool(sessionDefaults={"ttlSecondsAfterFinished": 10, "filesTtlSeconds": 1000})
        await on.ready(2)
        plain, filed = on.session("print:x"), on.session("file:a.txt")
        await on.ended(plain)
        await on.ended(filed)
        timetable = on.apps[0][0].sweeper._timetable
        await on.until(lambda: len(timetable) == 2, "both are in the timetable")
        entries = {entry.name: entry for entry in timetable._entries.values()}
        now = datetime.now(UTC).timestamp()
        assert 5 < entries[name_of(plain)].at - now <= 10
        assert 990 < entries[name_of(filed)].at - now <= 1000
        assert (entries[name_of(plain)].objects, entries[name_of(filed)].objects) == (False, True)


# --- inputs -------------------------------------------------------------------------------------------


async def test_a_run_gets_its_inputs() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        one, two = on.files(), on.files({"id": "c" * 21, "path": "x", "bytes": 9, "readOnly": True})
        mark = len(on.api.log)
        inputs = [given(one), given(two, "in/deep.bin"), given(one, "copy.csv", readOnly=True)]
        session = on.session("print:x", inputs=inputs)
        assert (await on.ended(session))["phase"] == "Succeeded"
        found = delivered(on, session).inputs
        assert [(file.path, file.bytes, file.read_only) for file in found] == [
            ("data.csv", 3, False),
            ("in/deep.bin", 9, True),
            ("copy.csv", 3, True),
        ]
        for file, owner in zip(found, (one, two, one), strict=True):
            url = urlsplit(file.url)
            assert (
                f"{url.scheme}://{url.netloc}{url.path}"
                == f"{on.objects.url}/{PREFIX}/{name_of(owner)}/{first_file(owner)}"
            )
            assert int(parse_qs(url.query)["X-Amz-Expires"][0]) >= 360
        reads = [entry.name for entry in on.api.log[mark:] if entry.verb == "get"]
        assert sorted(reads) == sorted([name_of(one), name_of(two)])


async def test_the_file_of_a_run_is_the_input_of_the_next() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        first = on.session("file:out/table.csv")
        (made,) = (await on.ended(first))["files"]
        again = on.session(
            "change:table.csv", inputs=[{"path": "table.csv", "session": name_of(first), "id": made["id"]}]
        )
        status = await on.ended(again)
        (changed,) = status["files"]
        assert changed["modifiedFrom"] == {"session": name_of(first), "id": made["id"]}
        assert changed["id"] != made["id"]


async def test_a_file_can_be_used_before_its_session_has_a_status() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        on.api.held["patch", "executionsessions/status"] = held = asyncio.Event()
        files = on.files()
        session = on.session("print:x", inputs=[given(files)])
        await on.until(lambda: on.node.of_session(session["metadata"]["uid"]), "prepared")
        held.set()
        assert (await on.ended(session))["phase"] == "Succeeded"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"session": "nobody"}, "input data.csv: there is no session nobody"),
        ({"id": "z" * 21}, f"has no file {'z' * 21}"),
        ("removed", "was removed"),
        ("tenant", "there is no session"),
    ],
)
async def test_a_missing_input_costs_no_pod(change: Any, says: str) -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        files = on.files(tenant="you") if change == "tenant" else on.files()
        if change == "removed":
            on.edit_session(files, removedFiles=[first_file(files)])
        reference = {**given(files), **(change if isinstance(change, dict) else {})}
        mark = len(on.api.log)
        status = await on.ended(on.session("print:x", inputs=[reference]))
        assert (status["phase"], status["reason"]) == ("Failed", "InputUnavailable")
        assert says in status["message"]
        assert not [entry for entry in on.api.writes(since=mark) if entry.resource == "pods"]


async def test_paths_that_exclude_each_other() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        files = on.files()
        status = await on.ended(on.session("print:x", inputs=[given(files, "a"), given(files, "a/b")]))
        assert (status["reason"], status["message"]) == (
            "InvalidRequest",
            "input a is a file, and input a/b needs a directory of that name",
        )


@pytest.mark.parametrize(
    ("refusal", "reason", "says"),
    [
        (Refusal("input_unavailable", "gone", input=1), "InputUnavailable", "input second.csv: gone"),
        (
            Refusal("input_unavailable", input=0),
            "InputUnavailable",
            "input data.csv: the object store does not have its bytes",
        ),
        (Refusal("input_unavailable", "gone", input=7), "InputUnavailable", "gone"),
        (Refusal("inputs_too_large", "9 MiB of 4 MiB"), "InvalidRequest", "9 MiB of 4 MiB"),
        (Refusal("inputs_conflict", "a and a/b"), "InvalidRequest", "a and a/b"),
        (Refusal("store_unavailable", "503"), "StoreUnavailable", "503"),
        (Refusal("store_unavailable", "503", input=1), "StoreUnavailable", "input second.csv: 503"),
    ],
)
async def test_what_the_sidecar_says_about_inputs(refusal: Refusal, reason: str, says: str) -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            status = 502 if refusal.error == "store_unavailable" else 422
            on.node.sidecar(pod["metadata"]["name"]).refuse_prepare = (status, refusal)
        files = on.files()
        inputs = [given(files), given(files, "second.csv")]
        found = await on.ended(on.session("print:x", inputs=inputs))
        assert found["reason"] == reason
        assert found["message"] == says
        assert found["attempts"] == 1
        await on.until(lambda: not on.used_pods(), "its pod is removed")


async def test_without_a_store_inputs_are_refused() -> None:
    async with operating(store_endpoint="") as on:
        on.pool()
        await on.ready(2)
        status = await on.ended(on.session("print:x", inputs=[given(on.files())]))
        assert status["reason"] == "StoreUnavailable"
        assert (await on.ended(on.session("file:a")))["fileCount"] == 0


async def test_slow_inputs_are_waited_for_in_the_same_pod() -> None:
    async with operating(sidecar_fetch_seconds=0.3) as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).fetching = asyncio.Event()
        session = on.session("print:x", inputs=[given(on.files())])
        uid = session["metadata"]["uid"]
        await on.until(lambda: on.node.of_session(uid), "being prepared")
        (sidecar,) = on.node.of_session(uid)
        await on.until(lambda: sidecar.calls.count("prepare") == 2, "asked again")
        assert sidecar.fetching is not None
        sidecar.fetching.set()
        status = await on.ended(session)
        assert (status["phase"], status["attempts"]) == ("Succeeded", 1)


async def test_inputs_that_do_not_come() -> None:
    async with operating(sidecar_fetch_seconds=0.2) as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).fetching = asyncio.Event()
        status = await on.ended(on.session("print:x", inputs=[given(on.files())]))
        assert (status["reason"], status["attempts"]) == ("StoreUnavailable", 1)
        assert "was not fetched" in status["message"]


async def test_a_pod_that_dies_while_it_fetches_is_replaced_by_another() -> None:
    async with operating(sidecar_fetch_seconds=5) as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).fetching = asyncio.Event()
        session = on.session("print:x", inputs=[given(on.files())])
        uid = session["metadata"]["uid"]
        await on.until(lambda: on.node.of_session(uid), "being prepared")
        (dying,) = on.node.of_session(uid)
        dying.unreachable = True
        for side in on.node.sidecars.values():
            if side.fetching is not None:  # replacements have come meanwhile, and fetch nothing
                side.fetching.set()
        status = await on.ended(session)
        assert (status["phase"], status["attempts"]) == ("Succeeded", 2)


async def test_cancelled_while_inputs_are_fetched() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).fetching = asyncio.Event()
        session = on.session("print:x", inputs=[given(on.files())])
        await on.until(lambda: on.used_pods(), "assigned")
        on.cancel(session)
        status = await on.ended(session, seconds=3)
        assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
        await on.until(lambda: not on.used_pods(), "its pod is removed")


async def test_a_restart_while_inputs_are_fetched() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).fetching = asyncio.Event()
        session = on.session("print:x", inputs=[given(on.files())])
        await on.until(lambda: on.used_pods(), "assigned")
        await on.kill(first)
        for side in on.node.sidecars.values():
            if side.fetching is not None:
                side.fetching.set()
        await on.start()
        status = await on.ended(session)
        assert (status["phase"], status["attempts"]) == ("Succeeded", 1)
        assert delivered(on, session).inputs[0].path == "data.csv"


async def test_a_struggling_api_server_does_not_lose_inputs() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        files = on.files()
        await on.ended(files)
        on.api.faults.append(Fault("get", "executionsessions", times=2, status=503))
        assert (await on.ended(on.session("print:x", inputs=[given(files)])))["phase"] == "Succeeded"


async def test_only_what_takes_long_gets_a_deadline_and_it_covers_fetching_and_collecting() -> None:
    async with operating(
        sidecar_fetch_seconds=100,
        collect_seconds=70,
        pod_deadline_margin_seconds=20,
        running_after_seconds=0.2,
    ) as on:
        on.pool(replicas=3, sessionDefaults={"timeoutSeconds": 30})
        await on.ready(3)
        files = on.files()

        async def deadlines(code: str, inputs: list[dict[str, Any]]) -> list[int]:
            status = await on.ended(on.session(code, inputs=inputs))
            return [
                operation["value"]
                for entry in on.api.writes()
                if (entry.verb, entry.resource, entry.name) == ("patch", "pods", status["pod"]["name"])
                for operation in entry.body
                if operation["path"] == "/spec/activeDeadlineSeconds"
            ]

        assert await deadlines("print:x", []) == []
        (long,) = await deadlines("sleep:0.6", [])
        assert 120 <= long < 130
        assert await deadlines("print:x", [given(files)]) == []
        (both,) = await deadlines("sleep:0.6", [given(files)])
        assert 420 <= both < 435


# --- outputs ------------------------------------------------------------------------------------------


async def test_files_that_a_run_leaves() -> None:
    async with operating() as on:
        on.pool(limits={"maxFiles": 5, "maxFileBytes": 1000, "maxTotalFileBytes": 2000})
        await on.ready(2)
        session = on.session("file:out/a.txt skip:big.bin exit:3")
        status = await on.ended(session)
        assert (status["reason"], status["fileCount"], status["skippedFileCount"]) == ("NonZeroExit", 1, 1)
        (made,) = status["files"]
        assert (made["path"], made["bytes"], made["id"][:13]) == ("out/a.txt", 3, name_of(session)[:13])
        assert status["message"] == "exit code 3; 1 file was not kept: big.bin (too large)"
        limits = delivered(on, session).limits
        assert (limits.files, limits.file_bytes, limits.total_file_bytes) == (5, 1000, 2000)


async def test_the_form_for_uploads_is_this_sessions_own() -> None:
    async with operating(store_uploads="post") as on:
        on.pool()
        await on.ready(2)
        session = on.session("print:x")
        await on.ended(session)
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.target is not None
        outputs = sidecar.target.outputs
        assert outputs is not None
        assert outputs.form is not None
        assert outputs.id_prefix == name_of(session)[:13]
        assert outputs.form.url == f"{on.objects.url}/kubecoderun"
        assert outputs.form.key_prefix == f"kubecoderun/{NAMESPACE}/{name_of(session)}/"


async def test_slots_for_stores_without_forms() -> None:
    async with operating(store_uploads="put") as on:
        on.pool(limits={"maxFiles": 3})
        await on.ready(2)
        session = on.session("file:a")
        assert (await on.ended(session))["fileCount"] == 1
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.target is not None
        assert sidecar.target.outputs is not None
        assert sidecar.target.outputs.form is None
        assert len(sidecar.target.outputs.slots) == 3


async def test_a_pool_that_keeps_no_files() -> None:
    async with operating() as on:
        on.pool(limits={"maxFiles": 0})
        await on.ready(2)
        session = on.session("file:a")
        status = await on.ended(session)
        assert (status["fileCount"], "files" in status) == (0, False)
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.target is not None
        assert sidecar.target.outputs is None
        assert delivered(on, session).limits.files == 0


async def test_grants_are_renewed_when_a_stream_breaks() -> None:
    async with operating() as on:
        on.pool()
        await on.ready(2)
        for pod in on.ready_pods():
            on.node.sidecar(pod["metadata"]["name"]).drops = 1
        session = on.session("sleep:1.2 file:a")
        assert (await on.ended(session))["fileCount"] == 1
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        first, last = (target.outputs.slots for target in sidecar.targets[:2])  # type: ignore[union-attr]
        assert {slot.url for slot in first}.isdisjoint({slot.url for slot in last})


async def test_files_of_a_run_survive_its_operator() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        files = on.files()
        session = on.session("sleep:1 change:data.csv file:new", inputs=[given(files)], timeoutSeconds=10_000)
        uid = session["metadata"]["uid"]
        await on.until(lambda: any(side.starts for side in on.node.of_session(uid)), "the program runs")
        await on.kill(first)
        await on.start()
        status = await on.ended(session)
        assert status["fileCount"] == 2
        assert status["files"][0]["modifiedFrom"] == {"session": name_of(files), "id": first_file(files)}
        assert "timeoutSeconds 10000 was cut to 300" in status["message"]


# --- time limits --------------------------------------------------------------------------------------


async def test_more_time_than_the_pool_allows_is_cut_and_said() -> None:
    async with operating() as on:
        on.pool(limits={"maxTimeoutSeconds": 40})
        await on.ready(2)
        session = on.session("timeout", timeoutSeconds=500)
        status = await on.ended(session)
        assert (status["phase"], delivered(on, session).limits.timeout_seconds) == ("TimedOut", 40)
        said = "killed after 40 s; timeoutSeconds 500 was cut to 40, the most that the pool allows"
        assert status["message"] == said
        fits = await on.ended(on.session("print:x", timeoutSeconds=40))
        assert fits["message"] == "exit code 0"

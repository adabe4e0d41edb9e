"""A pod that is reserved for several runs: real sidecar and real runner, the test in the operator's place."""

import asyncio
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import Answer, Client, job
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE, pod
from contract.fakes_sidecar.store import FakeStore, fake_store
from kubecoderun_sidecar.protocol import (
    CancelRequest,
    FormTarget,
    InputFile,
    OutputAnswer,
    OutputRequest,
    OutputTarget,
    RunResult,
    StartRequest,
)

pytestmark = pytest.mark.skipif(WHY_IMPOSSIBLE is not None, reason=str(WHY_IMPOSSIBLE))

OWNER = "workspace-uid"


async def reserve(client: Client, owner: str = OWNER) -> Answer:
    return await client.request("POST", "/v1/reserve", b"{}", session=owner)


async def prepare(client: Client, code: str, run: str, owner: str = OWNER, **more: object) -> Answer:
    body = job(code, session=run, **{"files": 64, **more})  # type: ignore[arg-type]
    return await client.request("POST", "/v1/prepare", body, session=owner)


def grant(run: str, store: FakeStore | None = None) -> bytes:
    target = None if store is None else OutputTarget("p" * 13, FormTarget(store.url("b"), "k/", {"p": "x"}))
    return StartRequest(outputs=target, run=run).to_json()


async def execute(
    client: Client, code: str, run: str, store: FakeStore | None = None, **more: object
) -> RunResult:
    answer = await prepare(client, code, run, **more)
    assert answer.status == 200, answer
    return await client.result(grant(run, store), session=OWNER)


async def state(client: Client) -> dict[str, object]:
    return dict((await client.request("GET", "/v1/state", session=OWNER)).json)


async def test_runs_take_turns_in_one_folder(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        assert (await reserve(client)).status == 200
        assert (await state(client))["reserved"] is True
        first = await execute(client, "open('a', 'w').write('1'); print('one')", "r1", store)
        assert (first.reason, first.stdout.text) == ("Succeeded", "one\n")
        assert [file.path for file in first.files] == ["a"]
        second = await execute(client, "print(open('a').read()); open('b', 'w').write('2')", "r2", store)
        assert (second.stdout.text, [file.path for file in second.files]) == ("1\n", ["b"])
        seen = await state(client)
        assert (seen["run"], seen["session"]["uid"]) == ("finished", "r2")  # type: ignore[index]


async def test_first_wins_and_only_the_owner_brings_runs(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        assert (await reserve(client)).status == 200
        assert (await reserve(client)).status == 200, "again is fine"
        assert (await reserve(client, "another")).json["error"] == "bound"
        assert (await prepare(client, "1", "r", owner="another")).json["error"] == "bound"
        retired = await client.request("POST", "/v1/retire", b"{}", session="pool")
        assert (retired.status, retired.json["owner"]["uid"]) == (409, OWNER)


async def test_a_pod_of_one_run_cannot_be_reserved(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        assert (await prepare(client, "print(1)", "r", owner="r")).status == 200
        assert (await reserve(client, "r")).json["error"] == "bound"
        assert (await prepare(client, "print(2)", "other", owner="r")).json["error"] == "bad_request"
        assert (await client.result(session="r")).stdout.text == "1\n"


async def test_one_run_at_a_time(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        assert (await prepare(client, "import time; time.sleep(60)", "r1")).status == 200
        other = Client(client._port)
        going = asyncio.create_task(other.result(grant("r1"), session=OWNER))
        for _ in range(400):
            if (await state(client))["run"] == "running":
                break
            await asyncio.sleep(0.05)
        assert (await prepare(client, "print(2)", "r2")).json["error"] == "run_in_progress"
        for path, body in (
            ("/v1/cancel", CancelRequest("r2").to_json()),
            ("/v1/start", grant("r2")),
            ("/v1/output", OutputRequest(run="r2").to_json()),
        ):
            refused = await client.request("POST", path, body, session=OWNER)
            assert (refused.status, refused.json["error"]) == (409, "not_prepared")
        cancel = CancelRequest("r1").to_json()
        assert (await client.request("POST", "/v1/cancel", cancel, session=OWNER)).status == 202
        assert (await going).reason == "Cancelled"
        assert (await execute(client, "print(2)", "r2")).stdout.text == "2\n"


async def test_output_of_the_run_whose_turn_it_is(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        await execute(client, "print('of the first')", "r1")
        assert (await prepare(client, "print('now', flush=True); input()", "r2")).status == 200
        other = Client(client._port)
        going = asyncio.create_task(other.result(grant("r2"), session=OWNER))
        body = OutputRequest(0, 0, 20.0, "r2").to_json()
        seen = OutputAnswer.parse((await client.request("POST", "/v1/output", body, session=OWNER)).body)
        assert seen.stdout.data == b"now\n"
        assert (await going).stdout.text == "now\n"


async def test_attaching_again_gives_the_same_result_until_the_next_run(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        first = await execute(client, "print('once'); open('n', 'a').write('x')", "r1")
        assert (await prepare(client, "print('again')", "r1")).status == 200, "joins the run that is there"
        assert await client.result(grant("r1"), session=OWNER) == first
        assert (await execute(client, "print(open('n').read())", "r2")).stdout.text == "x\n"
        gone = await client.request("POST", "/v1/start", grant("r1"), session=OWNER)
        assert gone.json["error"] == "not_prepared"


async def test_a_run_that_was_not_started_gives_way(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        assert (await prepare(client, "print('never')", "r1")).status == 200
        assert (await execute(client, "print(2)", "r2")).stdout.text == "2\n"
        late = await client.request("POST", "/v1/start", grant("r1"), session=OWNER)
        assert (late.status, late.json["error"]) == (409, "not_prepared")


async def test_a_run_that_was_cancelled_before_its_start_makes_room(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        assert (await prepare(client, "print('never')", "r1")).status == 200
        await client.request("POST", "/v1/cancel", CancelRequest("r1").to_json(), session=OWNER)
        assert (await client.result(grant("r1"), session=OWNER)).reason == "Cancelled"
        assert (await execute(client, "print(2)", "r2")).stdout.text == "2\n"


async def test_files_that_are_there_are_not_fetched_again(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        store.objects["in-1"] = b"v1"
        inputs = (InputFile("in", store.url("in-1"), 2),)
        await execute(client, "pass", "r1", store, inputs=inputs)
        fetched = len(store.calls)
        changed = await execute(client, "open('in', 'a').write('+')", "r2", store, inputs=inputs)
        assert [(file.path, file.replaces) for file in changed.files] == [("in", True)]
        assert not [call for call in store.calls[fetched:] if call.method == "GET"]
        mine = (InputFile("in", store.url(changed.files[0].id), 3),)
        assert (
            await execute(client, "print(open('in').read())", "r3", store, inputs=mine)
        ).stdout.text == "v1+\n"
        back = await execute(client, "print(open('in').read())", "r4", store, inputs=inputs)
        assert (back.stdout.text, back.files) == ("v1\n", ()), "the version before was asked for by its id"


async def test_a_file_that_a_run_removed_stays_so_and_is_told_once(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        store.objects["in-1"] = b"v1"
        inputs = (InputFile("in", store.url("in-1"), 2),)
        first = await execute(client, "open('made', 'w').write('x')", "r1", store, inputs=inputs)
        assert first.deleted == ()
        code = "import os; os.remove('in'); os.remove('made')"
        second = await execute(client, code, "r2", store, inputs=inputs)
        assert second.deleted == ("in",), "only what the call named"
        third = await execute(client, "import os; print(os.path.exists('in'))", "r3", store, inputs=inputs)
        assert (third.stdout.text, third.deleted) == ("False\n", ())


async def test_a_delivery_that_fails_costs_its_run_only(tmp_path: Path) -> None:
    async with fake_store() as store, pod(tmp_path, scratch="1m") as (_sidecar, client, _runner):
        await reserve(client)
        await execute(client, "open('keep', 'w').write('k'); import os; os.mkdir('d')", "r1", store)
        store.objects.update(small=b"x", big=b"x" * (2 << 20))
        small, big = InputFile("s", store.url("small"), 1), InputFile("b", store.url("big"), 2 << 20)
        folder = InputFile("d", store.url("small"), 1)
        missing = InputFile("m", store.url("nowhere"), 1)
        for number, (inputs, error, place) in enumerate(
            [
                ((small, big), "inputs_too_large", None),
                ((small, folder), "input_unavailable", 1),
                ((small, missing), "input_unavailable", 1),
            ]
        ):
            refused = await prepare(client, "pass", f"bad-{number}", inputs=inputs)
            assert (refused.json["error"], refused.json.get("input")) == (error, place)
        assert (await execute(client, "print(open('keep').read())", "r2", store)).stdout.text == "k\n"


async def test_the_end_of_the_runtime_ends_it_for_all(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, runner):
        await reserve(client)
        await execute(client, "print(1)", "r1")
        runner.kill()
        await runner.wait()
        for _ in range(400):
            if (await state(client))["runtime"] == "lost":
                break
            await asyncio.sleep(0.05)
        assert (await prepare(client, "print(2)", "r2")).json["error"] == "runtime_lost"
        assert (await client.result(grant("r1"), session=OWNER)).stdout.text == "1\n"


async def test_languages_are_checked_for_each_run(tmp_path: Path) -> None:
    async with pod(tmp_path) as (_sidecar, client, _runner):
        await reserve(client)
        assert (await prepare(client, "1", "r1", language="cobol")).json["error"] == "language_unavailable"
        assert (await execute(client, "print(1)", "r2")).stdout.text == "1\n"

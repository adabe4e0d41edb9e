"""Files of a finished program: listed by the runner, pulled, uploaded. Whatever goes wrong with them, the run
keeps its result."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from contract.fakes.silent import SilentAddress
from contract.fakes_sidecar.client import job, start
from contract.fakes_sidecar.harness import Sidecar, sidecar
from contract.fakes_sidecar.program import program
from contract.fakes_sidecar.runner import EXIT_OK, PIECE_BYTES, FakeRunner, Script, frame, listing, pieces
from contract.fakes_sidecar.store import FakeStore, Respond, fake_store, resets, says, silence, status
from kubecoderun_sidecar import collection, exchange, run, runtime, transfer
from kubecoderun_sidecar.protocol import (
    FileSlot,
    FormTarget,
    Heartbeat,
    InputFile,
    OutputTarget,
    RunResult,
)

PREFIX = "abcdefghijklm"
FIELDS = {"policy": "s3cr3t-policy", "x-amz-signature": "s3cr3t"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.5)


def grant(store: FakeStore) -> OutputTarget:
    return OutputTarget(PREFIX, FormTarget(store.url("bucket"), "i/n/s/", FIELDS))


def hands_back(files: dict[str, bytes], *skipped: tuple[str, str], **exit_fields: object) -> Script:
    """An honest runner whose program leaves these files behind."""

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), frame("O", b"out\n"))
        await runner.finish_with(files, *skipped, **exit_fields)
        await runner.hand_over(files)

    return script


@asynccontextmanager
async def both(folder: Path) -> AsyncGenerator[tuple[FakeStore, Sidecar]]:
    async with fake_store() as store, sidecar(folder) as pod:
        yield store, pod


async def run_with(
    pod: Sidecar, store: FakeStore, script: Script, *, outputs: OutputTarget | None = None, **more: object
) -> RunResult:
    client = await pod.play(script)
    answer = await client.request("POST", "/v1/prepare", job(**{"files": 64, **more}))  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return await client.result(start(outputs=outputs or grant(store)))


def uploaded(store: FakeStore, result: RunResult) -> dict[str, bytes]:
    """Contents in the store by the path in the result."""
    return {file.path: store.forms[f"i/n/s/{file.id}"].file for file in result.files}


FILES = {
    "a.txt": b"hello",
    "empty": b"",
    "figure-1.png": bytes(range(256)) * 1024,
    "folder/deep/ünï ☃.csv": b"1,2\n",
    "large.bin": bytes(range(251)) * 40_000,
    "zz": b"z" * (PIECE_BYTES + 1),
}


async def test_files_are_in_the_store_when_the_run_has_finished(tmp_path: Path) -> None:
    async with both(tmp_path) as (store, pod):
        result = await run_with(pod, store, hands_back(FILES, ("x.bin", "size")))
        assert (result.reason, result.stdout.text, result.detail) == ("Succeeded", "out\n", None)
        assert [file.path for file in result.files] == sorted(FILES)
        assert uploaded(store, result) == FILES
        assert [file.bytes for file in result.files] == [len(FILES[path]) for path in sorted(FILES)]
        assert [(one.path, one.reason) for one in result.skipped] == [("x.bin", "size")]
        assert result.skipped_count == 1
        assert len({file.id for file in result.files}) == len(FILES)
        for file in result.files:
            assert re.fullmatch(PREFIX + "[a-z0-9]{8}", file.id)
            form = store.forms[f"i/n/s/{file.id}"]
            assert unquote(form.fields["x-amz-meta-path"]) == file.path
            assert form.fields["x-amz-meta-path"].isascii()
            assert form.fields.items() >= FIELDS.items()
            assert list(form.fields) == [*FIELDS, "key", "x-amz-meta-path"]
        assert store.connections <= collection.SIDE_BY_SIDE + 1
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "warm"


async def test_slots_for_a_store_without_policies(tmp_path: Path) -> None:
    async with both(tmp_path) as (store, pod):
        slots = tuple(FileSlot(f"{PREFIX}0000000{n}", store.url(f"slot-{n}")) for n in range(5))
        result = await run_with(pod, store, hands_back(FILES), outputs=OutputTarget(PREFIX, slots=slots))
        names = sorted(FILES)
        assert [(file.path, file.id) for file in result.files] == [
            (name, slot.id) for name, slot in zip(names, slots, strict=False)
        ]
        assert {f"slot-{n}": FILES[names[n]] for n in range(5)} == store.objects
        assert [(one.path, one.reason) for one in result.skipped] == [(names[5], "count")]
        for call in store.calls:
            unsigned = [header for header in call.headers if header.startswith("x-amz-")]
            assert unsigned == [], "stores refuse such headers unless they are signed"


async def test_changed_inputs_are_marked(tmp_path: Path) -> None:
    async with both(tmp_path) as (store, pod):
        store.objects["in"] = b"abc"
        inputs = (InputFile("a.txt", store.url("in"), 3), InputFile("b.txt", store.url("in"), 3))
        result = await run_with(pod, store, hands_back({"a.txt": b"x", "c.txt": b"y"}), inputs=inputs)
        assert [(file.path, file.replaces) for file in result.files] == [("a.txt", True), ("c.txt", False)]


async def test_the_stored_result_names_the_files_and_comes_after_them(tmp_path: Path) -> None:
    async with both(tmp_path) as (store, pod):
        client = await pod.play(hands_back({"a": b"1", "b": b"2" * 400_000}))
        await client.request("POST", "/v1/prepare", job(files=8))
        result = await client.result(start(store.url("result.json"), after_seconds=0, outputs=grant(store)))
        assert result.stored
        assert RunResult.parse(store.objects["result.json"]).files == result.files
        assert [call.method for call in store.calls] == ["POST", "POST", "PUT"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"exitCode": 3}, "NonZeroExit"),
        ({"exitCode": None, "signal": "SIGKILL", "timedOut": True}, "TimeLimit"),
        ({"exitCode": None, "signal": "SIGKILL", "oom": True}, "OOMKilled"),
    ],
)
async def test_files_come_back_however_the_program_ended(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    async with both(tmp_path) as (store, pod):
        result = await run_with(pod, store, hands_back({"a": b"1"}, **fields))
        assert (result.reason, len(result.files)) == (reason, 1)


async def test_files_of_a_cancelled_run(tmp_path: Path) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        assert (await runner.read())[0] == "K"
        await runner.finish_with({"a": b"1"}, exitCode=None, signal="SIGKILL", cancelled=True)
        await runner.hand_over({"a": b"1"})

    async with both(tmp_path) as (store, pod):
        client = await pod.play(script)
        await client.request("POST", "/v1/prepare", job(files=8))
        following = asyncio.create_task(client.result(start(outputs=grant(store))))
        await asyncio.sleep(0.1)
        await pod.client().request("POST", "/v1/cancel", b"{}")
        result = await following
        assert (result.reason, [file.path for file in result.files]) == ("Cancelled", ["a"])


async def test_without_a_grant_nothing_is_handed_back(tmp_path: Path) -> None:
    async with both(tmp_path) as (store, pod):
        client = await pod.play(hands_back({"a": b"1"}, ("b", "size")))
        await client.request("POST", "/v1/prepare", job(files=8))
        result = await client.result(b"{}")
        assert (result.reason, result.files, result.skipped_count) == ("Succeeded", (), 0)
        assert store.calls == []


async def test_without_a_limit_nothing_is_listed(tmp_path: Path) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.run(b"out")

    async with both(tmp_path) as (store, pod):
        result = await run_with(pod, store, script, files=0)
        assert (result.reason, result.files) == ("Succeeded", ())
        assert pod.runner.job["files"]["count"] == 0


async def test_heartbeats_go_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "HEARTBEAT_SECONDS", 0.05)
    async with both(tmp_path) as (store, pod):
        store.delay = 0.4
        client = await pod.play(hands_back({"a": b"1"}))
        await client.request("POST", "/v1/prepare", job(files=8))
        events = [event async for event in client.stream(start(outputs=grant(store)))]
        assert sum(isinstance(event, Heartbeat) for event in events) >= 3


async def test_a_later_start_brings_a_fresh_grant(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        await go_on.wait()
        await runner.finish_with({"a": b"1"})
        await runner.hand_over({"a": b"1"})

    async with both(tmp_path) as (store, pod):
        client = await pod.play(script)
        await client.request("POST", "/v1/prepare", job(files=8))
        expired = OutputTarget("expired", FormTarget(store.url("x"), "expired/", {}))
        async for _event in client.stream(start(outputs=expired)):
            break
        client.close()
        waiting = asyncio.create_task(pod.client().result(start(outputs=grant(store))))
        await asyncio.sleep(0.05)
        go_on.set()
        result = await waiting
        assert list(store.forms) == [f"i/n/s/{result.files[0].id}"]


# ---- stores that fail


@pytest.mark.parametrize("size", [10, 2_000_000])
@pytest.mark.parametrize(
    "fault", [status(503), resets(), silence(), says(b"nonsense")], ids=["503", "reset", "-", "x"]
)
async def test_a_passing_fault_is_survived(tmp_path: Path, size: int, fault: Respond) -> None:
    data = bytes([7]) * size
    async with both(tmp_path) as (store, pod):
        store.faults = [fault, fault]
        result = await run_with(pod, store, hands_back({"a": data, "b": b"x"}))
        assert uploaded(store, result) == {"a": data, "b": b"x"}
        # A small file is kept for another attempt, a large one is asked for again.
        assert pod.runner.asked.count(0) == (1 if size == 10 else 3)


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_refused_file_costs_only_itself(tmp_path: Path, size: int) -> None:
    async with both(tmp_path) as (store, pod):
        store.faults = [status(403)]
        result = await run_with(pod, store, hands_back({"a": bytes(size), "b": b"x", "c": b"y"}))
        assert len(result.files) == 2
        assert [one.reason for one in result.skipped] == ["store"]
        assert len(store.calls) == 3


async def test_a_store_that_answers_before_it_has_everything_is_heard(tmp_path: Path) -> None:
    """It hangs up on a body it does not want; the rest of the file must not keep anybody waiting."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.3)
        writer.close()

    calls: list[bytes] = []
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/bucket"
    async with both(tmp_path) as (store, pod), server:
        outputs = OutputTarget(PREFIX, FormTarget(url, "k/", {}))
        result = await run_with(pod, store, hands_back({"a": bytes(50_000_000)}), outputs=outputs)
        assert [one.reason for one in result.skipped] == ["store"]
        assert len(calls) == 1, "a definite refusal is not repeated"
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "warm"


async def test_a_store_that_is_down_is_not_asked_for_ever(tmp_path: Path) -> None:
    files = {f"{n:02}": b"x" * 300_000 for n in range(20)}
    async with both(tmp_path) as (store, pod):
        store.faults = [status(503)] * 100
        result = await run_with(pod, store, hands_back(files))
        assert (result.reason, result.files) == ("Succeeded", ())
        assert result.skipped_count == 20
        assert {one.reason for one in result.skipped} == {"store"}
        assert len(store.calls) == 4 + 1 + 1


async def test_a_store_that_takes_no_connection_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each file, and not again for the result."""
    monkeypatch.setattr(transfer, "UNREACHED_SECONDS", 0.6)
    monkeypatch.setattr(transfer, "_STILL_UNREACHED_SECONDS", 0.1)
    tries: list[float] = []
    made = transfer._Tries.__init__

    def count(self: transfer._Tries, seconds: float, most: int | None = None) -> None:
        tries.append(seconds)
        made(self, seconds, most)

    monkeypatch.setattr(transfer._Tries, "__init__", count)
    silent = SilentAddress()
    try:
        async with both(tmp_path) as (store, pod):
            store.base = f"http://127.0.0.1:{silent.port}"
            large = {f"{n:02}": b"x" * 300_000 for n in range(20)}
            result = await asyncio.wait_for(run_with(pod, store, hands_back(large)), 30)
            assert (result.reason, result.skipped_count) == ("Succeeded", 20)
            assert tries[:3] == [0.6, 0.1, 0.1]
            assert set(tries[1:]) == {0.1}
    finally:
        silent.close()


async def test_everything_together_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "COLLECT_SECONDS", 0.4)
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 30)
    async with both(tmp_path) as (store, pod):
        honest = store._honest

        async def slow_but_one(call: object, writer: asyncio.StreamWriter) -> None:
            if len(store.calls) > 1:
                await asyncio.sleep(60)
            await honest(call, writer)  # type: ignore[arg-type]

        store._honest = slow_but_one  # type: ignore[method-assign]
        result = await run_with(pod, store, hands_back({"a": b"x", "b": bytes(999_999), "c": b"y"}))
        assert [file.path for file in result.files] == ["a"]
        assert [(one.path, one.reason) for one in result.skipped] == [("b", "store"), ("c", "store")]


# ---- runners that lie


def ends_with(
    *words: bytes, then: bytes = b"", files: dict[str, bytes] | None = None, hang: bool = True
) -> Script:
    """A program that ends, then `words`; asked for one of `files` it answers honestly, but for the last one
    and all others with `then`."""

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), frame("O", b"out\n"), frame("X", {**EXIT_OK, "exitCode": 3}), *words)
        contents = [files[path] for path in sorted(files)] if files else []
        while True:
            kind, payload = await runner.read()
            assert kind == "T"
            index = int(payload.split(b":")[1].rstrip(b"}"))
            if index < len(contents) - 1:
                await runner.send(*pieces(contents[index]))
                continue
            await runner.send(then)
            if not hang:
                runner.close()
                return

    return script


def listed(path: str, size: object = 1, **more: object) -> bytes:
    return frame("L", {"path": path, "bytes": size, **more})


DONE = frame("Z", {"skipped": [], "skippedCount": 0})

BAD_LISTS = {
    "too many": [listed(f"{n:03}") for n in range(65)],
    "too long": [listed("a", 1001), DONE],
    "too much together": [listed(f"{n}", 1000) for n in range(6)],
    "negative": [listed("a", -1)],
    "no number": [listed("a", "1")],
    "no path": [frame("L", {"bytes": 1})],
    "empty path": [listed("")],
    "endless path": [listed("x" * 3000)],
    "no text": [listed("\ud800")],
    "not in order": [listed("b"), listed("a")],
    "twice": [listed("a"), listed("a")],
    "of a read-only input": [listed("read-only")],
    "no JSON": [frame("L", b"nonsense")],
    "a long frame": [b"L" + (1 << 20).to_bytes(4, "big")],
    "output": [frame("O", b"late")],
    "another end": [frame("X", EXIT_OK)],
    "data unasked": [listed("a"), frame("D", b"x")],
    "bad end": [frame("Z", {"skipped": [], "skippedCount": -1})],
    "no end": [frame("Z", b"{}")],
    "too many skipped": [frame("Z", {"skipped": [{"path": "a", "reason": "size"}] * 21, "skippedCount": 21})],
    "fewer than named": [frame("Z", {"skipped": [{"path": "a", "reason": "size"}], "skippedCount": 0})],
    "another reason": [frame("Z", {"skipped": [{"path": "a", "reason": "mood"}], "skippedCount": 1})],
    "a fault": [frame("F", {"message": "secret words"})],
    "silence": [listed("a")],
    "a drip": [b"L\x00\x00"],
}


@pytest.mark.parametrize("words", BAD_LISTS.values(), ids=BAD_LISTS.keys())
async def test_a_list_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[bytes]
) -> None:
    monkeypatch.setattr(runtime, "ANSWER_SECONDS", 0.3)
    async with both(tmp_path) as (store, pod):
        store.objects["in"] = b"abc"
        inputs = (InputFile("read-only", store.url("in"), 3, read_only=True),)
        result = await run_with(
            pod, store, ends_with(*words), inputs=inputs, file_bytes=1000, total_bytes=5000
        )
        assert (result.reason, result.exit_code, result.stdout.text) == ("NonZeroExit", 3, "out\n")
        assert result.files == ()
        assert result.detail is not None
        assert result.detail.startswith("files could not be collected: ")
        assert "secret" not in result.detail
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "lost"
        assert await pod.runner.hung_up()


A_B_C = {"a": b"1" * 10, "b": b"2" * 300_000, "c": b"3" * 600_000}
BAD_PULLS = {
    "another frame": frame("O", b"x"),
    "a short piece": frame("D", b"3" * 1000),
    "a long piece": frame("D", b"3" * (PIECE_BYTES + 1)),
    "an empty piece": frame("D", b""),
    "more than announced": b"".join(pieces(b"3" * 600_000)) + frame("D", b"3"),
    "another index": frame("U", {"index": 0}),
    "no index": frame("U", b"{}"),
    "the list again": listed("c", 600_000),
    "nonsense": b"\xff" * 100,
    "a fault": frame("F", {"message": "secret words"}),
    "silence": b"",
    "half": pieces(b"3" * 600_000)[0] + b"D",
}


@pytest.mark.parametrize("hang", [True, False], ids=["hangs", "dies"])
@pytest.mark.parametrize("words", BAD_PULLS.values(), ids=BAD_PULLS.keys())
async def test_a_file_that_does_not_come_as_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes, hang: bool
) -> None:
    monkeypatch.setattr(runtime, "ANSWER_SECONDS", 0.3)
    async with both(tmp_path) as (store, pod):
        script = ends_with(*listing({**A_B_C, "d": b"4"}), then=words, files=A_B_C, hang=hang)
        result = await run_with(pod, store, script)
        assert (result.reason, result.exit_code, result.stdout.text) == ("NonZeroExit", 3, "out\n")
        got = uploaded(store, result)
        # Words after the whole of a file break the protocol only then.
        expected = {"a", "b", "c"} if words == BAD_PULLS["more than announced"] else {"a", "b"}
        assert set(got) - {"c"} == expected - {"c"}
        assert all(got[path] == A_B_C[path] for path in got)
        assert {one.reason for one in result.skipped} == {"unreadable"}
        assert result.skipped_count == 4 - len(got)
        assert result.detail is not None
        assert "secret" not in result.detail
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "lost"


@pytest.mark.parametrize("before", [0, 2])
async def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path: Path, before: int) -> None:
    """Also when some of it has come already."""
    files = {"a": b"1" * 10, "b": b"2" * 900_000, "c": b"3" * 20}

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        await runner.finish_with(files)
        for index, path in enumerate(sorted(files)):
            assert (await runner.read())[0] == "T"
            whole = pieces(files[path])
            await runner.send(*(whole if index != 1 else [*whole[:before], frame("U", {"index": 1})]))

    async with both(tmp_path) as (store, pod):
        result = await run_with(pod, store, script)
        assert uploaded(store, result) == {"a": files["a"], "c": files["c"]}
        assert [(one.path, one.reason) for one in result.skipped] == [("b", "unreadable")]
        assert result.detail is None


async def test_paths_that_resources_cannot_carry_cost_only_their_files(tmp_path: Path) -> None:
    bad = {
        "\u202etxt.exe",
        "a\\b",
        "a\tb",
        "x" * 257,
        "/etc/passwd",
        "a/../b",
        "a//b",
        "./a",
        "/".join("abcdefghijk"),
    }
    files = dict.fromkeys({*bad, "good.txt"}, b"x")
    async with both(tmp_path) as (store, pod):
        result = await run_with(pod, store, hands_back(files, ("\x1b[31m", "path")))
        assert uploaded(store, result) == {"good.txt": b"x"}
        assert result.skipped_count == len(bad) + 1
        assert {one.reason for one in result.skipped} == {"path"}
        named = [one.path for one in result.skipped]
        assert "\\x1b[31m" in named
        assert "\\u202etxt.exe" in named
        assert all(len(path) <= 256 and path.isprintable() for path in named)


async def test_secrets_stay_out_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with both(tmp_path) as (store, pod):
        store.faults = [status(500)] * 100
        await run_with(pod, store, hands_back({"private-name": b"private"}))
        assert "files=0 skipped=1" in caplog.text
        for secret in ("s3cr3t", "private", store.base):
            assert secret not in caplog.text


async def test_large_files_flow_through_little_memory(tmp_path: Path) -> None:
    """To a store that is slower than the runner."""
    size = 50_000_000
    files = {f"{n}": bytes(size) for n in range(3)} | {f"small-{n:02}": bytes(200_000) for n in range(40)}
    async with fake_store() as store, program(tmp_path) as process:
        runner = await FakeRunner.connect(process.channel)
        playing = asyncio.create_task(hands_back(files)(runner))
        client = await process.ready()
        assert (await client.request("POST", "/v1/prepare", job(files=64))).status == 200
        before = process.memory("VmRSS")
        result = await client.result(start(outputs=grant(store)))
        assert sum(file.bytes for file in result.files) == 3 * size + 40 * 200_000
        assert process.memory("VmHWM") - before < 8 * 1024
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        client.close()
        runner.close()

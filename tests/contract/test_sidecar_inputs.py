"""Input files: from the store, through the sidecar, to a runner that takes them or does not."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import Answer, Client, job
from contract.fakes_sidecar.harness import sidecar
from contract.fakes_sidecar.program import program
from contract.fakes_sidecar.runner import FakeRunner, Script, frame
from contract.fakes_sidecar.store import FakeStore, Respond, fake_store, head, resets, says, silence, status
from kubecoderun_sidecar import delivery, exchange, pod, runtime, transfer
from kubecoderun_sidecar.protocol import InputFile, StoredCode

PIECE = 256 << 10


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.5)


async def takes_all(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.prepare()


def kept(
    store: FakeStore, files: dict[str, bytes], *, read_only: frozenset[str] = frozenset()
) -> list[InputFile]:
    """Put files into the store; the inputs they make."""
    inputs = []
    for number, (path, data) in enumerate(files.items()):
        store.objects[f"object-{number}"] = data
        inputs.append(InputFile(path, store.url(f"object-{number}"), len(data), path in read_only))
    return inputs


async def prepare(client: Client, inputs: list[InputFile], **more: object) -> Answer:
    return await client.request("POST", "/v1/prepare", job(inputs=tuple(inputs), **more))  # type: ignore[arg-type]


async def state(client: Client) -> dict[str, object]:
    answer: dict[str, object] = (await client.request("GET", "/v1/state")).json
    return answer


@pytest.mark.parametrize("sizes", [[0], [1], [PIECE], [PIECE + 1], [0, 0, 3_000_000, 0, 7], [1_000_000] * 6])
async def test_inputs_arrive_whole_and_before_the_code(tmp_path: Path, sizes: list[int]) -> None:
    files = {f"folder {n}/ünï-{n}.txt": bytes([n + 1]) * size for n, size in enumerate(sizes)}
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, files, read_only=frozenset(["folder 0/ünï-0.txt"]))
        assert (await prepare(client, inputs, stdin="in")).status == 200
        assert instance.runner.inputs == files
        assert instance.runner.read_only == ["folder 0/ünï-0.txt"]
        assert (instance.runner.code, instance.runner.stdin) == (b"print(1)", b"in")
        assert instance.runner.job["inputBytes"] == sum(sizes)


async def test_many_small_ones_share_a_few_connections(tmp_path: Path) -> None:
    files = {f"{n}.txt": b"x" * n for n in range(256)}
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        assert (await prepare(client, kept(store, files))).status == 200
        assert instance.runner.inputs == files
        assert len(store.calls) == 256
        assert store.connections <= delivery.AHEAD


async def test_the_next_few_are_asked_for_ahead(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        store.delay = 0.05
        assert (await prepare(client, kept(store, {f"{n}": b"x" for n in range(12)}))).status == 200
        assert store.at_once == delivery.AHEAD


async def test_a_store_that_closes_kept_connections_is_survived(tmp_path: Path) -> None:
    files = {f"{n}.txt": b"x" * n for n in range(40)}
    async with fake_store() as store, sidecar(tmp_path) as instance:
        store.keep_alive = False
        client = await instance.play(takes_all)
        assert (await prepare(client, kept(store, files))).status == 200
        assert instance.runner.inputs == files


async def test_inputs_and_code_from_the_store(tmp_path: Path) -> None:
    code = b"print('hello')\n" * 50_000
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {"a": b"1" * 300_000, "b": b""})
        store.objects["code"] = code
        stored = StoredCode(store.url("code"), len(code), hashlib.sha256(code).hexdigest())
        answer = await client.request("POST", "/v1/prepare", job(stored, inputs=tuple(inputs), stdin="in"))
        assert answer.status == 200
        assert (instance.runner.code, instance.runner.stdin) == (code, b"in")


async def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = b"0123456789" * 100_000
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {"a": data})
        store.faults = [says(head(200, len(data)) + data[:400_000]), status(503)]
        assert (await prepare(client, inputs)).status == 200
        assert instance.runner.inputs == {"a": data}
        assert store.calls[2].headers["range"] == "bytes=400000-"


# ---- what cannot be fetched


@pytest.mark.parametrize("place", [0, 1, 6])
@pytest.mark.parametrize(
    "fault",
    [status(404), says(head(200, 4) + b"abcd"), says(head(200, 2) + b"ab"), status(410)],
    ids=["missing", "longer", "shorter", "gone"],
)
async def test_an_object_that_is_not_there_is_named_by_its_place(
    tmp_path: Path, place: int, fault: Respond
) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {f"secret-{n}": b"abc" for n in range(8)})
        # The order of requests is that of connections, so the fault is tied to the object.
        honest = store._honest

        async def respond(call: object, writer: asyncio.StreamWriter) -> None:
            if f"/object-{place}?" in call.target:  # type: ignore[attr-defined]
                await fault(call, writer)  # type: ignore[arg-type]
                writer.close()
            else:
                await honest(call, writer)  # type: ignore[arg-type]

        store._honest = respond  # type: ignore[method-assign]
        answer = await prepare(client, inputs)
        assert (answer.status, answer.json["error"], answer.json["input"]) == (
            422,
            "input_unavailable",
            place,
        )
        for word in ("secret", "s3cr3t", "127.0.0.1"):
            assert word not in answer.body.decode()
        assert (await state(client))["run"] is None


async def test_after_a_missing_first_object_the_pod_can_try_again(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {"a": b"abc"})
        data = store.objects.pop("object-0")
        assert (await prepare(client, inputs)).status == 422
        assert (await state(client))["runtime"] == "warm"
        store.objects["object-0"] = data
        assert (await prepare(client, inputs)).status == 200
        assert instance.runner.inputs == {"a": b"abc"}


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [(status(503), 4), (resets(), 4), (silence(), 4), (status(403), 1)],
    ids=["503", "reset", "silence", "403"],
)
async def test_a_store_that_is_down(tmp_path: Path, fault: Respond, attempts: int) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {"a": b"abc"})
        store.faults = [fault] * 100
        answer = await prepare(client, inputs)
        assert (answer.status, answer.json["error"], answer.json["input"]) == (502, "store_unavailable", 0)
        assert len(store.calls) == attempts
        assert (await state(client))["runtime"] == "warm"


async def test_a_store_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod, "DELIVERY_SECONDS", 0.3)

    async def drip(_call: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, 1000))
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        inputs = kept(store, {"a": bytes(1000)})
        store.faults = [drip]
        answer = await prepare(client, inputs)
        assert (answer.status, answer.json["error"]) == (502, "store_unavailable")
        assert await instance.runner.hung_up(), "the delivery had begun"


@pytest.mark.parametrize(
    ("paths", "place"),
    [(["a", "a"], 1), (["a", "a/b"], 1), (["x", "a/b/c", "a"], 2), (["a/b", "c", "a/b/d/e"], 2)],
)
async def test_paths_that_exclude_each_other(tmp_path: Path, paths: list[str], place: int) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(takes_all)
        answer = await prepare(client, [InputFile(path, store.url("x"), 1) for path in paths])
        assert (answer.status, answer.json["error"], answer.json["input"]) == (
            422,
            "input_unavailable",
            place,
        )
        assert store.calls == []


# ---- runners that do not take them


def refuses(**fault: object) -> Script:
    """A runner that reports a fault once it has seen the first input, and reads on, as the real one does."""

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        assert (await runner.read())[0] == "R"
        assert (await runner.read())[0] == "N"
        await runner.send(frame("F", {"message": "secret words", **fault}))
        while True:
            await runner.read()

    return script


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "inputs_too_large"}, (422, "inputs_too_large", None)),
        ({"kind": "inputs_too_large", "input": 1}, (422, "inputs_too_large", None)),
        ({"kind": "input_path", "input": 1}, (422, "input_unavailable", 1)),
        ({"kind": "input_path", "input": 2}, (503, "runtime_lost", None)),
        ({"kind": "input_path", "input": -1}, (503, "runtime_lost", None)),
        ({"kind": "input_path", "input": "0"}, (503, "runtime_lost", None)),
        ({"kind": "something else"}, (503, "runtime_lost", None)),
        ({"kind": 5}, (503, "runtime_lost", None)),
        ({}, (503, "runtime_lost", None)),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [10, 20_000_000])
async def test_a_runner_that_refuses_files(
    tmp_path: Path, fault: dict[str, object], expected: tuple[int, str, int | None], size: int
) -> None:
    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(refuses(**fault))
        answer = await prepare(client, kept(store, {"a": bytes(size), "b": b"x"}))
        assert answer.status >= 400, answer
        assert (answer.status, answer.json["error"], answer.json.get("input")) == expected
        assert "secret" not in answer.body.decode()
        assert (await state(client))["runtime"] == "lost"


async def test_a_runner_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "ANSWER_SECONDS", 0.3)

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await asyncio.sleep(3600)

    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(script)
        answer = await prepare(client, kept(store, {"a": bytes(30_000_000)}))
        assert (answer.status, answer.json["error"]) == (503, "runtime_lost")


@pytest.mark.parametrize("words", [frame("P"), frame("L", {}), frame("D", b"x"), frame("X", {}), b"\xff"])
async def test_a_runner_that_says_something_else_meanwhile(tmp_path: Path, words: bytes) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        assert (await runner.read())[0] == "R"
        await runner.send(words)
        while True:
            await runner.read()

    async with fake_store() as store, sidecar(tmp_path) as instance:
        client = await instance.play(script)
        answer = await prepare(client, kept(store, {"a": bytes(10_000_000)}))
        assert (answer.status, answer.json["error"]) == (503, "runtime_lost")


async def test_large_inputs_flow_through_little_memory(tmp_path: Path) -> None:
    """To a runner that is slower than the store."""
    size, count = 50_000_000, 3

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.read()
        total = 0
        while total < size * count:
            kind, payload = await runner.read()
            total += len(payload) if kind == "D" else 0
            if total % 16 == 0:
                await asyncio.sleep(0)
        assert (await runner.read())[0] == "C"
        await runner.send(frame("P"))

    async with fake_store() as store, program(tmp_path) as process:
        runner = await FakeRunner.connect(process.channel)
        playing = asyncio.create_task(script(runner))
        client = await process.ready()
        inputs = kept(store, {f"{n}": bytes(size) for n in range(count)})
        before = process.memory("VmRSS")
        assert (await prepare(client, inputs)).status == 200
        await playing
        assert process.memory("VmHWM") - before < 6 * 1024
        client.close()
        runner.close()

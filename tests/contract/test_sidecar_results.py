"""Results: what is inline, what is stored, and that the answer comes whatever the store does."""

import asyncio
import base64
from pathlib import Path

import pytest

from contract.fakes.silent import SilentAddress
from contract.fakes_sidecar.client import job, start
from contract.fakes_sidecar.harness import Sidecar, sidecar
from contract.fakes_sidecar.runner import FakeRunner, Script, frame
from contract.fakes_sidecar.store import FakeStore, fake_store, resets, silence, status
from kubecoderun_sidecar import conclusion, transfer
from kubecoderun_sidecar.protocol import Heartbeat, RunResult


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.01, 0.02, 0.03))


def prints(stdout: bytes, stderr: bytes = b"", seconds: float = 0) -> Script:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        await asyncio.sleep(seconds)
        await runner.finish(stdout, stderr)

    return script


async def result_of(pod: Sidecar, store: FakeStore, script: Script, **limits: int) -> RunResult:
    client = await pod.play(script)
    assert (await client.request("POST", "/v1/prepare", job(**limits))).status == 200  # type: ignore[arg-type]
    return await client.result(start(store.url("result.json")))


def stored(store: FakeStore) -> RunResult:
    return RunResult.parse(store.objects["result.json"])


async def test_little_output_is_not_stored(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        result = await result_of(pod, store, prints(b"x" * 16384))
        assert (result.stored, result.stored_at, result.store_error) == (False, None, None)
        assert (result.stdout.text, result.stdout.truncated) == ("x" * 16384, False)
        assert store.calls == []


async def test_a_long_run_is_stored(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        result = await result_of(pod, store, prints(b"1\n", seconds=1.1))
        assert result.stored
        assert result.stored_at is not None
        assert result.stored_at >= result.finished_at
        full = stored(store)
        assert full.stored
        assert full.stored_at is not None
        assert (full.reason, full.stdout, full.stderr) == (result.reason, result.stdout, result.stderr)
        assert full.finished_at == result.finished_at


@pytest.mark.parametrize("stderr", [False, True])
async def test_much_output_is_stored_with_a_preview_inline(tmp_path: Path, stderr: bool) -> None:
    text = "".join(f"line {number} é\n" for number in range(3000))
    data = text.encode()
    assert 16384 < len(data) < 65536
    async with fake_store() as store, sidecar(tmp_path) as pod:
        script = prints(b"", data) if stderr else prints(data)
        result = await result_of(pod, store, script)
        preview = result.stderr if stderr else result.stdout
        full = stored(store).stderr if stderr else stored(store).stdout
        assert result.stored
        assert (full.text, full.bytes, full.truncated) == (text, len(data), False)
        assert preview.text is not None
        assert len(preview.text.encode()) <= 16384
        assert (preview.bytes, preview.truncated) == (len(data), True)
        if stderr:
            assert preview.text.startswith("line 0 é\n")
            assert preview.text.endswith("line 2999 é\n")
            assert " bytes omitted ...]\n" in preview.text
        else:
            assert text.startswith(preview.text)
            assert len(preview.text.encode()) > 16380


async def test_output_over_its_allowance_is_cut_in_the_stored_result_too(tmp_path: Path) -> None:
    data = b"a" * 500_000
    async with fake_store() as store, sidecar(tmp_path) as pod:
        result = await result_of(pod, store, prints(data, data), output_bytes=32768)
        full = stored(store)
        assert (full.stdout.bytes, full.stdout.truncated) == (500_000, True)
        assert full.stdout.text == "a" * 32768
        assert (full.stderr.bytes, full.stderr.truncated) == (500_000, True)
        assert full.stderr.text is not None
        cut, _, said = full.stderr.text.partition("\n[kubecoderun] ")
        assert cut == "a" * 24576 + "\n[... 467232 bytes omitted ...]\n" + "a" * 8192
        assert said.startswith(
            "Output limit: of the 488.3 KiB of stdout only the beginning was kept, 32 KiB."
        )
        assert (result.stdout.text, result.stdout.truncated) == ("a" * 16384, True)
        assert result.stderr.truncated
        assert result.stderr.text is not None
        assert " bytes omitted ...]" in result.stderr.text


async def test_binary_output_is_exact(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    async with fake_store() as store, sidecar(tmp_path) as pod:
        result = await result_of(pod, store, prints(data, b"\x1b[31m"))
        full = stored(store)
        assert full.stdout.base64 is not None
        assert base64.b64decode(full.stdout.base64) == data
        assert full.stderr.base64 == base64.b64encode(b"\x1b[31m").decode()
        assert result.stdout.base64 is not None
        assert len(base64.b64decode(result.stdout.base64)) <= 16384


async def test_the_result_is_there_before_finished_is_said(tmp_path: Path) -> None:
    seen: list[bool] = []

    async def slow(call: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2)
        seen.append(True)
        await store._honest(call, writer)  # type: ignore[arg-type]

    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.faults = [slow]
        client = await pod.play(prints(b"x" * 20000))
        await client.request("POST", "/v1/prepare", job())
        events = [event async for event in client.stream(start(store.url("result.json")))]
        assert seen
        assert any(isinstance(event, Heartbeat) for event in events), "heartbeats go on meanwhile"


@pytest.mark.parametrize(
    "fault", [status(503), status(403), resets(), silence()], ids=["503", "403", "reset", "-"]
)
async def test_a_store_that_fails_does_not_keep_the_answer_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: object
) -> None:
    monkeypatch.setattr(conclusion, "STORE_SECONDS", 0.5)
    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.faults = [fault] * 50  # type: ignore[list-item]
        result = await result_of(pod, store, prints(b"x" * 20000))
        assert (result.reason, result.stored, result.stored_at) == ("Succeeded", False, None)
        assert result.store_error
        for secret in ("s3cr3t", "http:", "127.0.0.1"):
            assert secret not in result.store_error
        assert result.stdout.truncated


@pytest.mark.parametrize("seconds", [0, 1.1], ids=["more than the answer holds", "as a spare"])
async def test_a_store_that_takes_no_connection_does_not_keep_the_answer_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(transfer, "UNREACHED_SECONDS", 0.3)
    silent = SilentAddress()
    try:
        async with fake_store() as store, sidecar(tmp_path) as pod:
            store.base = f"http://127.0.0.1:{silent.port}"
            size = 10 if seconds else 20000
            result = await asyncio.wait_for(result_of(pod, store, prints(b"x" * size, seconds=seconds)), 20)
            assert (result.reason, result.stored) == ("Succeeded", False)
            assert result.store_error == "the store takes no connection"
            assert result.stdout.truncated is (size > 16384)
    finally:
        silent.close()


async def test_a_spare_copy_is_not_waited_for_as_long_as_one_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conclusion, "SPARE_SECONDS", 0.2)
    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.faults = [silence()] * 50
        result = await asyncio.wait_for(result_of(pod, store, prints(b"x", seconds=1.1)), 20)
        assert (result.stored, result.store_error) == (False, "the store did not take the result in time")
        assert result.stdout.text == "x"


async def test_a_lost_runtime_is_stored_like_any_other_end(tmp_path: Path) -> None:
    async def dies(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), frame("O", b"x" * 20000))
        runner.close()

    async with fake_store() as store, sidecar(tmp_path) as pod:
        result = await result_of(pod, store, dies)
        assert (result.reason, result.stored) == ("RuntimeLost", True)
        assert stored(store).stdout.text == "x" * 20000


async def test_without_a_target_nothing_is_stored(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(prints(b"x" * 20000))
        await client.request("POST", "/v1/prepare", job())
        result = await client.result(b"{}")
        assert (result.stored, result.store_error) == (False, None)
        assert result.stdout.truncated


async def test_a_later_start_brings_a_fresh_url(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        await go_on.wait()
        await runner.finish(b"x" * 20000)

    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(script)
        await client.request("POST", "/v1/prepare", job())
        async for _event in client.stream(start(store.url("expired"))):
            break
        client.close()
        waiting = asyncio.create_task(pod.client().result(start(store.url("result.json"))))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await waiting).stored
        assert list(store.objects) == ["result.json"]


async def test_logs_hold_no_secret_and_no_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.faults = [status(500)] * 10
        result = await result_of(pod, store, prints(b"private output " * 2000))
        assert result.store_error
        text = caplog.text
        assert "run finished: reason=Succeeded" in text
        for secret in ("s3cr3t", "private", "print(1)", store.base):
            assert secret not in text

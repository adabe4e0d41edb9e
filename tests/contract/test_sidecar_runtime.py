"""Runners that lie, babble, hang and die: each of them still gets one definite answer."""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import SESSION, Client, job, start
from contract.fakes_sidecar.harness import Sidecar, sidecar
from contract.fakes_sidecar.runner import EXIT_OK, FakeRunner, Script, frame
from kubecoderun_sidecar import run, runtime
from kubecoderun_sidecar.protocol import InlineCode, Limits, PrepareRequest, RunResult, SessionRef, Started

HELLO = frame("H", {"protocol": 1, "languages": ["py"]})
WARM = frame("W", {"preloaded": ["numpy"], "failed": {}})


async def run_with(pod: Sidecar, script: Script, **limits: float) -> RunResult:
    """Prepare and start against `script`; the result."""
    client = await pod.play(script)
    answer = await client.request("POST", "/v1/prepare", job(**limits))  # type: ignore[arg-type]
    assert answer.status == 200, answer
    return await client.result()


def after_start(*frames: bytes, wait: float = 0.0) -> Script:
    """A runner that starts the program, sends these bytes, and then closes (after `wait`)."""

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), *frames)
        await asyncio.sleep(wait)
        runner.close()

    return script


# ---- before anything is prepared


@pytest.mark.parametrize(
    "words",
    [
        b"nonsense nonsense",
        b"GET / HTTP/1.1\r\n\r\n",
        WARM,
        frame("O", b"output"),
        frame("H", {"protocol": 2, "languages": []}),
        frame("H", b"[1]"),
        frame("H", b"\xff"),
        frame("H", b"[" * 60000),
        b"H\xff\xff\xff\xff",
        b"H" + (65537).to_bytes(4, "big"),
        HELLO + HELLO,
        HELLO + frame("P"),
        HELLO + frame("W", b"no object"),
        HELLO + frame("F", {"message": "broken"}),
        HELLO + WARM + b"\x00",
        HELLO + WARM + frame("P"),
        HELLO + WARM + frame("X", EXIT_OK),
    ],
)
async def test_a_runner_that_breaks_the_protocol_before_a_job(tmp_path: Path, words: bytes) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.send(words)

    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        assert await pod.runner.hung_up()
        assert (await client.request("GET", "/v1/state")).json["runtime"] == "lost"
        answer = await client.request("POST", "/v1/prepare", job())
        assert (answer.status, answer.json["error"]) == (503, "runtime_lost")
        assert (await client.request("GET", "/v1/state")).json["owner"] is None, (
            "the pod can still be retired"
        )
        assert (await client.request("POST", "/v1/retire", b"{}")).status == 200


@pytest.mark.parametrize("words", [b"", b"H\x00", HELLO], ids=["nothing", "half", "hello"])
async def test_a_silent_runner_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr(runtime, "HELLO_SECONDS", 0.2)
    monkeypatch.setattr(runtime, "WARM_SECONDS", 0.4)
    async with sidecar(tmp_path) as pod:
        runner = await FakeRunner.connect(pod.channel)
        await runner.send(words)
        assert await runner.hung_up()
        client = pod.client()
        assert (await client.raw("GET", "/readyz", b"", {})).status == 503
        assert (await client.request("GET", "/v1/state")).json["runtime"] == "lost"


# ---- the socket


def exists(path: str) -> bool:
    return os.path.exists(path)


async def test_one_peer_and_then_the_socket_is_gone(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        assert os.stat(pod.channel).st_mode & 0o777 == 0o666
        second = asyncio.open_unix_connection(pod.channel)
        await pod.play(FakeRunner.run)
        with pytest.raises(OSError, match="No such file"):
            await second
        assert not exists(pod.channel)


async def test_of_two_peers_at_once_one_is_served(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        # Without giving the event loop a turn, so that all three wait to be accepted.
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for sock in sockets:
            sock.connect(pod.channel)
        runners = [FakeRunner(*await asyncio.open_unix_connection(sock=sock)) for sock in sockets]
        closed = [asyncio.create_task(runner.hung_up()) for runner in runners]
        done, pending = await asyncio.wait(closed, timeout=0.5)
        assert len(done) == 2
        assert len(pending) == 1
        for runner in runners:
            runner.close()
        await asyncio.gather(*pending)


async def test_another_uid_is_refused_and_listening_goes_on(tmp_path: Path) -> None:
    async with sidecar(tmp_path, uid=os.getuid() + 1) as pod:
        stranger = await FakeRunner.connect(pod.channel)
        assert await stranger.hung_up()
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "waiting"
        assert exists(pod.channel)
        pod.listener._allowed_uid = os.getuid()
        client = await pod.play(FakeRunner.run)
        assert (await client.raw("GET", "/readyz", b"", {})).status == 200


async def test_a_left_over_socket_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    async with sidecar(tmp_path), sidecar(tmp_path) as second:
        await second.play(FakeRunner.run)
    (tmp_path / "runner.sock").write_text("precious")
    with pytest.raises(OSError, match="in use"):
        async with sidecar(tmp_path):
            pass
    assert (tmp_path / "runner.sock").read_text() == "precious"


# ---- while preparing


async def close_at_once(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.read()
    runner.close()


async def fault(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.take_job()
    await runner.send(frame("F", {"message": "secret words of the user"}))


async def confirms_too_early(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.send(frame("P"))


async def starts_unasked(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.take_job()
    await runner.send(frame("S"))


async def says_nothing(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.take_job()
    await asyncio.sleep(3600)


async def reads_nothing(runner: FakeRunner) -> None:
    await runner.warm_up()
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    "script", [close_at_once, fault, starts_unasked, says_nothing, reads_nothing], ids=lambda f: f.__name__
)
async def test_a_runner_that_fails_a_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    monkeypatch.setattr(runtime, "ANSWER_SECONDS", 0.3)
    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        answer = await client.request("POST", "/v1/prepare", job("x" * 16000, stdin="y" * 16000))
        assert (answer.status, answer.json["error"]) == (503, "runtime_lost")
        assert "secret" not in answer.body.decode()
        state = (await client.request("GET", "/v1/state")).json
        assert (state["run"], state["runtime"], state["owner"]["kind"]) == (None, "lost", "session")
        assert (await client.request("POST", "/v1/start", start())).json["error"] == "not_prepared"
        assert (await client.request("POST", "/v1/prepare", job())).json["error"] == "runtime_lost"


async def test_a_confirmation_before_the_job(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(confirms_too_early)
        assert await pod.runner.hung_up()
        assert (await client.request("POST", "/v1/prepare", job())).status == 503


# ---- between prepare and start


@pytest.mark.parametrize("words", [b"", frame("S"), frame("O", b"x"), frame("X", EXIT_OK), b"\xff"])
async def test_a_runner_lost_between_prepare_and_start(tmp_path: Path, words: bytes) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.take_job()
        await runner.send(frame("P"))
        await asyncio.sleep(0.05)
        await runner.send(words)
        await asyncio.sleep(0.05)
        runner.close()

    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        assert (await client.request("POST", "/v1/prepare", job())).status == 200
        assert await pod.runner.hung_up()
        result = await client.result()
        assert (result.reason, result.started_at) == ("RuntimeLost", None)
        assert result.detail


# ---- while running

BROKEN = [
    b"nonsense",
    frame("S"),
    frame("P"),
    frame("H", {"protocol": 1, "languages": []}),
    frame("W"),
    frame("F", {"message": "secret words of the user"}),
    frame("X", b"{}"),
    frame("X", b"not json"),
    frame("X", {**EXIT_OK, "exitCode": 300}),
    frame("X", {**EXIT_OK, "cancelled": True}),
    b"X" + (1 << 20).to_bytes(4, "big"),
    b"O" + ((1 << 20) + 1).to_bytes(4, "big"),
    b"E\xff\xff\xff\xff",
]


@pytest.mark.parametrize("words", BROKEN, ids=range(len(BROKEN)))
async def test_a_runner_that_breaks_the_protocol_while_running(tmp_path: Path, words: bytes) -> None:
    async with sidecar(tmp_path) as pod:
        result = await run_with(
            pod, after_start(frame("O", b"so far\n"), frame("E", b"err\n"), words, wait=5)
        )
        assert result.reason == "RuntimeLost"
        assert (result.exit_code, result.signal) in ((None, None), (0, None))
        assert (result.stdout.text, result.stderr.text) == ("so far\n", "err\n")
        assert result.started_at is not None
        assert result.detail
        assert "secret" not in result.detail


@pytest.mark.parametrize(
    "rest", [b"", b"O\x00", b"O\x00\x00\x00\x09half", b"X\x00\x00\x00\x09{"], ids=["clean", "1", "2", "3"]
)
async def test_a_runner_that_dies_answers_at_once_with_the_output_so_far(tmp_path: Path, rest: bytes) -> None:
    async with sidecar(tmp_path) as pod:
        began = asyncio.get_running_loop().time()
        result = await run_with(pod, after_start(frame("O", b"so far\n"), rest))
        assert asyncio.get_running_loop().time() - began < 1
        assert result.reason == "RuntimeLost"
        assert result.stdout.text is not None
        assert result.stdout.text.startswith("so far\n")
        assert result.usage.cpu_seconds is None
        assert result.usage.wall_seconds >= 0


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        ({"exitCode": 3}, "NonZeroExit", None),
        ({"exitCode": None, "signal": "SIGSEGV"}, "Signalled", None),
        ({"exitCode": None, "signal": "SIGKILL", "timedOut": True}, "TimeLimit", "Time limit: .* after 30 s"),
        ({"exitCode": None, "signal": "SIGKILL", "oom": True}, "OOMKilled", "Memory limit: "),
        (
            {"exitCode": None, "signal": "SIGKILL", "limit": "output"},
            "OutputLimit",
            "Output limit: .* 6 bytes",
        ),
        ({"exitCode": 1, "limit": "disk"}, "DiskFull", "Disk limit: "),
    ],
)
async def test_honest_ends(tmp_path: Path, fields: dict[str, object], reason: str, told: str | None) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.run(b"out", b"err", **fields)

    async with sidecar(tmp_path) as pod:
        result = await run_with(pod, script)
        assert result.reason == reason
        assert (result.exit_code, result.signal) == (fields.get("exitCode"), fields.get("signal"))
        stderr, _, line = str(result.stderr.text).partition("\n[kubecoderun] ")
        assert (result.stdout.text, stderr) == ("out", "err")
        assert re.match(told, line) if told else not line
        assert (result.stderr.bytes, result.stderr.truncated) == (3, False)
        assert (result.usage.cpu_seconds, result.usage.max_rss_bytes) == (0.01, 9_000_000)


async def test_words_after_the_end_change_nothing(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        words = frame("X", EXIT_OK) + frame("X", {**EXIT_OK, "exitCode": 9}) + frame("O", b"late")
        result = await run_with(pod, after_start(frame("O", b"out"), words, wait=1))
        assert (result.reason, result.stdout.text) == ("Succeeded", "out")
        assert await pod.runner.hung_up()
        assert await pod.client().result() == result
        assert (await pod.client().request("GET", "/v1/state")).json["run"] == "finished"


async def test_a_runner_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "START_SECONDS", 0.2)

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await asyncio.sleep(3600)

    async with sidecar(tmp_path) as pod:
        result = await run_with(pod, script)
        assert (result.reason, result.started_at) == ("RuntimeLost", None)
        assert result.detail == "the runner did not start the program in time"


async def babble(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.prepare()
    await runner.send(frame("S"))
    while True:
        await runner.send(frame("O", b"x" * 60000), frame("E", b""), frame("E", b"e"))


async def hang(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.prepare()
    await runner.send(frame("S"), frame("O", b"x"))
    await asyncio.sleep(3600)


async def drip(runner: FakeRunner) -> None:
    """The frame of the end, one byte at a time, for ever."""
    await runner.warm_up()
    await runner.prepare()
    await runner.send(frame("S"), frame("O", b"x"), b"X" + (60000).to_bytes(4, "big"))
    while True:
        await runner.send(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("script", [babble, hang, drip], ids=lambda f: f.__name__)
async def test_the_time_limit_has_a_backstop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script
) -> None:
    monkeypatch.setattr(run, "TIME_LIMIT_GRACE_SECONDS", 0.3)
    async with sidecar(tmp_path) as pod:
        result = await run_with(pod, script, timeout=0.2)
        assert result.reason == "TimeLimit"
        assert (result.exit_code, result.signal) == (None, None)
        assert result.detail == "the runner did not end the program at its time limit"
        assert 0.4 <= result.usage.wall_seconds < 3
        assert (await pod.client().request("GET", "/v1/state")).json["runtime"] == "lost"
        assert result.stdout.bytes > 0


async def test_the_output_limit_has_a_backstop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames without end from a runner that pays no attention to its order."""
    monkeypatch.setattr(run, "OUTPUT_GRACE_BYTES", 1 << 20)

    async def endless(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        assert runner.job["outputBytes"] == 1 << 20
        await runner.send(frame("S"))
        while True:
            await runner.send(frame("O", b"x" * 65536), frame("E", b"y" * 65536))

    async with sidecar(tmp_path) as pod:
        client = await pod.play(endless)
        limits = Limits(30, 65536, printed_bytes=1 << 20)
        order = PrepareRequest(SessionRef("n", "n", SESSION), "py", InlineCode("x"), limits=limits)
        assert (await client.request("POST", "/v1/prepare", order.to_json())).status == 200
        result = await client.result(start())
        assert result.reason == "OutputLimit"
        assert result.stdout.bytes + result.stderr.bytes <= (2 << 20) + 65536
        told = str(result.stderr.text).partition("[kubecoderun] ")[2]
        assert told.startswith("Output limit: the program was ended after printing 2")
        assert told.count("\n") == 1


# ---- cancel


def running_until_killed(obeys: bool) -> Callable[[FakeRunner], Awaitable[None]]:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), frame("O", b"working\n"))
        kind, _payload = await runner.read()
        assert kind == "K"
        if obeys:
            await runner.finish(exitCode=None, signal="SIGKILL", cancelled=True)
        await asyncio.sleep(3600)

    return script


async def started(client: Client) -> asyncio.Task[RunResult]:
    """A task that waits for the result of a run that has started."""
    begun = asyncio.Event()

    async def follow() -> RunResult:
        async for event in client.stream(start()):
            if isinstance(event, Started):
                begun.set()
        return await client.result()

    task = asyncio.create_task(follow())
    await begun.wait()
    return task


@pytest.mark.parametrize("obeys", [True, False])
async def test_cancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool) -> None:
    monkeypatch.setattr(run, "CANCEL_SECONDS", 0.3)
    async with sidecar(tmp_path) as pod:
        client = await pod.play(running_until_killed(obeys))
        await client.request("POST", "/v1/prepare", job())
        following = await started(client)
        other = pod.client()
        for _ in range(2):
            assert (await other.request("POST", "/v1/cancel", b"{}")).status == 202
        result = await following
        assert result.reason == "Cancelled"
        assert result.signal == ("SIGKILL" if obeys else None)
        assert result.stdout.text == "working\n"
        assert (await other.request("GET", "/v1/state")).json["runtime"] == ("warm" if obeys else "lost")
        assert (await other.request("POST", "/v1/cancel", b"{}")).status == 202, "again, after the end"
        assert await other.result() == result


async def test_cancel_before_start(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(FakeRunner.run)
        await client.request("POST", "/v1/prepare", job())
        assert (await client.request("POST", "/v1/cancel", b"{}")).status == 202
        result = await client.result()
        assert (result.reason, result.started_at) == ("Cancelled", None)
        assert pod.runner.goes == 0


async def test_cancel_while_preparing(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.take_job()
        await go_on.wait()
        await runner.send(frame("P"))

    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        preparing = asyncio.create_task(client.request("POST", "/v1/prepare", job()))
        other = pod.client()
        while (await other.request("GET", "/v1/state")).json["owner"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await other.request("POST", "/v1/cancel", b"{}")).status == 202
        go_on.set()
        assert (await preparing).status == 200
        assert (await client.result()).reason == "Cancelled"
        assert pod.runner.goes == 0


async def test_cancel_between_go_and_started(tmp_path: Path) -> None:
    async def script(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        assert (await runner.read())[0] == "K"
        await runner.send(frame("S"))
        await runner.finish(exitCode=None, signal="SIGKILL", cancelled=True)

    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        await client.request("POST", "/v1/prepare", job())
        following = asyncio.create_task(client.result())
        other = pod.client()
        while (await other.request("GET", "/v1/state")).json["run"] != "running":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await other.request("POST", "/v1/cancel", b"{}")
        assert (await following).reason == "Cancelled"

"""The output of a run in progress, as the operator asks for it when somebody watches."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

from contract.fakes_sidecar.client import Client, job, start
from contract.fakes_sidecar.harness import Sidecar, sidecar
from contract.fakes_sidecar.runner import EXIT_OK, FakeRunner, frame
from kubecoderun_sidecar.protocol import (
    Event,
    Finished,
    OutputAnswer,
    OutputRequest,
    RunResult,
    Started,
)


class Play:
    """A run whose program writes what the test says."""

    def __init__(self, pod: Sidecar) -> None:
        self._pod = pod
        self.client: Client
        self.watcher = pod.client()
        self._result: asyncio.Task[RunResult]

    async def begin(self, *, output_bytes: int = 65536) -> None:
        async def script(runner: FakeRunner) -> None:
            await runner.warm_up()
            await runner.prepare()
            await runner.send(frame("S"))

        self.client = await self._pod.play(script)
        await self.client.request("POST", "/v1/prepare", job(output_bytes=output_bytes))
        events = self.client.stream(start())
        assert isinstance(await anext(events), Started)
        self._result = asyncio.create_task(_last(events))

    async def write(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        frames = [frame(kind, data) for kind, data in (("O", stdout), ("E", stderr)) if data]
        await self._pod.runner.send(*frames)

    async def end(self) -> RunResult:
        await self._pod.runner.send(frame("X", EXIT_OK))
        return await self._result

    async def look(self, stdout: int = 0, stderr: int = 0, wait: float = 10.0) -> OutputAnswer:
        body = OutputRequest(stdout, stderr, wait).to_json()
        answer = await self.watcher.request("POST", "/v1/output", body)
        assert answer.status == 200, answer
        return OutputAnswer.parse(answer.body)


async def _last(events: AsyncGenerator[Event]) -> RunResult:
    async for event in events:
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("no result")


async def test_output_is_told_while_the_program_runs(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        await play.begin()
        waiting = asyncio.create_task(play.look())
        await asyncio.sleep(0.05)
        assert not waiting.done(), "there is nothing to tell yet"
        await play.write(b"one\n")
        found = await waiting
        assert (found.run, found.stdout.at, found.stdout.data, found.stdout.total) == (
            "running",
            0,
            b"one\n",
            4,
        )
        assert found.stderr.data == b""
        await play.write(stderr=b"\xff\x00")
        assert (await play.look(stdout=4)).stderr.data == b"\xff\x00"
        assert (await play.look()).stdout.data == b"one\n", "anybody may begin at the beginning"
        result = await play.end()
        assert result.stdout.text == "one\n"


async def test_a_look_at_a_silent_program_ends(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        await play.begin()
        found = await play.look(wait=0.05)
        assert (found.run, found.stdout.data, found.stdout.total) == ("running", b"", 0)


async def test_the_end_of_the_run_ends_a_look(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        await play.begin()
        await play.write(b"x")
        await play.look()
        waiting = asyncio.create_task(play.look(stdout=1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await play.end()
        assert (await waiting).run == "finished"
        assert (await play.look(wait=10)).run == "finished", "at once: nothing more will come"


async def test_pieces_are_bounded_and_lost_output_shows(tmp_path: Path) -> None:
    """Of standard error beginning and end are kept."""
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        await play.begin(output_bytes=65536)
        written = bytes(range(256)) * 4096
        for place in range(0, len(written), 65536):
            await play.write(stderr=written[place : place + 65536])
        async with asyncio.timeout(20):
            while (await play.look()).stderr.total < len(written):  # noqa: ASYNC110 - it is another program's
                await asyncio.sleep(0.01)
        read, offset, gaps = 0, 0, 0
        while offset < len(written):
            piece = (await play.look(stderr=offset)).stderr
            assert 0 < len(piece.data) <= 32768
            assert piece.data == written[piece.at : piece.at + len(piece.data)]
            gaps += piece.at - offset
            offset = piece.at + len(piece.data)
            read += len(piece.data)
        assert read + gaps == len(written)
        assert read >= 65536, "what the result keeps can be watched"


async def test_who_may_look(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        body = OutputRequest().to_json()
        stranger = pod.client()
        assert (await stranger.request("POST", "/v1/output", body)).status == 409, "not prepared"
        await play.begin()
        assert (await stranger.request("POST", "/v1/output", body, session="another")).status == 409
        assert (await stranger.raw("POST", "/v1/output", body, {})).status == 401
        for wrong in ({"stdout": -1}, {"waitSeconds": 21}, {"stderr": "0"}, {"stdout": True}):
            sent = json.dumps({"stdout": 0, "stderr": 0, "waitSeconds": 0} | wrong).encode()
            assert (await pod.client().request("POST", "/v1/output", sent)).status == 400, wrong


async def test_a_watcher_that_leaves_changes_nothing(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        play = Play(pod)
        await play.begin()
        waiting = asyncio.create_task(play.look())
        await asyncio.sleep(0.05)
        waiting.cancel()
        play.watcher.close()
        await play.write(b"after")
        assert (await play.end()).stdout.text == "after"

"""The program itself: settings, stopping, memory."""

import asyncio
import os
import socket
from pathlib import Path

from contract.fakes_sidecar.client import Client, job
from contract.fakes_sidecar.program import Program, program
from contract.fakes_sidecar.runner import EXIT_OK, FakeRunner, frame
from kubecoderun_sidecar.protocol import RunResult

IDLE_KIB = 30 * 1024


async def test_unusable_settings_are_told_before_anything_starts(tmp_path: Path) -> None:
    async with program(tmp_path, KCR_RUNTIME_UID="root", KCR_PUBLIC_KEYS="x") as sidecar:
        _out, errors = await asyncio.wait_for(sidecar.process.communicate(), 20)
        assert sidecar.process.returncode == 2
        assert b"KCR_RUNTIME_UID must be" in errors
        assert b"KCR_PUBLIC_KEYS: public key must be" in errors
        assert b"Traceback" not in errors


async def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        async with program(tmp_path, KCR_PORT=port, KCR_HOST="127.0.0.1") as sidecar:
            _out, errors = await asyncio.wait_for(sidecar.process.communicate(), 20)
            assert sidecar.process.returncode == 1
            assert b"cannot serve" in errors
            assert not (tmp_path / "runner.sock").exists()


async def test_idle_it_is_small_and_stops_at_once(tmp_path: Path) -> None:
    async with program(tmp_path) as sidecar:
        runner = await FakeRunner.connect(sidecar.channel)
        await runner.warm_up()
        client = await sidecar.ready()
        assert (await client.request("GET", "/v1/state")).status == 200
        assert sidecar.memory("VmRSS") <= IDLE_KIB
        assert await sidecar.stop() < 2
        assert sidecar.process.stderr is not None
        errors = await sidecar.process.stderr.read()
        assert b"Traceback" not in errors
        assert b"ERROR" not in errors


async def test_a_prepared_run_does_not_delay_the_stop(tmp_path: Path) -> None:
    async with program(tmp_path) as sidecar:
        runner = await FakeRunner.connect(sidecar.channel)
        await runner.warm_up()
        client = await sidecar.ready()
        taking = asyncio.create_task(runner.take_job())
        preparing = asyncio.create_task(client.request("POST", "/v1/prepare", job()))
        await taking
        await runner.send(frame("P"))
        assert (await preparing).status == 200
        assert await sidecar.stop() < 2


async def begin_run(sidecar: Program) -> tuple[FakeRunner, asyncio.Task[RunResult]]:
    """A run in progress, and a task that waits for its result."""
    runner = await FakeRunner.connect(sidecar.channel)
    await runner.warm_up()
    client = await sidecar.ready()
    playing = asyncio.create_task(runner.prepare())
    assert (await client.request("POST", "/v1/prepare", job(output_bytes=1 << 20))).status == 200
    result = asyncio.create_task(client.result())
    await playing
    await runner.send(frame("S"))
    return runner, result


async def test_a_run_in_progress_ends_before_the_program_does(tmp_path: Path) -> None:
    async with program(tmp_path) as sidecar:
        runner, result = await begin_run(sidecar)
        stopping = asyncio.create_task(sidecar.stop())
        await asyncio.sleep(0.5)
        assert not stopping.done()
        late = Client(sidecar.port)
        assert (await late.request("GET", "/v1/state")).json["run"] == "running"
        await runner.finish(b"done\n")
        assert (await result).stdout.text == "done\n"
        assert await stopping < 2.5


async def test_the_grace_period_is_bounded(tmp_path: Path) -> None:
    async with program(tmp_path, KCR_GRACE_SECONDS="0.3") as sidecar:
        _runner, result = await begin_run(sidecar)
        assert 0.2 < await sidecar.stop() < 4
        result.cancel()
        await asyncio.gather(result, return_exceptions=True)


async def test_much_output_flows_through_little_memory(tmp_path: Path) -> None:
    async with program(tmp_path) as sidecar:
        runner, result = await begin_run(sidecar)
        before = sidecar.memory("VmRSS")
        output = frame("O", os.urandom(1 << 18)) + frame("E", os.urandom(1 << 18))
        for _ in range(512):
            await runner.send(output)
        await runner.send(frame("X", EXIT_OK))
        finished = await result
        assert finished.stdout.bytes == finished.stderr.bytes == 1 << 27
        # Twice the kept megabyte and a quarter, its copies for the answer, and what the allocator leaves.
        assert sidecar.memory("VmHWM") - before < 24 * 1024

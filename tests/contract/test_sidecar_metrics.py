"""The sidecar's numbers, as its port tells them, and what a slow reader or a strange peer costs it."""

from __future__ import annotations

import array
import asyncio
import json
import os
import re
import socket
from pathlib import Path

from contract.fakes_sidecar.client import job, start
from contract.fakes_sidecar.harness import sidecar
from contract.fakes_sidecar.program import program
from contract.fakes_sidecar.runner import FakeRunner, frame
from kubecoderun_sidecar import metrics

MIB = 1 << 20


def parsed(text: str) -> dict[str, float]:
    """Every number by its name and labels; all lines are of the format."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[^"\n\\]*"\})?) ([0-9.e+]+)', line)
            assert match, line
            found[match[1]] = float(match[2])
    return found


async def test_a_run_and_its_requests_are_counted(tmp_path: Path) -> None:
    prefix = "kubecoderun_sidecar_"

    async def script(runner: FakeRunner) -> None:
        await runner.run(b"12345", b"123", exitCode=3)

    async with sidecar(tmp_path) as pod:
        client = await pod.play(script)
        before = parsed((await client.raw("GET", "/metrics", b"", {})).body.decode())
        await client.request("POST", "/v1/prepare", job())
        _events = [event async for event in client.stream(start())]
        await client.raw("GET", "/somebody's/words", b"", {})
        stranger = pod.client()
        await stranger.raw("GET", "/v1/state", b"", {})
        answer = await client.raw("GET", "/metrics", b"", {})
        after = parsed(answer.body.decode())
        assert answer.headers["content-type"].startswith("text/plain")

        def more(name: str) -> float:
            return after.get(prefix + name, 0) - before.get(prefix + name, 0)

        assert more('runs_total{reason="NonZeroExit"}') == 1
        assert (more('output_bytes_total{stream="stdout"}'), more('output_bytes_total{stream="stderr"}')) == (
            5,
            3,
        )
        assert more('requests_total{path="/v1/prepare"}') == 1
        assert more('requests_total{path="other"}') == 1
        assert more("unauthorized_total") == 1
        assert after["process_resident_memory_bytes"] > MIB
        assert b"somebody" not in answer.body


def test_numbers_are_written_whole() -> None:
    counter = metrics.Counter("x_total", "X.", "kind")
    counter.inc("a", 2**40 + 1)
    assert list(counter.lines())[2] == 'kubecoderun_sidecar_x_total{kind="a"} 1099511627777'


async def test_a_reader_that_reads_nothing_costs_nothing(tmp_path: Path) -> None:
    """The operator opens the stream of a run and does not read it, while the program prints 200 MiB."""
    async with program(tmp_path) as sidecar_process:
        runner = await FakeRunner.connect(sidecar_process.channel)
        await runner.warm_up()
        client = await sidecar_process.ready()
        preparing = asyncio.create_task(runner.prepare())
        await client.request("POST", "/v1/prepare", job())
        body = start()
        head = b"".join(
            f"{k}: {v}\r\n".encode() for k, v in client.signature("POST", "/v1/start", body).items()
        )
        # a receive buffer as small as can be, and nobody who reads from it
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(("127.0.0.1", sidecar_process.port))
        request = b"POST /v1/start HTTP/1.1\r\nHost: x\r\n" + head
        deaf.sendall(request + b"content-length: %d\r\n\r\n" % len(body) + body)
        await preparing
        await runner.send(frame("S"))
        before = sidecar_process.memory("VmRSS")
        piece = frame("O", b"x" * MIB)
        for _ in range(200):
            await runner.send(piece)
        assert sidecar_process.memory("VmHWM") - before < 8 * 1024, "KiB"
        await runner.finish()
        results = [event async for event in client.stream(body)]
        assert results[-1].result.stdout.bytes == 200 * MIB  # type: ignore[union-attr]
        deaf.close()


async def test_descriptors_that_a_runner_passes_are_not_taken(tmp_path: Path) -> None:
    """A peer may send open files along with its frames: they must not pile up here."""
    async with program(tmp_path) as sidecar_process:
        with socket.socket(socket.AF_UNIX) as peer:
            for _ in range(500):
                try:
                    peer.connect(sidecar_process.channel)
                    break
                except OSError:
                    await asyncio.sleep(0.02)
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            hello = json.dumps({"protocol": 1, "languages": ["py"]}).encode()
            peer.sendmsg([b"H" + len(hello).to_bytes(4, "big") + hello], passed)
            peer.sendmsg([b"W\0\0\0\2{}"], passed)
            await sidecar_process.ready()
            held = len(os.listdir(f"/proc/{sidecar_process.process.pid}/fd"))
            assert held < 40
            for fd in fds:
                os.close(fd)

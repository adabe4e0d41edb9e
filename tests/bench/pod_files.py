"""How fast files move through one pod, without a cluster: a store, the sidecar and the runner, each a process
of its own on this machine. Needs root, for the runner's PID namespace.

usage: pod_files.py [--megabytes N] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "sidecar")]

from bench.figures import Scenario  # noqa: E402
from contract.fakes_sidecar.client import SESSION, Client  # noqa: E402
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE  # noqa: E402
from contract.fakes_sidecar.program import Program, program  # noqa: E402
from kubecoderun_sidecar.protocol import (  # noqa: E402
    FormTarget,
    InlineCode,
    InputFile,
    Limits,
    OutputTarget,
    PrepareRequest,
    RunResult,
    SessionRef,
    StartRequest,
)

MANY = 64
ORDER = PrepareRequest(SessionRef("n", "n", SESSION), "py", InlineCode("pass"))


class _Serving:
    """A store that costs as little as possible: it sends zeros, and forgets what it is given."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._zeros = memoryview(bytes(1 << 20))

    def run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = bytearray()
        room = memoryview(bytearray(1 << 20))
        while True:
            while b"\r\n\r\n" not in held:
                data = sock.recv(65536)
                if not data:
                    return
                held += data
            head, _, rest = bytes(held).partition(b"\r\n\r\n")
            if head.startswith(b"GET"):
                left = int(head.split(b" ")[1].rpartition(b"/")[2])
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
                while left:
                    left -= sock.send(self._zeros[:left])
                held = bytearray(rest)
                continue
            found = re.search(rb"(?i)content-length: (\d+)", head)
            left = int(found[1] if found else 0) - len(rest)
            while left > 0:
                left -= sock.recv_into(room, min(left, len(room)))
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            held = bytearray()


def _store(pipe: Pipe) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    pipe.send(listener.getsockname()[1])
    _Serving(listener).run()


@asynccontextmanager
async def _runner(workspace: Path, channel: str) -> AsyncGenerator[None]:
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *(sys.executable, "-m", "kubecoderun_runner"),
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT / "runner"),
            "KCR_CHANNEL": channel,
            "KCR_WORKSPACE": str(workspace),
            "KCR_PRELOAD": "decimal",
        },
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _pod(base: Path) -> AsyncGenerator[tuple[Program, Client]]:
    # Memory, as a pool's scratch space is by default.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as workspace:
        async with program(base) as sidecar, _runner(Path(workspace), sidecar.channel):
            yield sidecar, await sidecar.ready()


async def _prepare(client: Client, order: PrepareRequest) -> float:
    began = time.perf_counter()
    answer = await client.request("POST", "/v1/prepare", order.to_json())
    assert answer.status == 200, answer
    return (time.perf_counter() - began) * 1000


async def _run(client: Client, request: StartRequest) -> tuple[float, RunResult]:
    began = time.perf_counter()
    result = await client.result(request.to_json())
    return (time.perf_counter() - began) * 1000, result


async def _measure(port: int, megabytes: int, base: Path) -> dict[str, float]:
    """One round: milliseconds of each step, and KiB the sidecar grew by."""
    size = megabytes * 1_000_000
    url = f"http://127.0.0.1:{port}"
    grant = StartRequest(outputs=OutputTarget("p" * 13, FormTarget(f"{url}/bucket", "k/", {"policy": "x"})))
    limits = Limits(files=MANY, file_bytes=1 << 30, total_file_bytes=1 << 30)
    found: dict[str, float] = {}
    cases = {
        "no files": (replace(ORDER, limits=replace(limits, files=0)), StartRequest()),
        "no files found": (replace(ORDER, limits=limits), grant),
        "one in": (replace(ORDER, inputs=(InputFile("data.bin", f"{url}/{size}", size),)), StartRequest()),
        "many in": (
            replace(ORDER, inputs=tuple(InputFile(f"{n}.txt", f"{url}/1000", 1000) for n in range(MANY))),
            StartRequest(),
        ),
        "one out": (
            replace(ORDER, code=InlineCode(f"open('x', 'wb').write(bytes({size}))"), limits=limits),
            grant,
        ),
        "many out": (
            replace(
                ORDER,
                code=InlineCode(f"for n in range({MANY}): open(str(n), 'wb').write(bytes(1000))"),
                limits=limits,
            ),
            grant,
        ),
    }
    for name, (order, start) in cases.items():
        folder = Path(tempfile.mkdtemp(dir=base))
        async with _pod(folder) as (sidecar, client):
            before = sidecar.memory("VmRSS")
            found[f"{name}: prepare ms"] = await _prepare(client, order)
            took, result = await _run(client, start)
            assert result.reason == "Succeeded", result
            found[f"{name}: start to finished ms"] = took - result.usage.wall_seconds * 1000
            found[f"{name}: sidecar grew KiB"] = sidecar.memory("VmHWM") - before
            expected = {"one out": 1, "many out": MANY}.get(name, 0)
            assert len(result.files) == expected, result
            client.close()
    return found


def _rounds(megabytes: int, count: int) -> list[dict[str, float]]:
    """All figures, so many times."""
    ours, theirs = multiprocessing.Pipe()
    store = multiprocessing.Process(target=_store, args=(theirs,), daemon=True)
    store.start()
    port = ours.recv()
    found = []
    with tempfile.TemporaryDirectory() as base:
        for _ in range(count):
            found.append(asyncio.run(_measure(port, megabytes, Path(base))))  # noqa: PERF401
    store.terminate()
    store.join()
    return found


def pod_45mb(n: int) -> dict[str, Scenario]:
    """45 MB in and out of one pod: medians in milliseconds, and by how much the sidecar grew at most."""
    if WHY_IMPOSSIBLE:
        return {"pod_45mb": {"skipped": WHY_IMPOSSIBLE}}
    rounds = _rounds(45, n)
    into = [found["one in: prepare ms"] for found in rounds]
    out = [found["one out: start to finished ms"] for found in rounds]
    grown = [found[f"one {way}: sidecar grew KiB"] for found in rounds for way in ("in", "out")]
    figures = {"in_p50_ms": statistics.median(into), "out_p50_ms": statistics.median(out)}
    rounded = {name: round(value, 1) for name, value in figures.items()}
    return {"pod_45mb": {"n": n, "errors": 0, **rounded, "sidecar_growth_mib": round(max(grown) / 1024, 1)}}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--megabytes", type=int, default=45)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    rounds = _rounds(chosen.megabytes, chosen.rounds)
    print(f"{chosen.megabytes} MB in one file; {MANY} files of 1 kB; {chosen.rounds} rounds")
    print(f"{'':40} {'median':>8} {'best':>8} {'worst':>8}")
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        print(f"{name:40} {statistics.median(values):8.1f} {min(values):8.1f} {max(values):8.1f}")


if __name__ == "__main__":
    os.umask(0o022)
    main()

"""The front end as a container starts it, a process of its own, before a fake API server."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.fakes_api.apiserver import FakeApiServer, api_server
from contract.fakes_api.client import Connection, Reply

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass
class Program:
    """A front end in a process of its own."""

    process: asyncio.subprocess.Process
    api: FakeApiServer
    port: int
    lines: list[dict[str, Any]]
    """What it has logged."""

    async def post(self) -> Reply:
        """One run of `print(1)`."""
        async with Connection("127.0.0.1", self.port) as connection:
            await connection.send("POST", "/exec", b'{"lang":"py","code":"print(1)"}')
            return await connection.reply()

    async def metrics(self) -> dict[str, float]:
        """Its metrics by name and labels, as Prometheus writes them."""
        async with Connection("127.0.0.1", self.port) as connection:
            await connection.send("GET", "/metrics")
            text = (await connection.reply()).raw.decode()
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 15)

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one kind."""
        return [line for line in self.lines if line["event"] == event]

    def memory(self) -> tuple[int, int]:
        """Resident bytes now, and the most there have been since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@asynccontextmanager
async def program(folder: Path, **settings: str) -> AsyncIterator[Program]:
    """A started program that is ready, before an API server of its own."""
    async with api_server() as api, started(api, folder, **settings) as made:
        yield made


@asynccontextmanager
async def started(api: FakeApiServer, folder: Path, **settings: str) -> AsyncIterator[Program]:
    """A started program that is ready, with these KCR_ variables. Its kubeconfig is written into `folder`.

    One at a time: it is ready when this API server has been asked all that is asked at a start.
    """
    (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(api.url)))
    port = free_port()
    values = {"KCR_HOST": "127.0.0.1", "KCR_PORT": str(port), "KCR_AUTH": "none", "KCR_DRAIN_SECONDS": "0"}
    asked = sum(api.requests.values())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kubecoderun_api",
        env=_environment(folder, **values | settings),
        stdout=asyncio.subprocess.PIPE,
    )
    program = Program(process, api, port, [])
    reading = asyncio.create_task(_collect(process, program.lines))
    try:
        await api.until(lambda: sum(api.requests.values()) >= asked + 4, seconds=90)
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


def _environment(folder: Path, **settings: str) -> dict[str, str]:
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("crds", "api"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KCR_")}
    return kept | {"PYTHONPATH": path, "KUBECONFIG": str(folder / "kubeconfig")} | settings


async def _collect(process: asyncio.subprocess.Process, lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        lines += [json.loads(line)]


def free_port() -> int:
    """A port of the loopback interface that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

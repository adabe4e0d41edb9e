"""The front end in a process of its own, as a container starts it."""

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
BODY = b'{"lang":"py","code":"print(1)"}'


@dataclass
class Program:
    """A front end in a process of its own."""

    process: asyncio.subprocess.Process
    api: FakeApiServer
    port: int
    lines: list[dict[str, Any]]

    async def post(self) -> Reply:
        async with Connection("127.0.0.1", self.port) as connection:
            await connection.send("POST", "/exec", BODY)
            return await connection.reply()

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 15)

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def memory(self) -> tuple[int, int]:
        """Resident bytes now, and the most there have been since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(sizes[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def _environment(folder: Path, **settings: str) -> dict[str, str]:
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("crds", "api"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KCR_")}
    return kept | {"PYTHONPATH": path, "KUBECONFIG": str(folder / "kubeconfig")} | settings


async def _start(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kubecoderun_api", env=environment, stdout=asyncio.subprocess.PIPE
    )


async def _collect(process: asyncio.subprocess.Process, lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        lines += [json.loads(line)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def program(folder: Path, **settings: str) -> AsyncIterator[Program]:
    """A started program that is ready."""
    async with api_server() as api:
        config = {
            "clusters": [{"name": "c", "cluster": {"server": api.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (folder / "kubeconfig").write_text(json.dumps(config))
        port = _free_port()
        values = {
            "KCR_HOST": "127.0.0.1",
            "KCR_PORT": str(port),
            "KCR_AUTH": "none",
            "KCR_DRAIN_SECONDS": "0",
        }
        process = await _start(_environment(folder, **values | settings))
        made = Program(process, api, port, [])
        reading = asyncio.create_task(_collect(process, made.lines))
        try:
            await api.until(lambda: sum(api.requests.values()) >= 4, seconds=20)
            yield made
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading

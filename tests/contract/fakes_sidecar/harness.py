"""A sidecar in this process: real TCP port, real unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from contract.fakes_sidecar.client import POD_UID, SIGNER, Client
from contract.fakes_sidecar.runner import FakeRunner, Script
from kubecoderun_sidecar.listener import RuntimeListener
from kubecoderun_sidecar.pod import Pod
from kubecoderun_sidecar.protocol import Verifier
from kubecoderun_sidecar.routes import Routes
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.server import Server
from kubecoderun_sidecar.transfer import Store


class Sidecar:
    """The parts as __main__ puts them together."""

    def __init__(self, folder: Path, *, uid: int | None = None, keys: tuple[str, ...] = ()) -> None:
        self.channel = str(folder / "runner.sock")
        self.link = RuntimeLink()
        self.pod = Pod(self.link, Store())
        self.routes = Routes(self.pod, Verifier(keys or (SIGNER.public_key,), POD_UID))
        self.server = Server(self.routes.handle)
        self.listener = RuntimeListener(self.link, self.channel, os.getuid() if uid is None else uid)
        self.port = 0
        self._clients: list[Client] = []
        self._runners: list[asyncio.Task[None]] = []
        self.runner: FakeRunner

    async def open(self) -> None:
        await self.listener.open()
        self.port = await self.server.open("127.0.0.1", 0)

    def client(self, *args: object) -> Client:
        client = Client(self.port, *args)  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    async def play(self, script: Script) -> Client:
        """Let a runner play `script` beside the test; a client, once the runner is warm or lost."""
        self.runner = await FakeRunner.connect(self.channel)
        self._runners.append(asyncio.create_task(_play(script, self.runner)))
        for _ in range(5000):
            if self.link.was_warm or self.link.lost:
                return self.client()
            await asyncio.sleep(0.001)
        raise TimeoutError("the runner is neither warm nor lost")

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self.listener.close()
        self.server.close()
        self.link.lose("the test is over")
        await asyncio.sleep(0)


async def _play(script: Script, runner: FakeRunner) -> None:
    await script(runner)


@asynccontextmanager
async def sidecar(
    folder: Path, *, uid: int | None = None, keys: tuple[str, ...] = ()
) -> AsyncGenerator[Sidecar]:
    """A running sidecar with its socket in `folder`."""
    instance = Sidecar(folder, uid=uid, keys=keys)
    await instance.open()
    try:
        yield instance
    finally:
        await instance.close()

"""The operator as a process of its own, with its real entry point, event loop and signals."""

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp

from contract.fakes.system import STORE, System

_REPOSITORY = Path(__file__).resolve().parents[3]


class OperatorProcess:
    """`python -m kubecoderun_operator` against the fake API server of a System."""

    def __init__(self, system: System, folder: Path, identity: str) -> None:
        self._system = system
        self._folder = folder
        self._identity = identity
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()
        self.log = folder / f"{identity}.log"

    async def start(self, *, standby: bool = False, **overrides: Any) -> None:
        """Start it, and wait until it leads and watches, or until it stands by."""
        settings = {
            "kubeconfig": self._kubeconfig(),
            "signing_key_file": self._key(),
            "pod_uid": self._identity,
            "sidecar_port": self._system.node.port,
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "lease_seconds": 3,
            "lease_renew_deadline": 1.5,
            "lease_renew_seconds": 0.5,
            "lease_retry_seconds": 0.1,
            "api_attempt_seconds": 1,
            **STORE,
            "store_endpoint": self._system.objects.url,
            **overrides,
        }
        environment = {f"KCR_{name.upper()}": str(value) for name, value in settings.items()}
        folders = [str(_REPOSITORY / part) for part in ("crds", "operator", "sidecar")]
        with self.log.open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "kubecoderun_operator",
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(folders)},
                stdout=log,
                stderr=log,
            )
        await self._healthy()
        if not standby:
            # One of the watchers of pods is the node.
            collections = self._system.api.store.collections
            await self._system.until(
                lambda: (
                    len(collections["pods"].watchers) > 1
                    and collections["executionpools"].watchers
                    and collections["executionsessions"].watchers
                ),
                f"the operator watches, see {self.log}",
                30,
            )

    async def _healthy(self) -> None:
        for _ in range(600):
            try:
                await self.get("/healthz")
                return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
        raise AssertionError(f"no answer on the health port, see {self.log}")

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), 15)

    async def ended(self, seconds: float) -> int:
        """The exit code, when it ends by itself."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its health port."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, await answer.text()

    @property
    def alive(self) -> bool:
        """Whether the process that was started is still the one that runs."""
        return self._process is not None and self._process.returncode is None

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def messages(self) -> list[str]:
        """The messages of its log."""
        return [entry["message"] for entry in self.lines()]

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    def _kubeconfig(self) -> Path:
        path = self._folder / "kubeconfig"
        named = {"name": "test"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{**named, "cluster": {"server": self._system.api.url}}],
            "users": [{**named, "user": {}}],
        }
        path.write_text(json.dumps(content))
        return path

    def _key(self) -> Path:
        path = self._folder / "private.key"
        path.write_text(base64.b64encode(bytes(range(32))).decode())
        return path


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port

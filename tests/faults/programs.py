"""The operator and the front end as processes of their own, kept running as a kubelet would, and killed."""

import asyncio
import base64
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from faults.control_plane import REPOSITORY, SYSTEM_NAMESPACE, free_port

RESTART_SECONDS: Final = 0.3
"""Between the end of a process and its next start, as for the first restart of a container."""
START_SECONDS: Final = 150.0
"""Long enough for a machine on which ten others want each processor."""


class Program:
    """One process at a time. Its log is appended to, whoever writes it."""

    module = ""
    parts: tuple[str, ...] = ()

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        """settings: without KCR_ and in small letters."""
        self.name = name
        self.log = folder / f"{name}.log"
        self.port = free_port()
        self.settings = settings
        self.starts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the present process."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it may not be ready yet."""
        environment = {f"KCR_{name.upper()}": str(value) for name, value in self._all_settings().items()}
        path = os.pathsep.join(str(REPOSITORY / part) for part in self.parts)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KCR_", "KUBE"))}
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                env={**kept, **self._environment(), **environment, "PYTHONPATH": path},
                stdout=log,
                stderr=log,
            )

    def keep(self) -> None:
        """From now on start it again whenever it ends."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            assert self._process is not None
            await self._process.wait()
            await asyncio.sleep(RESTART_SECONDS)
            await self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self, seconds: float = 20.0) -> int:
        """The exit code, once it has ended."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def end(self) -> None:
        """For good."""
        if self._keeping is not None:
            self._keeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeping
        self.signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def answers(self, path: str) -> bool:
        """Whether that path is answered with 200."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
                session.get(self.url + path) as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def until_ready(self, path: str = "/readyz") -> None:
        """Wait until it answers 200 there."""
        give_up = asyncio.get_running_loop().time() + START_SECONDS
        while not await self.answers(path):
            if asyncio.get_running_loop().time() > give_up:
                raise AssertionError(f"{self.name} is not ready: {self.log.read_text()[-3000:]}")
            await asyncio.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        """Its log, as far as it is JSON."""
        found = []
        for line in self.log.read_text().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def _all_settings(self) -> dict[str, Any]:
        return self.settings

    def _environment(self) -> dict[str, str]:
        return {}


class OperatorProgram(Program):
    """`python -m kubecoderun_operator`. The lease is short, so that a test need not wait for it long."""

    module = "kubecoderun_operator"
    parts = ("crds", "operator", "sidecar")
    lease_seconds = 3.0
    new_pod = False
    """Whether each start is that of a new pod; otherwise the container is restarted in its pod."""

    def __init__(self, folder: Path, name: str, kubeconfig: Path, sidecar_port: int, **settings: Any) -> None:
        key = folder / "private.key"
        key.write_text(base64.b64encode(bytes(range(32))).decode())
        super().__init__(
            folder,
            name,
            {
                "kubeconfig": kubeconfig,
                "signing_key_file": key,
                "lease_namespace": SYSTEM_NAMESPACE,
                "sidecar_port": sidecar_port,
                "http_host": "127.0.0.1",
                "lease_seconds": self.lease_seconds,
                "lease_renew_deadline": 1.9,
                "lease_renew_seconds": 0.5,
                "lease_retry_seconds": 0.2,
                "api_attempt_seconds": 1.0,
                "sweep_sessions_seconds": 4,
                "sweep_pods_seconds": 3,
                **settings,
            },
        )

    def _all_settings(self) -> dict[str, Any]:
        pod = f"{self.name}-{self.starts}" if self.new_pod else self.name
        return {"pod_uid": pod, **self.settings, "http_port": self.port}


class FrontEndProgram(Program):
    """`python -m kubecoderun_api`, open to all."""

    module = "kubecoderun_api"
    parts = ("crds", "api")

    def __init__(self, folder: Path, name: str, kubeconfig: Path, **settings: Any) -> None:
        super().__init__(folder, name, {"host": "127.0.0.1", "auth": "none", "drain_seconds": 0, **settings})
        self._kubeconfig = kubeconfig

    def _all_settings(self) -> dict[str, Any]:
        return {**self.settings, "port": self.port}

    def _environment(self) -> dict[str, str]:
        return {"KUBECONFIG": str(self._kubeconfig)}

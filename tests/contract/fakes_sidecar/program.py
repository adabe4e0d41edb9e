"""The sidecar in a process of its own, as a pod starts it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from contract.fakes_sidecar.client import POD_UID, SIGNER, Client

READY_SECONDS = 60.0
PACKAGES = Path(__file__).resolve().parents[3] / "sidecar"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Program:
    """A running sidecar."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, channel: str) -> None:
        self.process = process
        self.port = port
        self.channel = channel

    def memory(self, field: str) -> int:
        """KiB: VmRSS (now) or VmHWM (highest so far)."""
        found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    async def ready(self) -> Client:
        """Wait until the runtime is warm."""
        give_up = time.monotonic() + READY_SECONDS
        while time.monotonic() < give_up:
            try:
                client = Client(self.port)
                if (await client.raw("GET", "/readyz", b"", {})).status == 200:
                    return client
                client.close()
            except OSError:
                pass
            await asyncio.sleep(0.02)
        raise TimeoutError("the sidecar does not become ready")

    async def stop(self) -> float:
        """SIGTERM; seconds until the end."""
        began = asyncio.get_running_loop().time()
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 20) == 0
        return asyncio.get_running_loop().time() - began


@asynccontextmanager
async def program(folder: Path, **environment: str) -> AsyncGenerator[Program]:
    """A sidecar on a free port, with its socket in `folder`."""
    port, channel = free_port(), str(folder / "runner.sock")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kubecoderun_sidecar",
        env={
            "PYTHONPATH": str(PACKAGES),
            "KCR_POD_UID": POD_UID,
            "KCR_PUBLIC_KEYS": SIGNER.public_key,
            "KCR_RUNTIME_UID": str(os.getuid()),
            "KCR_CHANNEL": channel,
            "KCR_PORT": str(port),
            **environment,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process, port, channel)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

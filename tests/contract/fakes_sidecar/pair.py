"""Sidecar and runner as a pod has them: both real, each in a process of its own, the runner as PID 1."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from contract.fakes_sidecar.client import Client
from contract.fakes_sidecar.program import Program, program

RUNNER = Path(__file__).resolve().parents[3] / "runner"
WHY_IMPOSSIBLE = (
    "needs root, for a PID namespace" if os.getuid() != 0 or shutil.which("unshare") is None else None
)


@asynccontextmanager
async def runner(
    folder: Path, channel: str, scratch: str | None = None, preload: str = "decimal"
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The runner in a PID namespace; all in it dies with it. `scratch`: size of a file system of its own for
    the working directory, which only it sees."""
    workspace = folder / "data"
    workspace.mkdir()
    mount = f"mount -t tmpfs -o size={scratch} scratch {workspace} && " if scratch else ""
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-c", f"{mount}exec {sys.executable} -m kubecoderun_runner"),
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(RUNNER),
            "KCR_CHANNEL": channel,
            "KCR_WORKSPACE": str(workspace),
            "KCR_PRELOAD": preload,
            "MPLCONFIGDIR": "/tmp/kcr-test-matplotlib",
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def pod(
    folder: Path, scratch: str | None = None, preload: str = "decimal"
) -> AsyncGenerator[tuple[Program, Client, asyncio.subprocess.Process]]:
    """Both, ready."""
    async with program(folder) as sidecar, runner(folder, sidecar.channel, scratch, preload) as process:
        yield sidecar, await sidecar.ready(), process

"""How long an operator takes to begin where there is much to take over: on an API server of its own, with a
node that only pretends (tests/faults). It needs no cluster."""

import asyncio
import signal
import tempfile
import time
from pathlib import Path

from bench.figures import Scenario, summary
from faults.control_plane import SESSIONS, ControlPlane, MissingBinariesError, binaries
from faults.programs import OperatorProgram
from faults.system import System, system

NAME = "operator_restart_large"
PODS = 100
FINISHED = 2000
AT_ONCE = 16
QUIET_SECONDS = 8.0
"""After the answer: how long writes are counted that nobody should have had to make."""


def large_restart(n: int) -> dict[str, Scenario]:
    """`n` restarts with PODS warm pods and FINISHED sessions."""
    try:
        return {NAME: asyncio.run(_measured(n))}
    except MissingBinariesError as missing:
        return {NAME: {"skipped": str(missing)}}


async def _measured(n: int) -> Scenario:
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder), binaries())
        try:
            await plane.start()
            async with system(plane, Path(folder), replicas=PODS) as on:
                return await _restarts(on, n)
        finally:
            plane.stop()


async def _restarts(on: System, n: int) -> Scenario:
    await on.pool(maxPods=2 * PODS)
    # Sessions are to stay; all else as it is by default.
    operator = await on.operator(
        keep=False, ttl_seconds=7200, sweep_pods_seconds=20, sweep_sessions_seconds=60
    )
    await on.full(seconds=180)
    await _finish_many(on)
    answered: list[float] = []
    writes: list[int] = []
    memory: list[int] = []
    for _ in range(n):
        operator.signal(signal.SIGKILL)
        await operator.ended()
        began = time.monotonic()
        await operator.start()
        session = await on.session("print:x")
        await on.ended(session, seconds=60)
        answered.append(time.monotonic() - began)
        await on.full(seconds=60)
        since = time.monotonic()
        await asyncio.sleep(QUIET_SECONDS)
        made = [path for at, _, path in on.operator_side.writes if at > since and "/leases/" not in path]
        writes.append(len(made))
        memory.append(_resident_mib(operator))
    return summary(answered) | {"idle_writes": max(writes), "operator_mib": max(memory)}


async def _finish_many(on: System) -> None:
    """Sessions that have ended. There is no pool of that name, so the operator ends them at once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turn:
            await on.session("print:x", poolRef={"name": "none"})

    await asyncio.gather(*(one() for _ in range(FINISHED)))

    async def all_ended() -> bool:
        return len(await on.api.items(SESSIONS, fieldSelector="status.phase=Failed")) == FINISHED

    await on.until(all_ended, "all sessions have ended", 120, every=1.0)


def _resident_mib(operator: OperatorProgram) -> int:
    lines = Path(f"/proc/{operator.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) >> 10

"""The real API server, operator and front end together, when nothing goes wrong: what faults are measured
against."""

import asyncio
from pathlib import Path

from faults.control_plane import ControlPlane
from faults.system import system


async def test_calls_are_answered(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.pool()
        await on.operator()
        await on.front_end()
        await on.front_ends[0].until_ready()
        await on.full()
        async with on.load(callers=4) as load:
            await asyncio.sleep(5)
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) == {"right"}

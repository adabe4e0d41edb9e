"""Runs while the way to the API server is bad, for operator and front end alike. Whatever happens, every call
gets one answer, no program is started twice, and the pool comes back to its size."""

import asyncio
import os
from pathlib import Path

import pytest

from faults.control_plane import ControlPlane
from faults.plan import EventFault, Match, Plan, RequestFault, Rule
from faults.system import system

WRITES = Match(methods=frozenset({"POST", "PUT", "PATCH", "DELETE"}))

SEEDS = [int(seed) for seed in os.environ.get("KCR_FAULT_SEEDS", "1").split(",")]
EVENTS = {
    "late": Rule(EventFault.DELAY, share=0.5, seconds=(0.05, 0.8)),
    "dropped": Rule(EventFault.DROP, share=0.08),
    "repeated": Rule(EventFault.REPEAT, share=0.4),
    "swapped": Rule(EventFault.SWAP, share=0.3, seconds=(0.2, 0.5)),
    "cut": Rule(EventFault.CUT, share=0.05),
    "gone": Rule(EventFault.GONE, share=0.05),
    "error": Rule(EventFault.ERROR, share=0.03),
    "frozen": Rule(EventFault.FREEZE, share=0.03, seconds=(0.5, 3.0)),
}
REQUESTS = {
    "slow": Rule(RequestFault.DELAY, share=0.3, seconds=(0.05, 1.3)),
    "409": Rule(RequestFault.REFUSE, WRITES, share=0.15, status=409),
    "410": Rule(RequestFault.REFUSE, share=0.05, status=410),
    "429": Rule(RequestFault.REFUSE, share=0.2, status=429, retry_after=1),
    "500": Rule(RequestFault.REFUSE, share=0.2, status=500),
    "reset": Rule(RequestFault.RESET, share=0.15),
    "answer lost": Rule(RequestFault.LOSE, WRITES, share=0.15),
    "timed out after it landed": Rule(RequestFault.LOSE, WRITES, share=0.1, seconds=(1.2, 1.6)),
    "500 after it landed": Rule(RequestFault.DECEIVE, WRITES, share=0.15, status=500),
}


@pytest.mark.parametrize("name", [*EVENTS, *REQUESTS])
@pytest.mark.parametrize("seed", SEEDS)
async def test_faults(plane: ControlPlane, tmp_path: Path, name: str, seed: int) -> None:
    async with system(plane, tmp_path) as on:
        await on.pool()
        await on.operator()
        await on.front_end()
        await on.front_ends[0].until_ready()
        await on.full()
        on.plan(Plan(seed, [{**EVENTS, **REQUESTS}[name]]))
        async with on.load(callers=4) as load:
            await asyncio.sleep(5)
        print(name, on.calm())
        account = await on.account(load)
        assert account.broken == []

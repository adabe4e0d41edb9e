"""Runs while the way to the API server is bad, for operator and front end alike. Whatever happens, every call
gets its one right answer, no program is started twice, and the pool comes back to its size."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from faults.control_plane import ControlPlane
from faults.plan import EventFault, Match, Plan, RequestFault, Rule
from faults.system import system

SECONDS = 2.0
"""How long each kind of fault lasts under load."""
SEEDS = [int(seed) for seed in os.environ.get("KCR_FAULT_SEEDS", "1").split(",")]
WRITES = Match(methods=frozenset({"POST", "PUT", "PATCH", "DELETE"}))
LISTS = Match(methods=frozenset({"GET"}), path="(pods|executionpools|executionsessions)$")

EVENTS: dict[str, Rule] = {
    "late": Rule(EventFault.DELAY, share=0.5, seconds=(0.05, 0.8)),
    "dropped": Rule(EventFault.DROP, share=0.08),
    "repeated": Rule(EventFault.REPEAT, share=0.4),
    "swapped": Rule(EventFault.SWAP, share=0.3, seconds=(0.2, 0.5)),
    "cut": Rule(EventFault.CUT, share=0.05),
    "410": Rule(EventFault.GONE, share=0.05),
    "500": Rule(EventFault.ERROR, share=0.03, most=1),
    "frozen": Rule(EventFault.FREEZE, share=0.03, seconds=(0.5, 3.0)),
}
REQUESTS: dict[str, Rule] = {
    "nothing": Rule(RequestFault.DELAY, share=0.0),
    "slow": Rule(RequestFault.DELAY, share=0.3, seconds=(0.05, 1.3)),
    "409": Rule(RequestFault.REFUSE, WRITES, share=0.15, status=409),
    "410": Rule(RequestFault.REFUSE, LISTS, share=0.8, status=410, most=2),
    "429": Rule(RequestFault.REFUSE, share=0.2, status=429, retry_after=1),
    "500": Rule(RequestFault.REFUSE, share=0.2, status=500),
    "reset": Rule(RequestFault.RESET, share=0.15),
    "answer lost": Rule(RequestFault.LOSE, WRITES, share=0.15),
    "timed out after it landed": Rule(RequestFault.LOSE, WRITES, share=0.1, seconds=(1.2, 1.6)),
    "500 after it landed": Rule(RequestFault.DECEIVE, WRITES, share=0.15, status=500),
}
MIXTURE = [replace(rule, share=rule.share / 8) for rule in (*EVENTS.values(), *REQUESTS.values())]


@pytest.mark.parametrize("kinds", [EVENTS, REQUESTS], ids=["events", "requests"])
@pytest.mark.parametrize("seed", SEEDS)
async def test_one_fault_after_the_other(
    plane: ControlPlane, tmp_path: Path, seed: int, kinds: dict[str, Rule]
) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs()
        wrong = {}
        for name, rule in kinds.items():
            on.plan(Plan(seed, [rule]))
            async with on.load() as load:
                await asyncio.sleep(SECONDS)
            struck = on.calm()
            account = await on.account(load)
            print(f"{name}: struck {sum(struck.values())} times; {account}")
            assert account.broken == [], name
            if set(account.outcomes) != {"right"}:
                wrong[name] = str(account)
        assert wrong == {}
        await on.full()


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_faults_at_once(plane: ControlPlane, tmp_path: Path, seed: int) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs(front_ends=2)
        on.plan(Plan(seed, MIXTURE))
        async with on.load(callers=6) as load:
            await asyncio.sleep(5)
        struck = on.calm()
        account = await on.account(load)
        print(f"struck {struck}; {account}")
        assert len(struck) >= 6
        assert account.broken == []
        await on.full()

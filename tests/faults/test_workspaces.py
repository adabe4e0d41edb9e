"""Runtime sessions under load while operators, front ends and pods die: the real programs before a real API
server.

Whatever dies: each call has one definite answer, no program is started twice or beside another one of its
workspace, and a program that was not started because its workspace ended runs in the next one.
"""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from faults.control_plane import SESSIONS, ControlPlane, Json
from faults.load import Call, send
from faults.programs import Program
from faults.system import PATIENCE, SETTLE_SECONDS, System, system
from kubecoderun_crds.reasons import TERMINAL_PHASES, Reason

HINTS = ("v2:conversation:a", "v2:conversation:b", "v2:conversation:c")
NOT_STARTED = {Reason.WORKSPACE_ENDED, Reason.WORKSPACE_BUSY, Reason.WORKSPACE_NOT_FOUND}
"""Ends of a run after which its program may run elsewhere."""
PROGRAMS = ("", "sleep:0.1 ", "sleep:1.2 ")


class Conversations:
    """Two callers for each hint, until they are told to stop or the block ends."""

    def __init__(self, on: System) -> None:
        self.calls: list[Call] = []
        self._on = on
        self._numbers = itertools.count()
        self._stopping = False

    async def __aenter__(self) -> "Conversations":
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        self._tasks = [asyncio.create_task(self._go_on(hint)) for hint in HINTS * 2]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._client.close()

    async def stop(self) -> None:
        """Let the calls under way come to their end, and begin no other."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _go_on(self, hint: str) -> None:
        while not self._stopping:
            call = await self.call(hint)
            if call.fault == "refused":
                await asyncio.sleep(0.1)

    async def call(self, hint: str) -> Call:
        number = next(self._numbers)
        nonce, urls = f"n{number}x{time.time_ns()}", [one.url for one in self._on.front_ends]
        code = f"{PROGRAMS[number % len(PROGRAMS)]}print:{nonce}"
        call = Call(nonce, code, urls[number % len(urls)], time.monotonic())
        self.calls.append(call)
        await send(self._client, call, PATIENCE, runtime_session_hint=hint)
        return call


async def sessions(on: System) -> list[Json]:
    return await on.api.items(SESSIONS)


def workspaces(found: Sequence[Json]) -> list[Json]:
    return [one for one in found if one["spec"]["request"]["mode"] == "Workspace"]


async def pods_by_workspace(on: System) -> dict[str, Json | None]:
    found = workspaces(await sessions(on))
    return {one["metadata"]["uid"]: (one.get("status") or {}).get("pod") for one in found}


async def broken_promises(on: System, calls: Sequence[Call]) -> list[str]:
    """What callers were told, against what sessions say and what was started."""

    async def look() -> bool:
        runs = [one for one in await sessions(on) if one["spec"]["request"]["mode"] == "Run"]
        return all((one.get("status") or {}).get("phase") in TERMINAL_PHASES for one in runs)

    await on.until(look, "all runs have ended", SETTLE_SECONDS, every=0.2)
    found = await sessions(on)
    starts = Counter(itertools.chain.from_iterable(sidecar.started for sidecar in on.node.sidecars))
    by_code: dict[str, list[Json]] = {}
    for one in found:
        by_code.setdefault(one["spec"]["request"].get("code", ""), []).append(one)
    broken = [f"a session was started {count} times" for count in starts.values() if count > 1]
    for one in found:
        reason = (one.get("status") or {}).get("reason")
        if reason in NOT_STARTED and starts[one["metadata"]["uid"]]:
            broken.append(f"{one['metadata']['name']} was started and ended as {reason}")
    for call in calls:
        started = sum(starts[one["metadata"]["uid"]] for one in by_code.get(call.code, ()))
        if call.outcome in ("silent", "wrong"):
            broken.append(f"{call.nonce} got no answer ({call.outcome}): {call.status} {call.answer}")
        if started > 1:
            broken.append(f"{call.nonce} was started {started} times")
        if call.right and started != 1:
            broken.append(f"{call.nonce} was answered and started {started} times")
        others = sorted(by_code.get(call.code, ()), key=_completed)[:-1]
        if any(starts[one["metadata"]["uid"]] for one in others):
            broken.append(f"{call.nonce} was tried again after it had been started")
    reasons = Counter((one.get("status") or {}).get("reason", "none") for one in found)
    print(Counter(call.outcome for call in calls), reasons)
    return broken


def _completed(session: Json) -> str:
    """When it ended. Another attempt is made only then, so this tells which one came first."""
    return str(session["status"]["timings"]["completed"])


@asynccontextmanager
async def talking(on: System, *outcomes: str) -> AsyncIterator[Conversations]:
    """Conversations during the block; afterwards all is in order, and calls came out in one of these ways."""
    async with Conversations(on) as talk:
        yield talk
        await talk.stop()
        assert await broken_promises(on, talk.calls) == []
        seen = Counter(call.outcome for call in talk.calls)
        assert set(seen) <= set(outcomes), [call for call in talk.calls if call.outcome not in outcomes]
        assert seen["right"] > 0
        last = [await talk.call(hint) for hint in HINTS]
        assert [call.outcome for call in last] == ["right"] * len(HINTS), last
        assert all(call.answer["runtime_status"] in ("new", "reused") for call in last), last


async def strike(victims: Sequence[Program], number: signal.Signals, times: int, random: Random) -> None:
    for _ in range(times):
        await asyncio.sleep(random.uniform(0.7, 1.7))
        alive = [victim for victim in victims if victim.alive]
        if alive:
            random.choice(alive).signal(number)


async def test_two_front_ends_and_one_workspace_for_each_hint(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs(front_ends=2)
        async with talking(on, "right"):
            await asyncio.sleep(4)
        found = workspaces(await sessions(on))
        assert len(found) == len(HINTS)
        assert {one["status"]["phase"] for one in found} == {"Active"}


async def test_the_operator_is_killed(plane: ControlPlane, tmp_path: Path) -> None:
    """Its container is restarted: workspaces keep their pods, runs their answers."""
    async with system(plane, tmp_path) as on:
        await on.with_programs()
        async with talking(on, "right"):
            await asyncio.sleep(2)
            before = await pods_by_workspace(on)
            await strike(on.operators, signal.SIGKILL, 3, Random(1))
        after = await pods_by_workspace(on)
        assert set(after) == set(before), "none was lost, none was made anew"
        assert all(after[uid] == pod for uid, pod in before.items() if pod)


async def test_front_ends_are_killed(plane: ControlPlane, tmp_path: Path) -> None:
    """Callers lose their connections; the workspace is the same for whoever asks next."""
    async with system(plane, tmp_path) as on:
        await on.with_programs(front_ends=2)
        async with talking(on, "right", "refused", "broken", "told"):
            await strike(on.front_ends, signal.SIGKILL, 3, Random(2))
            await asyncio.gather(*(one.until_ready() for one in on.front_ends))
        assert len(workspaces(await sessions(on))) == len(HINTS)


async def test_pods_of_workspaces_vanish(plane: ControlPlane, tmp_path: Path) -> None:
    """The run in progress is told so; those that waited run in the next workspace."""
    async with system(plane, tmp_path) as on:
        await on.with_programs(front_ends=2)
        async with talking(on, "right", "told") as talk:
            random = Random(3)
            for _ in range(4):
                await asyncio.sleep(1.5)
                owned = await on.pods("assigned")
                if owned:
                    await on.node.vanish(random.choice(owned)["metadata"]["name"])
            await asyncio.sleep(2)
        told = [call for call in talk.calls if call.outcome == "told"]
        assert len(told) <= 4, "one run at a time was in each pod"
        assert {_error(call) for call in told} <= {"execution_lost"}


def _error(call: Call) -> str:
    if call.status == 200:
        return "execution_lost" if "sandbox" in call.answer["stderr"] else call.answer["stderr"]
    return str(call.answer.get("error"))


async def test_everything_at_once(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs(operators=2, front_ends=2)
        random = Random(4)
        async with talking(on, "right", "told", "refused", "broken"):

            async def pods() -> None:
                for _ in range(3):
                    await asyncio.sleep(2)
                    owned = await on.pods("assigned")
                    if owned:
                        await on.node.vanish(random.choice(owned)["metadata"]["name"])

            await asyncio.gather(
                strike(on.operators, signal.SIGKILL, 4, random),
                strike(on.front_ends, signal.SIGKILL, 2, random),
                pods(),
            )
            await asyncio.gather(*(one.until_ready() for one in on.front_ends))


async def test_the_real_api_server_takes_every_status(plane: ControlPlane, tmp_path: Path) -> None:
    """A workspace from its first to its last status, by kubectl's way."""
    async with system(plane, tmp_path) as on:
        await on.pool(workspaces={"max": 2, "idleTimeoutSeconds": 5})
        await on.operator()
        await on.full()
        made = await on.session(None, mode="Workspace", language=None)
        name = made["metadata"]["name"]
        run: dict[str, Any] = {"workspaceRef": {"name": name}, "poolRef": None}
        first = await on.ended(await on.session("sleep:1.5 print:1", **run))
        second = await on.ended(await on.session("exit:3", **run))
        assert (first["result"]["stdout"], first["workspaceRun"]["number"]) == ("1", 1)
        assert (second["reason"], second["workspaceRun"]["number"]) == (Reason.NON_ZERO_EXIT, 2)
        assert first["pod"] == second["pod"] == (await on.status(made))["pod"]
        over = await on.ended(made)
        assert (over["phase"], over["reason"]) == ("TimedOut", "IdleTimeout")
        assert over["workspace"]["runs"] == 2
        late = await on.ended(await on.session("print:late", **run))
        assert late["reason"] == Reason.WORKSPACE_ENDED

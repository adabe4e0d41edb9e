"""Processes that are killed, stopped or cut off at random moments under load, and pods that die.

After every misfortune: each call has its one answer, no program was started twice, all sessions have ended,
and the pool is full again.
"""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from faults.control_plane import ControlPlane
from faults.load import Account, Load
from faults.programs import OperatorProgram, Program
from faults.proxy import FaultProxy
from faults.system import System, system
from kubecoderun_crds import names


async def strike(victims: Sequence[Program], number: signal.Signals, times: int, random: Random) -> None:
    """Send a signal so many times, each time to one of the victims that is alive."""
    for _ in range(times):
        await asyncio.sleep(random.uniform(0.5, 1.5))
        alive = [victim for victim in victims if victim.alive]
        if alive:
            random.choice(alive).signal(number)


@asynccontextmanager
async def under_load(on: System, *outcomes: str, callers: int = 4) -> AsyncIterator[Load]:
    """Callers during the block; afterwards all must be in order, and calls have come out in one of these
    ways."""
    async with on.load(callers) as load:
        yield load
    account = await on.account(load)
    print(account)
    assert account.broken == []
    assert set(account.outcomes) <= set(outcomes)
    assert account.outcomes["right"] > 0
    await on.full()
    load.account = account


async def taken_over(on: System, by: OperatorProgram) -> None:
    """Wait until this operator holds the Lease."""

    async def look() -> bool:
        return await on.leader() == by.name

    await on.until(look, f"{by.name} leads", 60)


def unlawful(side: FaultProxy, since: float) -> list[tuple[float, str, str]]:
    """What an operator has written after that moment although it did not lead. On a busy machine it may have
    been elected again by then: a lease that the API server takes from it says so."""
    later = [write for write in side.writes if write[0] > since]
    return list(itertools.takewhile(lambda write: "/leases/" not in write[2], later))


async def test_one_operator(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs()
        # Its container is restarted in its pod, and goes on at once: nobody notices but by the clock.
        async with under_load(on, "right"):
            await strike(on.operators, signal.SIGKILL, 4, Random(1))
        starts = on.operators[0].starts

        # The API server is away for longer than the lease lasts. The same process leads again: if it ended,
        # that would be a crash to the kubelet, which waits ever longer with the next start.
        async with under_load(on, "right"):
            await asyncio.sleep(0.5)
            for side in (on.operator_side, on.api_side):
                side.freeze()
            await asyncio.sleep(OperatorProgram.lease_seconds + 1)
            on.calm()
        assert on.operators[0].starts == starts


async def test_two_operators(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on, on.proxy().serving() as own_side:
        await on.pool()
        first = await on.operator(side=own_side)
        await on.front_end()
        await on.front_ends[0].until_ready()
        await on.full()
        second = await on.operator()
        await second.until_ready()

        # The leader stands still for longer than its lease. When it goes on, it finds itself deposed, and
        # writes nothing.
        async with under_load(on, "right"):
            await asyncio.sleep(0.5)
            first.signal(signal.SIGSTOP)
            await taken_over(on, second)
            first.signal(signal.SIGCONT)
            since = time.monotonic()
            await asyncio.sleep(1.5)
        assert unlawful(own_side, since) == []
        assert first.starts == 1

        second.signal(signal.SIGTERM)
        await taken_over(on, first)
        await second.until_ready()

        # The leader is cut off from the API server, but not from the pods. It stops before the other begins.
        async with under_load(on, "right"):
            await asyncio.sleep(0.5)
            own_side.freeze()
            await taken_over(on, second)
            since = time.monotonic()
            own_side.thaw()
            await asyncio.sleep(1.0)
        assert unlawful(own_side, since) == []

        # Either is killed or asked to stop, as a new pod each time.
        first.new_pod = second.new_pod = True
        async with under_load(on, "right"):
            await strike(on.operators, signal.SIGTERM, 2, Random(2))
            await strike(on.operators, signal.SIGKILL, 2, Random(3))


async def test_two_front_ends(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs(front_ends=2)
        victim = on.front_ends[0]
        # Its callers lose their connections, and are told so until it knows the pools; those of the other
        # notice nothing. Sessions end all the same.
        async with under_load(on, "right", "told", "broken", "refused") as load:
            await strike([victim], signal.SIGKILL, 2, Random(4))
            await victim.until_ready()
        assert {call.outcome for call in load.calls if call.url == on.front_ends[1].url} == {"right"}
        # Asked to stop, it answers what it has.
        async with under_load(on, "right", "told", "refused") as load:
            await strike([victim], signal.SIGTERM, 2, Random(5))
            await victim.until_ready()
        assert {call.outcome for call in load.calls if call.url == on.front_ends[1].url} == {"right"}


async def test_pods_that_die(plane: ControlPlane, tmp_path: Path) -> None:
    """Whole pods, their sidecars and their runtimes, with a session or without."""
    async with system(plane, tmp_path) as on:
        await on.with_programs()
        random = Random(6)
        async with under_load(on, "right", "told") as load:
            for _ in range(12):
                await asyncio.sleep(random.uniform(0.1, 0.5))
                pods = [pod for pod in await on.pods() if pod["status"].get("podIP")]
                if not pods:
                    continue
                name = random.choice(pods)["metadata"]["name"]
                match random.choice(("pod", "sidecar", "runtime")):
                    case "pod":
                        await on.node.vanish(name)
                    case container:
                        await on.node.kill_container(name, container)
        assert lost_only(load.account)


def lost_only(account: Account) -> bool:
    """Whether sessions succeeded but for those that lost their pod, and callers were told of just these."""
    lost = sum(account.reasons[reason] for reason in ("SidecarLost", "PodLost", "RuntimeLost", "NodeLost"))
    return account.reasons["Succeeded"] + lost == account.reasons.total() and account.outcomes["told"] <= lost


async def test_everything_at_once(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await on.with_programs(operators=2, front_ends=2)
        for operator in on.operators:
            operator.new_pod = True
        random = Random(7)
        async with under_load(on, "right", "told", "broken", "refused", callers=6):
            for _ in range(3):
                await asyncio.gather(
                    strike(on.operators, random.choice((signal.SIGKILL, signal.SIGTERM)), 1, random),
                    strike(on.front_ends, random.choice((signal.SIGKILL, signal.SIGTERM)), 1, random),
                    lose_a_pod(on, random),
                )


async def lose_a_pod(on: System, random: Random) -> None:
    """One with a session, if there is one."""
    await asyncio.sleep(random.uniform(0.5, 1.5))
    pods = await on.pods(str(names.PodState.ASSIGNED)) or await on.pods()
    if pods:
        await on.node.vanish(random.choice(pods)["metadata"]["name"])

"""Processes that are killed, stopped or cut off at random moments under load, and pods that die."""

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from faults.control_plane import ControlPlane
from faults.programs import Program
from faults.system import System, system
from kubecoderun_crds import names


async def strike(victims: Sequence[Program], number: signal.Signals, times: int, random: Random) -> None:
    """Send a signal so many times, each time to one of the victims that is alive."""
    for _ in range(times):
        await asyncio.sleep(random.uniform(0.7, 1.7))
        alive = [victim for victim in victims if victim.alive]
        if alive:
            random.choice(alive).signal(number)


async def with_programs(on: System, operators: int = 1, front_ends: int = 1) -> None:
    """Start them and wait for a full pool."""
    await on.pool()
    for _ in range(operators):
        await on.operator()
    for _ in range(front_ends):
        await on.front_end()
    for front_end in on.front_ends:
        await front_end.until_ready()
    await on.full()


async def test_an_operator_that_is_killed_again_and_again(plane: ControlPlane, tmp_path: Path) -> None:
    """Its container is restarted in its pod: it goes on at once, and nobody notices but by the clock."""
    async with system(plane, tmp_path) as on:
        await with_programs(on)
        async with on.load() as load:
            await strike(on.operators, signal.SIGKILL, 5, Random(1))
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) == {"right"}


async def test_two_operators_of_which_one_is_killed_or_asked_to_stop(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with system(plane, tmp_path) as on:
        await with_programs(on, operators=2)
        for operator in on.operators:
            operator.new_pod = True
        async with on.load() as load:
            await strike(on.operators, signal.SIGTERM, 2, Random(2))
            await strike(on.operators, signal.SIGKILL, 3, Random(3))
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) == {"right"}


async def test_a_leader_that_stands_still_for_longer_than_its_lease(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """The other one takes over. When the first goes on, it finds itself deposed, and writes nothing."""
    async with system(plane, tmp_path) as on, on.proxy().serving() as own_side:
        await on.pool()
        first = await on.operator(side=own_side)
        await on.front_end()
        await on.front_ends[0].until_ready()
        await on.full()
        second = await on.operator()
        await second.until_ready()
        async with on.load() as load:
            await asyncio.sleep(1.0)
            first.signal(signal.SIGSTOP)

            async def taken_over() -> bool:
                return await on.leader() == second.name

            await on.until(taken_over, "the other one leads", 10)
            await asyncio.sleep(1.0)
            first.signal(signal.SIGCONT)
            since = time.monotonic()
            await asyncio.sleep(2.0)
        assert [write for write in own_side.writes if write[0] > since] == []
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) == {"right"}
        assert first.alive


async def test_a_leader_that_is_cut_off_from_the_api_server(plane: ControlPlane, tmp_path: Path) -> None:
    """It can still reach the pods. It stops by itself before the other one begins."""
    async with system(plane, tmp_path) as on, on.proxy().serving() as own_side:
        await on.pool()
        await on.operator(side=own_side)
        await on.front_end()
        await on.front_ends[0].until_ready()
        await on.full()
        second = await on.operator()
        await second.until_ready()
        async with on.load() as load:
            await asyncio.sleep(1.0)
            own_side.freeze()
            since = time.monotonic()

            async def taken_over() -> bool:
                return await on.leader() == second.name

            await on.until(taken_over, "the other one leads", 10)
            own_side.thaw()
            await asyncio.sleep(2.0)
        assert [write for write in own_side.writes if write[0] > since + 0.1] == []
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) == {"right"}


async def test_an_api_server_that_is_away_for_longer_than_the_lease(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with system(plane, tmp_path) as on:
        await with_programs(on)
        async with on.load() as load:
            await asyncio.sleep(1.0)
            for side in (on.operator_side, on.api_side):
                side.freeze()
            await asyncio.sleep(5.0)
            on.calm()
            await asyncio.sleep(2.0)
        account = await on.account(load)
        assert account.broken == []
        assert on.operators[0].starts == 1, "the process is the same: an exit would count as a crash"


async def test_one_of_two_front_ends_is_killed(plane: ControlPlane, tmp_path: Path) -> None:
    """Its callers lose their connections, the other's notice nothing. Sessions end all the same."""
    async with system(plane, tmp_path) as on:
        await with_programs(on, front_ends=2)
        async with on.load() as load:
            await strike(on.front_ends[:1], signal.SIGKILL, 2, Random(4))
            await on.front_ends[0].until_ready()
            await asyncio.sleep(1.0)
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) <= {"right", "broken", "refused"}
        spared = [call for number, call in enumerate(load.calls) if call.outcome != "refused" and number % 2]
        assert spared


async def test_a_front_end_that_is_asked_to_stop_answers_what_it_has(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with system(plane, tmp_path) as on:
        await with_programs(on, front_ends=2)
        async with on.load() as load:
            await strike(on.front_ends[:1], signal.SIGTERM, 2, Random(5))
            await on.front_ends[0].until_ready()
        account = await on.account(load)
        assert account.broken == []
        assert set(account.outcomes) <= {"right", "refused"}


async def test_pods_that_die_under_load(plane: ControlPlane, tmp_path: Path) -> None:
    """Whole pods, their sidecars and their runtimes, with a session or without."""
    async with system(plane, tmp_path) as on:
        await with_programs(on)
        random = Random(6)
        async with on.load() as load:
            for _ in range(12):
                await asyncio.sleep(random.uniform(0.2, 0.6))
                pods = [pod for pod in await on.pods() if pod["status"].get("podIP")]
                if not pods:
                    continue
                name = random.choice(pods)["metadata"]["name"]
                match random.choice(("pod", "sidecar", "runtime")):
                    case "pod":
                        await on.node.vanish(name)
                    case container:
                        await on.node.kill_container(name, container)
        account = await on.account(load)
        assert account.broken == []
        lost = {"SidecarLost", "PodLost", "RuntimeLost", "NodeLost"}
        assert set(account.reasons) <= {"Succeeded", *lost}
        assert account.outcomes["told"] <= sum(account.reasons[reason] for reason in lost)


async def test_everything_at_once(plane: ControlPlane, tmp_path: Path) -> None:
    async with system(plane, tmp_path) as on:
        await with_programs(on, operators=2, front_ends=2)
        for operator in on.operators:
            operator.new_pod = True
        async with on.load(callers=6) as load:
            random = Random(7)
            for _ in range(3):
                await asyncio.gather(
                    strike(on.operators, random.choice((signal.SIGKILL, signal.SIGTERM)), 1, random),
                    strike(on.front_ends, random.choice((signal.SIGKILL, signal.SIGTERM)), 1, random),
                    _lose_a_pod(on, random),
                )
        account = await on.account(load)
        assert account.broken == []


async def _lose_a_pod(on: System, random: Random) -> None:
    await asyncio.sleep(random.uniform(0.5, 1.5))
    pods = await on.pods(str(names.PodState.ASSIGNED)) or await on.pods()
    if pods:
        await on.node.vanish(random.choice(pods)["metadata"]["name"])

"""The 5-second hang-up with the libraries that cause it, against real front ends before a fake cluster.

All cases run at the same time, once; each test looks at the result of one of them.
"""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from client.conftest import Install
from client.hangup_cases import CLOSING, CURES, EARLIEST, LATEST_SECONDS, RUN_SECONDS, Case, all_cases
from client.node_program import run_node
from client.packages import GENERATIONS, HTTP
from client.sleeping import finish_later
from contract.fakes_api.apiserver import Json, api_server
from contract.fakes_api.program import Program, started
from contract.fakes_api.store import object_store

CASES = all_cases()
ROUTES = ("/exec", "/exec/programmatic")
Result = dict[str, Any]


@dataclass(frozen=True)
class Play:
    """What became of all cases."""

    results: dict[str, Result]
    logs: dict[str, list[Json]]
    """The log of each front end, by the name of its cure."""
    metrics: dict[str, dict[str, float]]
    sessions: dict[str, Json]
    """All sessions by their names."""


@pytest.fixture(scope="module")
def play(install: Install, tmp_path_factory: pytest.TempPathFactory) -> Play:
    """All cases, played."""
    folders = {"http": str(install(HTTP))}
    folders |= {each.agents: str(install(each.packages)) for each in GENERATIONS}
    return asyncio.run(_play(folders, tmp_path_factory.mktemp("front-ends")))


async def _play(folders: dict[str, str], work: Path) -> Play:
    async with api_server() as api, object_store() as store, AsyncExitStack() as stack:
        api.answer = lambda session: finish_later(api, session)
        front_ends: dict[str, Program] = {}
        for cure, settings in CURES.items():
            folder = work / cure.replace(" ", "-")
            folder.mkdir()
            front_ends[cure] = await stack.enter_async_context(
                started(
                    api,
                    folder,
                    KCR_HOST="0.0.0.0",
                    KCR_STORE_ENDPOINT=store.url,
                    KCR_STORE_ACCESS_KEY="access",
                    KCR_STORE_SECRET_KEY="secret-of-the-store",
                    **settings,
                )
            )
        orders = _orders(folders, {cure: program.port for cure, program in front_ends.items()})
        answers = await asyncio.gather(
            *(asyncio.to_thread(run_node, "hangup.cjs", order) for order in orders)
        )
        await asyncio.sleep(0.5)  # for the last line of the logs
        return Play(
            {result["id"]: result for answer in answers for result in answer},
            {cure: list(program.lines) for cure, program in front_ends.items()},
            {cure: await program.metrics() for cure, program in front_ends.items()},
            {session["metadata"]["name"]: session for session in api.sessions()},
        )


def _orders(folders: dict[str, str], ports: dict[str, int]) -> list[Json]:
    """One Node program for the plain calls and one for each version of the tool.

    A process pools its connections by address, and the loopback interface has many: each case gets its own.
    """
    numbers = itertools.count(256)
    makers = [None, *GENERATIONS]
    orders: list[Json] = []
    for maker in makers:
        cases = []
        for case in CASES:
            if case.generation is maker:
                number = next(numbers)
                host = f"127.0.{number // 256}.{number % 256}"
                port = ports[case.front_end] if case.front_end else 0
                cases.append(case.order | ({"base": f"http://{host}:{port}/v1"} if port else {}))
        order = {"http": folders["http"], "seconds": RUN_SECONDS, "key": "any", "cases": cases}
        orders.append(order | ({"agents": folders[maker.agents], "style": maker.style} if maker else {}))
    return orders


@pytest.mark.parametrize("case", CASES, ids=attrgetter("id"))
def test_case(play: Play, case: Case) -> None:
    result = play.results[case.id]
    assert result["reused"] is case.reused, result
    seconds = result["ms"] / 1000
    if case.fails_after is None:
        assert "failed" not in result, result
        assert result.get("status", 200) == 200
        assert "woke" in result["stdout"]
        assert seconds >= case.seconds - 0.1
    else:
        assert "failed" in result, result
        assert case.fails_after * EARLIEST < seconds < case.fails_after + LATEST_SECONDS, result


@pytest.mark.parametrize("cure", CURES)
def test_only_the_cure_closes_connections(play: Play, cure: str) -> None:
    with_calls = [
        case.id
        for case in CASES
        if case.front_end == cure and case.order["axios"] and not case.order.get("ownAgent")
    ]
    told = {play.results[name]["connection"] for name in with_calls}
    assert told == ({"close"} if cure in CLOSING else {None})


def _deaths(cases: Sequence[Case], cure: str) -> list[Case]:
    return [case for case in cases if case.front_end == cure and case.fails_after is not None]


@pytest.mark.parametrize("cure", CURES)
def test_the_front_end_tells_who_left(play: Play, cure: str) -> None:
    """A log line with the seconds and the session, status 499 and metrics for every client that left, and the
    run is cancelled; nothing of it for those that stayed."""
    left = [line for line in play.logs[cure] if line["event"] == "client_left"]
    assert len(left) == len(_deaths(CASES, cure))
    closed = {line["session"]: line for line in play.logs[cure] if line.get("status") == 499}
    assert closed.keys() == {line["session"] for line in left}
    for line in left:
        assert 5 * EARLIEST < line["seconds"] < 5 + LATEST_SECONDS
        assert line["action"] == "cancel"
        assert closed[line["session"]]["path"] in ROUTES
        assert play.sessions[line["session"]]["spec"]["cancel"] is True
    metrics = play.metrics[cure]
    assert metrics.get('kubecoderun_api_disconnects_total{action="cancel"}', 0) == len(left)
    counted = [f'kubecoderun_api_requests_total{{route="{route}",status="499"}}' for route in ROUTES]
    assert sum(metrics.get(name, 0) for name in counted) == len(left)


def test_there_are_cases_that_fail(play: Play) -> None:
    """The front end without a cure must lose runs, or all the others prove nothing."""
    dead = [case.id for case in _deaths(CASES, "no cure") if "failed" in play.results[case.id]]
    assert len(dead) >= 20
    told = ("execute_code", "run_tools_with_code")
    assert all(
        "socket hang up" in play.results[name]["failed"] or any(tool in name for tool in told)
        for name in dead
    )

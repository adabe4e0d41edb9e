"""The three experiments of the hang-up investigation, on the deployed system: every one of them is answered.

Each runs `time.sleep(10)` from a LibreChat process: without a file, with 45 MB and with 2 KB attached. With a
file the connection had been used before, and the run was lost after five seconds.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, Final

import pytest

from client.conftest import Client
from client.packages import HANGUP_GENERATIONS
from e2e.watching import InvariantWatcher

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("invariants")]
EXPERIMENTS: Final = {"success3": None, "fail4": 45 * 1024 * 1024, "fail5": 2048}
"""Bytes of the attached file; None: there is none."""
CLIENTS: Final = ("node-fetch", "programmatic", "tool")
AT_ONCE: Final = 3
"""No more than a pool has warm pods."""
Results = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def results(client: Client, invariants: InvariantWatcher) -> Results:
    """All experiments, each in a process, and so a pool of connections, of its own."""

    def play(pair: tuple[str, str]) -> dict[str, Any]:
        experiment, maker = pair
        told: dict[str, Any] = client.run("sequence.cjs", bytes=EXPERIMENTS[experiment], client=maker)
        return told

    pairs = list(itertools.product(EXPERIMENTS, CLIENTS))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(pairs, threads.map(play, pairs), strict=True))


@pytest.mark.parametrize(
    "client", HANGUP_GENERATIONS, ids=attrgetter("agents"), indirect=True, scope="module"
)
@pytest.mark.parametrize("maker", CLIENTS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment(results: Results, experiment: str, maker: str) -> None:
    result, size = results[experiment, maker], EXPERIMENTS[experiment]
    assert "failed" not in result, result
    assert result["status"] == 200
    assert f"woke {'alone' if size is None else size}" in result["stdout"]
    assert result["ms"] >= 10_000
    assert result["reused"] is False
    looks = [{"status": 200, "connection": "close", "found": True}] * (0 if size is None else 2)
    assert result["looks"] == looks

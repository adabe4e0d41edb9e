"""The short form of `make chaos`: every part of the deployed system dies twice under load."""

import pytest

from chaos.account import table
from chaos.rounds import Chaos
from e2e.frontend import FrontEnd
from e2e.kube import Kube
from e2e.watching import InvariantWatcher

pytestmark = pytest.mark.cluster

STRIKES = 2
LONGEST_SECONDS = 60.0
CALLERS = 3


def test_whatever_dies_nothing_is_lost_and_nothing_runs_twice(
    kube: Kube, front_end: FrontEnd, invariants: InvariantWatcher
) -> None:
    chaos = Chaos(kube, front_end, CALLERS, seed=1)
    lines = list(chaos.run(chaos.victims, STRIKES, LONGEST_SECONDS))
    print("\n" + table(lines))
    assert [fault for line in lines for fault in line.faults] == []
    assert all(line.strikes for line in lines), "each victim was struck"
    assert all(line.right for line in lines)

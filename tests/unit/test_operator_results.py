"""Whose result an object in the store is."""

from datetime import UTC, datetime

import pytest

from kubecoderun_operator.results import belongs
from kubecoderun_sidecar.protocol import Captured, RunResult, Usage

STARTED = "2026-01-01T00:00:05.500000Z"
AT = datetime(2026, 1, 1, 0, 0, 5, 500_000, UTC).timestamp()


@pytest.mark.parametrize(
    ("stored", "started", "created", "ours"),
    [
        (STARTED, STARTED, AT - 1, True),
        (STARTED, "2026-01-01T00:00:05.500001Z", AT - 1, False),
        # nobody has noted when the program started: it must have been in the session's own time
        (STARTED, None, AT - 1, True),
        (STARTED, None, AT, True),
        (STARTED, None, AT + 1, False),
        # a program that never started, or a time that is none
        (None, None, 0.0, False),
        (None, STARTED, 0.0, False),
        ("yesterday", None, 0.0, False),
    ],
)
def test_whose_result_it_is(stored: str | None, started: str | None, created: float, ours: bool) -> None:
    found = RunResult("Succeeded", 0, None, stored, STARTED, None, Captured(), Captured(), True, Usage())
    assert belongs(found, started, created) is ours

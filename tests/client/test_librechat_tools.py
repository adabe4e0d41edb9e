"""The newest client's two programmatic tools against the deployed front end: programs that call other
tools."""

from operator import attrgetter
from typing import Any

import pytest

from client.conftest import Client
from client.packages import GENERATIONS
from client.tool_scenarios import READ_BY_THE_MODEL, SCENARIOS
from e2e.watching import InvariantWatcher

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("invariants"),
    pytest.mark.parametrize("client", GENERATIONS[-1:], ids=attrgetter("agents"), indirect=True),
]
Result = dict[str, Any]


@pytest.fixture(scope="module")
def results(client: Client, invariants: InvariantWatcher) -> dict[str, Result]:
    """What each scenario of tools.cjs returned."""
    played: dict[str, Result] = client.run("tools.cjs", scenarios=SCENARIOS)
    return played


@pytest.mark.parametrize(("scenario", "text", "calls"), READ_BY_THE_MODEL)
def test_what_the_model_reads(results: dict[str, Result], scenario: str, text: str, calls: int) -> None:
    result = results[scenario]
    assert "thrown" not in result, result
    assert f"stdout:\n{text}".rstrip() in result["content"]
    assert len(result["calls"]) == calls


def test_an_error_of_a_tool_that_is_not_caught(results: dict[str, Result]) -> None:
    result = results["uncaught"]
    assert result["thrown"]
    assert "out of order" in result["message"]
    assert "exited with code 1" in result["message"]


def test_files_come_back(results: dict[str, Result]) -> None:
    (file,) = results["file"]["artifact"]["files"]
    assert file["name"] == "x.txt"
    assert results["file"]["artifact"]["session_id"] == file["storage_session_id"]


def test_a_program_over_its_time(results: dict[str, Result]) -> None:
    result = results["timeout"]
    assert result["thrown"]
    assert "time" in result["message"].lower()


def test_abort(results: dict[str, Result]) -> None:
    result = results["abort"]
    assert result["thrown"]
    assert result["seconds"] < 20

"""The client package LibreChat ships, against the deployed front end: what models do with `execute_code`."""

from operator import attrgetter
from typing import Any

import pytest

from client.conftest import Client
from client.packages import GENERATIONS
from e2e.watching import InvariantWatcher

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("invariants")]
Result = dict[str, Any]
WITH_TOOL_NODE = [each for each in GENERATIONS if each.carrier == "ToolNode"]
SCENARIOS = (
    "hello", "error", "silent", "args", "pandas", "long", "concurrent", "continuity", "wrongKey", "language"
)  # fmt: skip


@pytest.fixture(scope="module")
def results(client: Client, invariants: InvariantWatcher) -> dict[str, Result]:
    """What each scenario of driver.cjs returned; one process plays them all, as the package loads slowly."""
    more = ("toolNode",) if client.generation.carrier == "ToolNode" else ()
    played: dict[str, Result] = client.run("driver.cjs", scenarios=SCENARIOS + more)
    return played


def test_hello(results: dict[str, Result]) -> None:
    result = results["hello"]
    assert "hello" in result["content"]
    assert "stderr" not in result["content"]
    assert len(result["artifact"]["session_id"]) == 21
    assert not result["artifact"].get("files")


def test_a_program_that_fails_is_a_message_not_an_error(results: dict[str, Result]) -> None:
    result = results["error"]
    assert "thrown" not in result
    assert "before" in result["content"]
    assert "ZeroDivisionError: division by zero" in result["content"]


def test_no_output(results: dict[str, Result]) -> None:
    assert "thrown" not in results["silent"]


def test_arguments(results: dict[str, Result]) -> None:
    assert "['a b', 'c']" in results["args"]["content"]


def test_pandas(results: dict[str, Result]) -> None:
    assert "2.0" in results["pandas"]["content"]


def test_a_program_of_eight_seconds(results: dict[str, Result]) -> None:
    result = results["long"]
    assert "woke" in result["content"]
    assert result["seconds"] >= 8


def test_concurrent_calls(results: dict[str, Result]) -> None:
    answers = results["concurrent"]
    assert len(answers) == 4
    for number, result in enumerate(answers):
        assert f"number {number}" in result["content"]
    assert len({result["artifact"]["session_id"] for result in answers}) == len(answers)


def test_a_second_call_names_the_first_session(results: dict[str, Result]) -> None:
    first, second = results["continuity"]["first"], results["continuity"]["second"]
    assert "two" in second["content"]
    assert first["artifact"]["session_id"] != second["artifact"]["session_id"]


def test_wrong_key(results: dict[str, Result]) -> None:
    """The newest versions tell the model in words, older ones with the status."""
    result = results["wrongKey"]
    assert result["thrown"]
    assert "not authorized" in result["message"] or "401" in result["message"]


def test_a_language_without_a_pool(results: dict[str, Result], client: Client) -> None:
    """The newest client tells the model not to try again, instead of calling it a passing trouble."""
    result = results["language"]
    assert result["thrown"]
    if client.generation.agents == "3.9.2":
        assert "permanent" in result["message"]


@pytest.mark.parametrize("client", WITH_TOOL_NODE, ids=attrgetter("agents"), indirect=True)
def test_through_the_tool_node(results: dict[str, Result]) -> None:
    result = results["toolNode"]
    for content, expected in zip(result["contents"], ("first", "ZeroDivisionError", "third"), strict=True):
        assert expected in content
    assert len(result["session"]) == 21

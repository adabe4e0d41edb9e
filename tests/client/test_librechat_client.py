"""The client package LibreChat ships, against the deployed front end: what models do with `execute_code`."""

from operator import attrgetter
from typing import Any

import pytest

from client.conftest import Client
from client.packages import GENERATIONS
from e2e.deployment import POOLS
from e2e.kube import Kube
from e2e.watching import InvariantWatcher
from kubecoderun_crds.fields import LANGUAGES

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("invariants")]
Result = dict[str, Any]
WITH_TOOL_NODE = [each for each in GENERATIONS if each.carrier == "ToolNode"]
SCENARIOS = (
    "hello", "error", "silent", "args", "pandas", "long", "signal", "manyLines", "concurrent", "continuity",
    "wrongKey", "toolNode", "toolNodeRefused", "toolNodeEmpty", "toolNodeParallel",
)  # fmt: skip
ABSENT_SCENARIOS = ("language", "toolNodeUnsupported")
"""These need a language that no pool serves."""


@pytest.fixture(scope="module")
def absent(kube: Kube) -> str | None:
    """A language of the client's list that no pool serves; None where each has one (LANGUAGES=all)."""
    served = {one for pool in kube.items(POOLS) for one in pool["spec"]["runtime"]["languages"]}
    return next((one for one in LANGUAGES if one not in served), None)


@pytest.fixture(scope="module")
def results(client: Client, absent: str | None, invariants: InvariantWatcher) -> dict[str, Result]:
    """What each scenario of driver.cjs returned; one process plays them all, as the package loads slowly."""
    scenarios = SCENARIOS + (ABSENT_SCENARIOS if absent else ())
    played: dict[str, Result] = client.run("driver.cjs", scenarios=scenarios, absent=absent)
    return played


def told(results: dict[str, Result], scenario: str) -> Result:
    """The result of one scenario."""
    if scenario in ABSENT_SCENARIOS and scenario not in results:
        pytest.skip("every language has a pool here")
    return results[scenario]


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


def test_a_signal(results: dict[str, Result]) -> None:
    assert "before" in results["signal"]["content"]
    assert "SIGSEGV" in results["signal"]["content"]


def test_of_very_long_output_the_beginning_is_kept_and_the_model_is_told(results: dict[str, Result]) -> None:
    content = results["manyLines"]["content"]
    assert "line 00000\nline 00001\n" in content
    assert "line 39999" not in content
    assert "[kubecoderun] Output limit: of the 429.7 KiB of stdout only the beginning was kept" in content


def test_wrong_key(results: dict[str, Result], client: Client) -> None:
    """The newest versions tell the model in words, older ones with the status."""
    result = results["wrongKey"]
    assert result["thrown"]
    assert _tells(client, result["message"], 401, "not authorized")


def test_a_language_without_a_pool(results: dict[str, Result], client: Client) -> None:
    """The newest client tells the model not to try again, instead of calling it a passing trouble."""
    result = told(results, "language")
    assert result["thrown"]
    assert _tells(client, result["message"], 400, "permanent")


def test_through_the_tool_node(results: dict[str, Result], client: Client) -> None:
    result = results["toolNode"]
    for content, expected in zip(result["contents"], ("first", "ZeroDivisionError", "third"), strict=True):
        assert expected in content
    carried = client.generation.carrier == "ToolNode"
    assert (result["session"] is not None) == carried
    assert not carried or len(result["session"]) == 21


@pytest.mark.parametrize(
    ("scenario", "status", "words"),
    [
        ("toolNodeRefused", 401, "not authorized"),
        ("toolNodeUnsupported", 400, "permanent"),
        ("toolNodeEmpty", 400, "rejected"),
    ],
)
def test_errors_through_the_tool_node(
    results: dict[str, Result], client: Client, scenario: str, status: int, words: str
) -> None:
    """The model gets a message and may go on; the conversation does not break."""
    result = told(results, scenario)
    assert result.get("status", "error") == "error", "the oldest versions say it in the text alone"
    assert "Error" in result["content"]
    assert _tells(client, result["content"], status, words)


@pytest.mark.parametrize("client", WITH_TOOL_NODE, ids=attrgetter("agents"), indirect=True)
def test_files_of_two_calls_at_once_are_there_for_the_next(results: dict[str, Result]) -> None:
    content = results["toolNodeParallel"]
    assert "this is left.txt" in content
    assert "this is right.txt" in content


def _tells(client: Client, message: str, status: int, words: str) -> bool:
    """Whether a message tells an error in the way of the version."""
    return (words if client.generation.errors == "words" else str(status)) in message

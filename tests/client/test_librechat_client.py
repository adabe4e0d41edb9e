"""The client package LibreChat ships, driven against the deployed front end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.client_package import ClientMissingError, installed, run_node
from e2e.deployment import Deployment
from e2e.watching import InvariantWatcher

pytestmark = pytest.mark.cluster
BUILD = Path(__file__).resolve().parents[2] / "build"
Drive = Callable[..., Any]


@pytest.fixture(scope="module")
def package() -> Path:
    """The installed client. Where it cannot be had the tests are skipped; with CI=true they fail instead."""
    try:
        return installed(BUILD)
    except ClientMissingError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the LibreChat client cannot be run: {missing}")
        pytest.skip(f"the LibreChat client cannot be run: {missing}")


@pytest.fixture
def drive(deployment: Deployment, package: Path, invariants: InvariantWatcher) -> Drive:
    """Runs a scenario of driver.cjs, or another script, against the front end."""

    def run(argument: str, script: str = "driver.cjs") -> Any:
        return run_node(script, package, argument, f"{deployment.endpoint}/v1", deployment.api_key)

    return run


def test_hello(drive: Drive) -> None:
    result = drive("hello")
    assert "hello" in result["content"]
    assert "stderr" not in result["content"]
    assert len(result["artifact"]["session_id"]) == 21
    assert not result["artifact"].get("files")


def test_a_program_that_fails_is_a_message_not_an_error(drive: Drive) -> None:
    result = drive("error")
    assert "thrown" not in result
    assert "before" in result["content"]
    assert "ZeroDivisionError: division by zero" in result["content"]


def test_no_output(drive: Drive) -> None:
    assert "thrown" not in drive("silent")


def test_arguments(drive: Drive) -> None:
    assert "['a b', 'c']" in drive("args")["content"]


def test_pandas(drive: Drive) -> None:
    assert "2.0" in drive("pandas")["content"]


def test_a_program_of_eight_seconds(drive: Drive) -> None:
    result = drive("long")
    assert "woke" in result["content"]
    assert result["ms"] >= 8000


def test_concurrent_calls(drive: Drive) -> None:
    results = drive("concurrent")
    for number, result in enumerate(results):
        assert f"number {number}" in result["content"]
    assert len({result["artifact"]["session_id"] for result in results}) == len(results)


def test_a_second_call_names_the_first_session(drive: Drive) -> None:
    results = drive("continuity")
    assert "two" in results["second"]["content"]
    assert results["first"]["artifact"]["session_id"] != results["second"]["artifact"]["session_id"]


def test_wrong_key(drive: Drive) -> None:
    result = drive("wrongKey")
    assert result["thrown"]
    assert "authori" in result["message"].lower()


def test_a_language_without_a_pool_is_permanent(drive: Drive) -> None:
    """The client tells the model not to try again, instead of calling it a passing trouble."""
    result = drive("language")
    assert result["thrown"]
    assert "permanent" in result["message"]


def test_through_the_tool_node(drive: Drive) -> None:
    result = drive("toolNode")
    for content, expected in zip(result["contents"], ("first", "ZeroDivisionError", "third"), strict=True):
        assert expected in content
    assert len(result["session"]) == 21


@pytest.mark.parametrize("axios", ["axios-old", "axios-current"])
def test_no_hang_up_after_an_axios_call(drive: Drive, axios: str) -> None:
    """The connection axios has tainted is closed by the front end, so the long call goes over a fresh one."""
    result = drive(axios, "hangup.cjs")
    assert "failed" not in result, result
    assert (result["health"], result["connection"], result["status"]) == (200, "close", 200)
    assert result["stdout"] == "woke\n"
    assert result["ms"] >= 8000

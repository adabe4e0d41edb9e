"""What the API server refuses about programmatic tool calling: added, changed, removed or wiped."""

from typing import Any

import pytest

from cluster.kubectl import Json, Kubectl, patch_arguments
from cluster.test_crds_session_rules import created, session
from kubecoderun_crds.toolcalls import (
    INLINE_RESULTS_CHARACTERS,
    INLINE_VALUE_CHARACTERS,
    MAX_CALLS,
    MAX_TOOLS,
    call_id,
)

pytestmark = pytest.mark.cluster


def with_tools(kubectl: Kubectl, results: Json | None = None) -> str:
    """Name of a new session with two tools."""
    thing = session(tools=["get-weather", "search"])
    if results is not None:
        thing["spec"]["toolResults"] = results
    return str(kubectl.create(thing)["metadata"]["name"])


def results(kubectl: Kubectl, name: str, value: Any) -> list[str]:
    """Arguments of the patch that sets spec.toolResults."""
    return patch_arguments("esess", name, {"spec": {"toolResults": value}})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tools": []}, "should have at least 1 items"),
        ({"tools": [f"t{number}" for number in range(MAX_TOOLS + 1)]}, "must have at most 100 items"),
        ({"tools": ["a", "a"]}, "Duplicate value"),
        ({"tools": ["line\nbreak"]}, "should match"),
        ({"tools": ["x" * 129]}, "may not be more than 128"),
        ({"tools": ["a"], "language": "js"}, "only programs in py and bash can have tools"),
    ],
)
def test_tools_that_make_no_sense(kubectl: Kubectl, fields: Json, said: str) -> None:
    assert said in kubectl.create_refused(session(**fields))


def test_largest_set_of_tools(kubectl: Kubectl) -> None:
    names = [f"{number:03d}".ljust(128, "x") for number in range(MAX_TOOLS)]
    assert kubectl.create(session(tools=names))["spec"]["request"]["tools"] == names


def test_tools_are_part_of_the_request(kubectl: Kubectl) -> None:
    name = with_tools(kubectl)
    change = {"spec": {"request": {"tools": ["search"]}}}
    assert "the request must not be changed" in kubectl.refusal(*patch_arguments("esess", name, change))


def test_results_only_grow_and_stay(kubectl: Kubectl) -> None:
    name = with_tools(kubectl)
    kubectl.out(*results(kubectl, name, {"call_001": {"value": "1"}}))
    kubectl.out(*results(kubectl, name, {"call_002": {"error": "no\nluck"}}))
    kubectl.out(*results(kubectl, name, {"call_001": {"value": "1"}}))
    changed = kubectl.refusal(*results(kubectl, name, {"call_001": {"value": "2"}}))
    assert "a result must not be changed" in changed
    another_kind = kubectl.refusal(*results(kubectl, name, {"call_001": {"value": None, "error": "x"}}))
    assert "a result must not be changed" in another_kind
    removed = kubectl.refusal(*results(kubectl, name, {"call_001": None}))
    assert "a result cannot be taken back" in removed
    wiped = kubectl.refusal(*results(kubectl, name, None))
    assert "a result cannot be taken back" in wiped
    replaced = [{"op": "replace", "path": "/spec/toolResults", "value": {"call_003": {"value": "3"}}}]
    assert "a result cannot be taken back" in kubectl.refusal(*patch_arguments("esess", name, replaced))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"call_001": {}}, "exactly one of value, valueRef and error"),
        ({"call_001": {"value": "1", "error": "x"}}, "exactly one of value, valueRef and error"),
        ({"other": {"value": "1"}}, "ids of calls"),
        ({"call_001": {"value": '"é"'}}, "should match"),
        ({"call_001": {"value": "x" * (INLINE_VALUE_CHARACTERS + 1)}}, "may not be more than 8192"),
        ({"call_001": {"error": "\x1b[2J"}}, "should match"),
        ({"call_001": {"valueRef": {"bytes": 6_000_000, "sha256": "a" * 64}}}, "less than or equal to"),
        ({call_id(n): {"value": "1"} for n in range(1, MAX_CALLS + 2)}, "must have at most 200"),
        (
            {
                call_id(n): {"value": "x" * INLINE_VALUE_CHARACTERS}
                for n in range(1, 2 + INLINE_RESULTS_CHARACTERS // INLINE_VALUE_CHARACTERS)
            },
            "characters together",
        ),
    ],
)
def test_results_that_make_no_sense(kubectl: Kubectl, value: Json, said: str) -> None:
    thing = session(tools=["search"])
    thing["spec"]["toolResults"] = value
    assert said in kubectl.create_refused(thing)


def test_most_and_largest_results(kubectl: Kubectl) -> None:
    count = INLINE_RESULTS_CHARACTERS // INLINE_VALUE_CHARACTERS
    full: Json = {call_id(n): {"value": "x" * INLINE_VALUE_CHARACTERS} for n in range(1, count + 1)}
    stored = {"valueRef": {"bytes": 5 * 1024 * 1024, "sha256": "a" * 64}}
    full.update({call_id(n): stored for n in range(count + 1, MAX_CALLS + 1)})
    name = with_tools(kubectl, full)
    label = patch_arguments("esess", name, {"metadata": {"labels": {"a": "b"}}})
    kubectl.out(*label)


def test_a_session_without_tools_takes_no_results(kubectl: Kubectl) -> None:
    name = created(kubectl)
    said = kubectl.refusal(*results(kubectl, name, {"call_001": {"value": "1"}}))
    assert "only a session with request.tools can have toolResults" in said


def test_calls_come_and_go_in_the_status(kubectl: Kubectl) -> None:
    name = with_tools(kubectl)
    waiting = {
        "phase": "Running",
        "reason": "WaitingForTools",
        "toolCalls": {"call_001": {"name": "search", "input": "{}"}},
    }
    kubectl.out(*patch_arguments("esess", name, {"status": waiting}, "status"))
    too_long = {"toolCalls": {"call_002": {"name": "search", "input": "x" * 8193}}}
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": too_long}, "status"))
    assert "may not be more than 8192" in said
    without_input = [{"op": "remove", "path": "/status/toolCalls/call_001/input"}]
    kubectl.out(*patch_arguments("esess", name, without_input, "status"))

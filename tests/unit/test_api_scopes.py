"""What a client says a file belongs to."""

from typing import Any

import pytest

from kubecoderun_api import scopes
from kubecoderun_api.wire import BadRequest


@pytest.mark.parametrize(
    "said",
    [
        (None, None, None),
        ("", "", ""),
        (None, {}, []),
        ("user", None, None),
        ("user", "u:1.a-b_c", ""),
        ("agent", "agent_1", None),
        ("skill", "s1", 3),
        ("skill", "s1", "3"),
        ("skill", "s1", 0),
    ],
    ids=str,
)
def test_what_can_be(said: tuple[Any, Any, Any]) -> None:
    scopes.check(*said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("team", "x", None), "files[2].kind must be one of: skill, agent, user"),
        (([], "x", None), "files[2].kind must be one of: skill, agent, user"),
        (("skill", "s", None), "files[2].version is required for kind: 'skill'"),
        (("skill", "s", ""), "files[2].version is required for kind: 'skill'"),
        (("skill", "s", "x"), "files[2].version must be a number"),
        (("skill", "s", True), "files[2].version must be a number"),
        (("user", "u", 1), "files[2].version is only valid for kind: 'skill'"),
        (("agent", None, None), "files[2].resource_id is required for kind: 'agent'"),
        (("agent", "a/b", None), "files[2].resource_id is invalid"),
        (("user", 5, None), "files[2].resource_id is invalid"),
        (("user", "x" * 129, None), "files[2].resource_id is invalid"),
    ],
    ids=str,
)
def test_what_cannot_be(said: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        scopes.check(*said, where="files[2].", resource_name="resource_id")
    assert (refused.value.status, refused.value.body["message"]) == (400, message)

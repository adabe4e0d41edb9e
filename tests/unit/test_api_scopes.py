"""What a client says a file belongs to."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import scopes
from kubecoderun_api.scopes import Scope
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
    scopes.parse(*said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (("team", "x", None), "files[2].kind must be one of: skill, agent, user"),
        (([], "x", None), "files[2].kind must be one of: skill, agent, user"),
        (("skill", "s", None), "files[2].version is required for kind: 'skill'"),
        (("skill", "s", ""), "files[2].version is required for kind: 'skill'"),
        (("skill", "s", "x"), "files[2].version must be a number"),
        (("skill", "s", float("inf")), "files[2].version must be a number"),
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
        scopes.parse(*said, where="files[2].", resource_name="resource_id")
    assert (refused.value.status, refused.value.body["message"]) == (400, message)


IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
VERSIONS = st.integers(0, 10**18 - 1)
SCOPES = (
    st.just(Scope("user"))
    | st.builds(Scope, st.just("agent"), IDS)
    | st.builds(Scope, st.just("skill"), IDS, VERSIONS.map(str))
)


@given(SCOPES)
def test_what_a_session_keeps_is_what_was_said(scope: Scope) -> None:
    metadata = scope.as_metadata()
    assert scopes.kept(metadata) == scope
    for label in metadata["labels"].values():
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)", label), "a label refuses it"
    told = scope.as_answer()
    assert scopes.parse(told["kind"], told.get("resource_id"), told.get("version")) == scope


@given(SCOPES, SCOPES)
def test_only_what_was_uploaded_for_the_same_is_meant(kept: Scope, said: Scope) -> None:
    assert scopes.admits(kept, kept)
    assert scopes.admits(None, said)
    assert scopes.admits(kept, None)
    assert scopes.admits(kept, said) is (said.kind == "user" or kept == said)


@given(IDS, VERSIONS)
def test_a_version_is_the_same_however_it_comes(resource: str, version: int) -> None:
    texts = [version, str(version), f"00{version}"[-18:] if version < 10**16 else str(version)]
    made = {scopes.parse("skill", resource, text) for text in texts}
    assert made == {Scope("skill", resource, str(version))}
    if version < 2**53:
        assert scopes.parse("skill", resource, float(version)) in made


@pytest.mark.parametrize("label", ["team", "skill", ""])
def test_labels_that_somebody_has_changed_are_none(label: str) -> None:
    assert scopes.kept({"labels": {"kubecoderun.io/kind": label}}) is None


def test_the_id_of_a_user_is_not_kept() -> None:
    """Sessions name users by a label that does not give away an address."""
    scope = scopes.parse("user", "someone:example.org", None)
    assert scope is not None
    assert scope.as_metadata() == {"labels": {"kubecoderun.io/kind": "user"}}

"""Which inputs are told of again after a run."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import echoes
from kubecoderun_api.references import Input
from kubecoderun_api.scopes import Scope
from kubecoderun_crds import names

S, F = "s" * 21, "f" * 21
PATHS = [f"d/{letter}" for letter in "abcdef"]
SCOPES = st.sampled_from(
    [None, Scope("user"), Scope("user", "u1"), Scope("agent", "a:1"), Scope("skill", "s", "3")]
)
INPUTS = st.lists(st.sampled_from(PATHS), unique=True).flatmap(
    lambda paths: st.tuples(
        *(st.builds(Input, st.just(path), st.just(S), st.just(F), st.booleans(), st.booleans(), SCOPES,
                    st.booleans()) for path in paths)
    )
)  # fmt: skip
CHANGED = st.sets(st.sampled_from(PATHS))


def session(inputs: tuple[Input, ...]) -> dict[str, Any]:
    text = echoes.note(inputs)
    request = {"inputs": [one.as_request() for one in inputs]} if inputs else {}
    return {
        "metadata": {"name": "r" * 21, "annotations": {} if text is None else {names.ANNOTATION_ECHO: text}},
        "spec": {"request": request},
    }


@given(INPUTS, CHANGED, CHANGED, CHANGED)
def test_what_has_not_changed_and_came_from_new_clients_is_told_again(
    inputs: tuple[Input, ...], made: set[str], lost: set[str], removed: set[str]
) -> None:
    status = {
        "files": [{"id": F, "path": path} for path in made],
        "skippedFiles": [{"path": path, "reason": "size"} for path in lost],
        "deletedFiles": list(removed),
    }
    told = echoes.unchanged(session(inputs), status)
    expected = [
        one for one in inputs if one.echo and (one.read_only or one.path not in made | lost | removed)
    ]
    assert [entry["name"] for entry in told] == [one.path for one in expected]
    for entry, one in zip(told, expected, strict=True):
        said = one.scope.as_answer() if one.scope else {}
        assert (
            entry
            == {
                "id": F,
                "name": one.path,
                "storage_session_id": S,
                "session_id": S,
                "inherited": True,
            }
            | said
        )


@given(INPUTS)
def test_a_session_without_a_note_tells_of_nothing(inputs: tuple[Input, ...]) -> None:
    """That of an older front end, and that of a client that knows nothing of it."""
    made = session(inputs)
    made["metadata"].pop("annotations")
    assert echoes.unchanged(made, {}) == []
    assert (echoes.note(inputs) is None) is not any(one.echo for one in inputs)

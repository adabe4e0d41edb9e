"""Which files a run is given."""

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds.files import InputReference
from kubecoderun_operator.inputs import Input, Missing, conflict, owners, resolve

A, B = "a" * 21, "b" * 21


def reference(path: str = "data.csv", session: str = "held", id: str = A, **more: Any) -> InputReference:
    return InputReference.model_validate({"path": path, "session": session, "id": id, **more})


def held(*files: dict[str, Any], removed: tuple[str, ...] = (), **request: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "held"},
        "spec": {
            "request": {"mode": "Files", "files": list(files), **request},
            "removedFiles": list(removed),
        },
    }


def run(*files: dict[str, Any], phase: str = "Succeeded", **request: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "run"},
        "spec": {"request": {"mode": "Run", **request}},
        "status": {"phase": phase, "files": list(files)},
    }


def file(id: str = A, size: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": id, "path": "name in its session", "bytes": size, **more}


def missing(found: dict[str, Any] | None, tenant: str | None = None, **wanted: Any) -> str:
    answer = resolve([reference(**wanted)], {"held": found}, tenant)
    assert isinstance(answer, Missing)
    assert answer.path == "data.csv"
    return answer.message


def test_a_file_that_somebody_uploaded() -> None:
    """It counts before the operator has seen its session: the bytes are there already."""
    found = resolve([reference("in/x.csv")], {"held": held(file(), file(B))}, None)
    assert found == (Input("in/x.csv", "held", A, 3, False),)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "TimedOut", "Cancelled"])
def test_a_file_that_a_run_left(phase: str) -> None:
    found = resolve([reference()], {"held": run(file(size=9), phase=phase)}, None)
    assert found == (Input("data.csv", "held", A, 9, False),)


@pytest.mark.parametrize(("asked", "kept"), [(True, False), (False, True), (True, True)])
def test_either_side_makes_a_file_read_only(asked: bool, kept: bool) -> None:
    found = resolve([reference(readOnly=asked)], {"held": held(file(readOnly=kept))}, None)
    assert isinstance(found, tuple)
    assert found[0].read_only


def test_what_is_missing() -> None:
    assert missing(None) == "input data.csv: there is no session held"
    assert missing(held(file(B))) == f"input data.csv: session held has no file {A}"
    assert missing(run(file(B))) == f"input data.csv: session held has no file {A}"
    assert missing(held(file(), removed=(A,))) == f"input data.csv: file {A} of session held was removed"
    assert missing(run(phase="Running")) == "input data.csv: session held has not ended and has no files yet"
    assert missing({"metadata": {}, "spec": {"request": {}}}).endswith("has no files yet")


def test_a_run_does_not_get_what_it_only_got_itself() -> None:
    """Inputs of a run are files of other sessions."""
    assert "has no file" in missing(run(inputs=[{"path": "x", "session": "s", "id": A}]))


@pytest.mark.parametrize(("own", "theirs"), [(None, "a"), ("a", None), ("a", "b")])
def test_other_tenants_have_no_sessions(own: str | None, theirs: str | None) -> None:
    found = held(file(), tenant=theirs) if theirs else held(file())
    assert missing(found, own) == missing(None, own)


def test_the_same_tenant() -> None:
    assert isinstance(resolve([reference()], {"held": held(file(), tenant="me")}, "me"), tuple)


def test_sessions_are_read_once() -> None:
    assert owners([reference("a"), reference("b", "other"), reference("c")]) == ["held", "other"]


def test_the_first_one_missing_is_named() -> None:
    wanted = [reference("a"), reference("b", id=B), reference("c", "gone")]
    answer = resolve(wanted, {"held": held(file()), "gone": None}, None)
    assert isinstance(answer, Missing)
    assert answer.path == "b"


# --- paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], ""),
        (["a", "b", "c/d", "c/e", "c/f/g"], ""),
        (["a", "ab", "a.b"], ""),
        (["a", "a"], "two inputs have the path a"),
        (["a", "a/b"], "input a is a file, and input a/b needs a directory of that name"),
        (["a/b/c", "a/b"], "input a/b is a file, and input a/b/c needs a directory of that name"),
        (["x" * 255], ""),
        (["ä" * 128], "a name has more than 255 bytes in UTF-8"),
        (["d/" + "ä" * 127], ""),
    ],
)
def test_conflicts(paths: list[str], says: str) -> None:
    found = conflict(paths)
    assert says in found
    assert bool(found) == bool(says)


segments = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)


@given(st.lists(segments.map("/".join), max_size=8))
def test_paths_without_conflict_can_all_be_made(paths: list[str]) -> None:
    files: set[PurePosixPath] = set()
    directories: set[PurePosixPath] = set()
    possible = True
    for path in map(PurePosixPath, paths):
        parents = set(path.parents) - {PurePosixPath(".")}
        if path in files or path in directories or parents & files:
            possible = False
        files.add(path)
        directories |= parents
    assert (conflict(paths) == "") is possible


names_of_sessions = st.sampled_from(["one", "two", "three"])
ids = st.sampled_from([A, B, "c" * 21])
worlds = st.dictionaries(
    names_of_sessions,
    st.builds(
        lambda files, removed, tenant: held(*map(file, sorted(files)), removed=tuple(removed), tenant=tenant),
        st.sets(ids),
        st.sets(ids),
        st.sampled_from([None, "me", "you"]),
    ),
)


@given(worlds, st.lists(st.tuples(names_of_sessions, ids), max_size=5), st.sampled_from([None, "me"]))
def test_a_run_gets_exactly_what_it_may_have(
    world: dict[str, Any], wanted: list[tuple[str, str]], tenant: str | None
) -> None:
    references = [reference(f"f{n}", session, id) for n, (session, id) in enumerate(wanted)]
    answer = resolve(references, {name: world.get(name) for name in owners(references)}, tenant)

    def may(session: str, id: str) -> bool:
        found = world.get(session)
        return (
            found is not None
            and found["spec"]["request"]["tenant"] == tenant
            and id in {entry["id"] for entry in found["spec"]["request"]["files"]}
            and id not in found["spec"]["removedFiles"]
        )

    if isinstance(answer, Missing):
        assert not may(*wanted[int(answer.path[1:])])
    else:
        assert all(may(*pair) for pair in wanted)
        assert [(entry.session, entry.id) for entry in answer] == wanted

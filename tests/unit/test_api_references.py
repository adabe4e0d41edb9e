"""Which file a reference means: the exact one, one found by the beginning of its id, or none."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_api import filenames, references, wire
from kubecoderun_api.references import Reference, Resolution, complaint
from kubecoderun_api.scopes import Scope
from kubecoderun_api.session_files import NOTHING, SessionFile, SessionFiles


def session_files(
    session: str,
    *ids: str,
    removed: tuple[str, ...] = (),
    read_only: bool = False,
    scope: Scope | None = None,
) -> SessionFiles:
    files = {
        one: SessionFile(session, one, f"path of {one}", 1, "2026-01-01T00:00:00Z", read_only) for one in ids
    }
    return SessionFiles(files, frozenset(removed), scope=scope)


def look_up(
    resolution: Resolution, sessions: dict[str, SessionFiles], objects: set[tuple[str, str]]
) -> tuple[int, int]:
    """Answer all questions; how many sessions were read and prefixes listed."""
    reads, lists = 0, 0
    for _ in range(10):
        names, prefixes = resolution.sessions_to_read(), resolution.prefixes_to_list()
        if not names and not prefixes:
            return reads, lists
        for name in names:
            reads += 1
            resolution.add_session(name, sessions.get(name, NOTHING))
        for prefix in prefixes:
            lists += 1
            resolution.add_listing(prefix, [one for one in objects if one[0].startswith(prefix)])
    raise AssertionError("it does not come to an end")


S, T = "s" * 21, "s" * 13 + "t" * 8
F, G = "s" * 13 + "f" * 8, "s" * 13 + "g" * 8


def test_the_clients_word_comes_first() -> None:
    """Two sessions that begin alike have the same id: it takes the one that was named."""
    both = {S: session_files(S, F), T: session_files(T, F)}
    for hint in (S, T):
        resolution = Resolution([Reference("a", F, hint)])
        assert look_up(resolution, both, {(S, F), (T, F)}) == (1, 0)
        assert [one.session for one in resolution.inputs()] == [hint]


def test_a_listing_is_only_asked_for_when_the_session_does_not_have_the_file() -> None:
    resolution = Resolution([Reference("a", F, S), Reference("b", G, S), Reference("c", G, None)])
    assert resolution.sessions_to_read() == {S}
    assert resolution.prefixes_to_list() == set()
    resolution.add_session(S, session_files(S, F))
    assert resolution.sessions_to_read() == set()
    assert resolution.prefixes_to_list() == {"s" * 13}
    resolution.add_listing("s" * 13, [(S, F), (T, G), ("Other-Name", G)])
    assert resolution.sessions_to_read() == {T}
    resolution.add_session(T, session_files(T, G, read_only=True))
    assert [(one.path, one.session, one.by_prefix) for one in resolution.inputs()] == [
        ("a", S, False),
        ("b", T, True),
        ("c", T, True),
    ]
    assert [one.as_request() for one in resolution.inputs()][1] == {
        "path": "b",
        "session": T,
        "id": G,
        "readOnly": True,
    }
    assert resolution.missing() == []


def test_an_object_whose_session_does_not_have_it_any_more_is_missing() -> None:
    resolution = Resolution([Reference("a", F, None), Reference("b", G, None)])
    look_up(resolution, {S: session_files(S, removed=(F,))}, {(S, F), (S, G)})
    assert resolution.inputs() == []
    assert resolution.missing() == [("a", "was deleted"), ("b", "does not exist, or not any more")]


def test_ids_of_another_form_are_not_looked_for() -> None:
    resolution = Resolution([Reference("a", "V1StGXR8_Z5jdHi6B-myT", None), Reference("b", "x", None)])
    assert look_up(resolution, {}, set()) == (0, 0)
    assert [path for path, _ in resolution.missing()] == ["a", "b"]


V1, V2 = Scope("skill", "s1", "1"), Scope("skill", "s1", "2")


def test_a_file_of_another_version_is_looked_for_and_does_not_exist() -> None:
    """Also not as one that was deleted: nothing tells of what belongs to others."""
    resolution = Resolution([Reference("a", F, S, V2), Reference("b", G, S, V2), Reference("c", F, S, V1)])
    look_up(resolution, {S: session_files(S, F, removed=(G,), scope=V1)}, {(S, F), (S, G)})
    assert [one.path for one in resolution.inputs()] == ["c"]
    assert resolution.missing() == [
        ("a", "does not exist, or not any more"),
        ("b", "does not exist, or not any more"),
    ]


def test_the_right_one_of_two_sessions_is_found_by_its_version() -> None:
    both = {S: session_files(S, F, scope=V1), T: session_files(T, F, scope=V2)}
    resolution = Resolution([Reference("a", F, S, V2)])
    look_up(resolution, both, {(S, F), (T, F)})
    assert [(one.session, one.by_prefix) for one in resolution.inputs()] == [(T, True)]


NAMES = st.sampled_from([prefix * 13 + end * 8 for prefix in "ab" for end in "xyz"])
WORLD = st.dictionaries(NAMES, st.tuples(st.sets(NAMES), st.sets(NAMES)), max_size=6)
WANTED = st.lists(st.builds(Reference, st.just("p"), NAMES, st.none() | NAMES), max_size=8)


@settings(max_examples=300)
@given(WORLD, WANTED, st.sets(st.tuples(NAMES, NAMES)))
def test_every_reference_is_found_or_missing_and_never_wrong(
    world: dict[str, tuple[set[str], set[str]]], wanted: list[Reference], stray: set[tuple[str, str]]
) -> None:
    sessions = {
        name: session_files(name, *(live - removed), removed=tuple(removed))
        for name, (live, removed) in world.items()
    }
    objects = {(name, one) for name, files in sessions.items() for one in files.live} | stray
    resolution = Resolution(wanted)
    reads, lists = look_up(resolution, sessions, objects)
    found = resolution.inputs()
    assert len(found) + len(resolution.missing()) == len(wanted)
    assert all(one.id in sessions[one.session].live for one in found)
    for reference in wanted:
        exact = reference.session in sessions and reference.id in sessions[reference.session].live
        nearby = any(
            reference.id in files.live and name.startswith(reference.id[:13])
            for name, files in sessions.items()
        )
        matches = [one for one in found if one.id == reference.id]
        if exact:
            assert any(one.session == reference.session and not one.by_prefix for one in matches)
        assert bool(matches) or not (exact or nearby)
    hints = {reference.session for reference in wanted} - {None}
    listed_names = {name for name, _ in objects}
    assert reads <= len(hints | listed_names)
    assert lists <= len({reference.id[:13] for reference in wanted})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from([F, G, "x"]) | JSON_VALUES,
        "name": st.text("ab/.", max_size=6) | JSON_VALUES,
        "session_id": st.sampled_from([S, T]) | JSON_VALUES,
        "storage_session_id": st.sampled_from([S, T]) | JSON_VALUES,
        "kind": JSON_VALUES,
    },
)


@settings(max_examples=300)
@given(st.lists(ENTRIES | JSON_VALUES, max_size=6) | JSON_VALUES)
def test_whatever_is_given_as_files_is_read_or_refused(value: Any) -> None:
    with suppress(wire.BadRequest):
        made = references.parse(value)
        paths = [reference.path for reference in made]
        assert len(set(paths)) == len(paths)
        assert all(filenames.problem(path) is None for path in paths)
        for path in paths:
            assert not any(other.startswith(f"{path}/") for other in paths)
        assert all(reference.session in (None, S, T) or len(reference.session) == 21 for reference in made)


def test_the_last_of_one_name_keeps_its_place_at_the_end() -> None:
    made = references.parse(
        [{"id": F, "name": "a"}, {"id": F, "name": "b"}, {"id": G, "name": "a", "session_id": S}]
    )
    assert made == (Reference("b", F, None), Reference("a", G, S))


def test_the_complaint_names_files_and_stays_short() -> None:
    assert complaint([("a.csv", "was deleted")]) == [
        "The program was not run: an input file is not available. Upload again what it needs.",
        "Input file a.csv was deleted.",
    ]
    lines = complaint([(f"f{n}", "does not exist, or not any more") for n in range(256)])
    assert len(lines) == 12
    assert "256 input files are" in lines[0]
    assert lines[-1] == "And 246 more."


@pytest.mark.parametrize("key", ["session_id", "storage_session_id"])
@pytest.mark.parametrize("value", ["", "short", "A" * 21, "a" * 20 + "-", None])
def test_a_session_that_cannot_be_ours_is_no_hint(key: str, value: str | None) -> None:
    echo = key == "storage_session_id" and bool(value)
    assert references.parse([{"id": F, "name": "a", key: value}]) == (Reference("a", F, None, echo=echo),)

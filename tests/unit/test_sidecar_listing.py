"""The list of a run's files, from a runner that may say anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds import printable
from kubecoderun_sidecar.answers import MAX_SKIPPED
from kubecoderun_sidecar.dialogue import check_unreadable, parse_fault
from kubecoderun_sidecar.fields import ProtocolError
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.paths import is_proper
from kubecoderun_sidecar.protocol import InputFile, Limits

LIMITS = Limits(files=8, file_bytes=1000, total_file_bytes=3000)
INPUTS = (InputFile("in", "u", 1), InputFile("in-ro", "u", 1, read_only=True))
PATH = st.text(min_size=1, max_size=300)
VALUE = st.one_of(st.none(), st.integers(-10, 1 << 70), st.text(max_size=5), st.floats(), st.booleans())
REASON = st.sampled_from(["size", "path", "mood"])
WORDS = st.lists(
    st.tuples(
        st.sampled_from(["L", "Z"]),
        st.one_of(
            st.binary(max_size=30),
            st.fixed_dictionaries({"path": PATH, "bytes": st.integers(0, 1200)}),
            st.fixed_dictionaries({"path": st.one_of(PATH, VALUE), "bytes": VALUE}),
            st.fixed_dictionaries(
                {
                    "skipped": st.lists(
                        st.fixed_dictionaries(
                            {"path": PATH, "reason": st.sampled_from(["size", "path", "x"])}
                        ),
                        max_size=25,
                    ),
                    "skippedCount": st.integers(-1, 1 << 64),
                }
            ),
        ),
    ),
    max_size=12,
)


def payload(value: bytes | dict[str, Any]) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@given(WORDS)
def test_whatever_is_said_the_list_stays_within_what_was_allowed(
    words: list[tuple[str, bytes | dict[str, Any]]],
) -> None:
    listing = Listing(LIMITS, INPUTS)
    try:
        for kind, value in words:
            if kind == "L":
                listing.add(payload(value))
            else:
                listing.finish(payload(value))
                break
    except ProtocolError:
        pass
    assert len(listing.files) <= LIMITS.files
    assert sum(file.bytes for file in listing.files) <= LIMITS.total_file_bytes
    assert all(0 <= file.bytes <= LIMITS.file_bytes and is_proper(file.path) for file in listing.files)
    found = [file.path for file in listing.files]
    assert found == sorted(set(found))
    assert "in-ro" not in found
    assert len(listing.skipped) <= MAX_SKIPPED
    assert len(listing.skipped) <= listing.skipped_count < 1 << 63
    assert all(printable.is_printable(one.path) and len(one.path) <= 256 for one in listing.skipped)


@given(st.lists(st.text(min_size=1, max_size=40), max_size=8, unique=True))
def test_an_honest_list_is_taken_as_it_is(paths: list[str]) -> None:
    listing = Listing(LIMITS, ())
    good = sorted(path for path in paths if is_proper(path))
    for path in good:
        listing.add(payload({"path": path, "bytes": 3}))
    listing.finish(payload({"skipped": [{"path": "x", "reason": "total"}], "skippedCount": 7}))
    assert [file.path for file in listing.files] == good
    assert [file.index for file in listing.files] == list(range(len(good)))
    assert (listing.skipped_count, len(listing.skipped)) == (7, 1)


def test_only_inputs_of_this_run_that_may_change_can_have_been_deleted() -> None:
    listing = Listing(LIMITS, (*INPUTS, InputFile("changed", "u", 1)))
    listing.add(payload({"path": "changed", "bytes": 1}))
    deleted = ["changed", "in", "in", "in-ro", "other", "../x"]
    listing.finish(payload({"skipped": [], "skippedCount": 0, "deleted": deleted}))
    assert listing.deleted == ["in"]


def test_a_bad_path_keeps_the_places_of_the_others() -> None:
    listing = Listing(LIMITS, INPUTS)
    for path in ("a\x00", "b", "in"):
        listing.add(payload({"path": path, "bytes": 1}))
    listing.finish(payload({"skipped": [], "skippedCount": 2}))
    assert [(file.index, file.path, file.replaces) for file in listing.files] == [
        (1, "b", False),
        (2, "in", True),
    ]
    assert [(one.path, one.reason) for one in listing.skipped] == [("a\\x00", "path")]
    assert listing.skipped_count == 3


@pytest.mark.parametrize(
    ("value", "kind", "place"),
    [
        ({}, "other", 0),
        ({"message": "x", "kind": "inputs_too_large"}, "inputs_too_large", 0),
        ({"kind": "input_path", "input": 255}, "input_path", 255),
        ({"kind": "later", "input": 3}, "other", 3),
    ],
)
def test_faults(value: dict[str, Any], kind: str, place: int) -> None:
    fault = parse_fault(payload(value))
    assert (fault.kind, fault.input) == (kind, place)


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", {"kind": 1}, {"kind": "x" * 65}, {"input": 256}, {"input": -1}, {"input": True}],
    ids=str,
)
def test_malformed_faults(value: bytes | dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_fault(payload(value))


def test_unreadable_is_about_the_file_that_was_asked_for() -> None:
    check_unreadable(b'{"index":3}', 3)
    for value in (b'{"index":2}', b'{"index":"3"}', b"{}", b"", b'{"index":true}'):
        with pytest.raises(ProtocolError):
            check_unreadable(value, 3)

"""What a session's resource says about its files."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import session_files
from kubecoderun_api.lifetimes import is_active, next_end
from kubecoderun_api.session_files import NOTHING, SessionFile, SessionFiles
from kubecoderun_crds.files import SKIP_REASONS

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
S = "s" * 21
ENTRY = {"id": "f" * 21, "path": "a/b.tar.gz", "bytes": 5}


def files_session(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": S, "creationTimestamp": "2026-01-01T10:00:00Z", "resourceVersion": "7"},
        "spec": {"request": {"mode": "Files", "files": [ENTRY]}, **spec},
    }


def run_session(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": S, "creationTimestamp": "2026-01-01T10:00:00Z", "resourceVersion": "7"},
        "spec": {"request": {"language": "py"}, **spec},
        "status": status,
    }


def test_files_of_an_upload_date_from_its_creation() -> None:
    made = session_files.read(files_session(expiresAt="2026-01-02T12:00:00Z"), NOW)
    assert made.live == {
        "f" * 21: SessionFile(S, "f" * 21, "a/b.tar.gz", 5, "2026-01-01T10:00:00Z", read_only=False)
    }
    assert made.expires == NOW + timedelta(days=1)
    assert made.live["f" * 21].full_name == f"{S}/{'f' * 21}.gz"


@pytest.mark.parametrize("mode", [{}, {"mode": "Run"}])
def test_files_of_a_run_date_from_its_end(mode: dict[str, str]) -> None:
    resource = run_session({"files": [ENTRY], "timings": {"completed": "2026-01-01T11:00:00.25Z"}})
    resource["spec"]["request"] |= mode
    made = session_files.read(resource, NOW)
    assert made.live["f" * 21].modified == "2026-01-01T11:00:00.25Z"
    assert made.expires is None


@pytest.mark.parametrize(
    ("expires", "there"),
    [
        ("2026-01-01T11:59:59Z", False),
        ("2026-01-01T12:00:00Z", False),
        ("2026-01-01T12:00:01Z", True),
        ("2026-01-01T12:30:00+01:00", False),
    ],
)
def test_what_has_expired_is_gone_before_it_is_deleted(expires: str, there: bool) -> None:
    assert bool(session_files.read(files_session(expiresAt=expires), NOW).live) is there


def test_what_is_removed_or_not_there_yet() -> None:
    made = session_files.read(files_session(removedFiles=["f" * 21, "x" * 21]), NOW)
    assert (made.live, made.removed) == ({}, {"f" * 21, "x" * 21})
    assert session_files.read(run_session({}), NOW).live == {}
    assert session_files.read(run_session({"phase": "Running"}), NOW).live == {}
    resource = files_session()
    resource["metadata"]["deletionTimestamp"] = "2026-01-01T11:00:00Z"
    assert session_files.read(resource, NOW) == NOTHING


def test_the_patch_of_a_removal_never_replaces_marks_of_others() -> None:
    assert session_files.removal(files_session(), "f") == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/spec/removedFiles", "value": ["f"]},
    ]
    for marks in ([], ["x"]):
        assert session_files.removal(files_session(removedFiles=marks), "f") == [
            {"op": "add", "path": "/spec/removedFiles/-", "value": "f"}
        ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.booleans())
def test_every_detail_is_json_with_one_way_to_the_id(path: str, read_only: bool) -> None:
    file = SessionFile(S, "f" * 21, path, 5, "2026-01-01T10:00:00Z", read_only)
    for detail in session_files.DETAILS:
        element = json.loads(json.dumps(session_files.entry(file, detail)))
        if detail != "normalized":
            name = element if detail == "simple" else element["name"]
            assert name.startswith(f"{S}/{'f' * 21}")
            assert name.split("/")[1].split(".")[0] == "f" * 21  # as old clients read it
        if detail == "full":
            assert element["metadata"]["original-filename"] == path
    assert session_files.description(file)["readOnly"] is read_only


def test_what_was_not_kept() -> None:
    assert session_files.skipped_note({}) is None
    assert session_files.skipped_note({"skippedFiles": [], "skippedFileCount": 0}) is None
    one = {"skippedFiles": [{"path": "a", "reason": "store"}], "skippedFileCount": 1}
    assert session_files.skipped_note(one) == (
        "1 new or changed file not kept: a (the object store did not take it)."
    )
    many = {"skippedFiles": [{"path": f"f{n}", "reason": "depth"} for n in range(20)], "skippedFileCount": 99}
    note = session_files.skipped_note(many) or ""
    assert note.startswith("99 new or changed files not kept: f0 (too many directories), ")
    assert note.endswith("f19 (too many directories), and 79 more.")


def test_every_reason_for_skipping_has_words() -> None:
    assert set(session_files._WHY_SKIPPED) == set(SKIP_REASONS)


@given(st.integers(60, 10**6), st.none() | st.integers(-(10**6), 10**6))
def test_an_end_is_moved_later_and_by_more_than_an_hour(lifetime: int, left: int | None) -> None:
    expires = None if left is None else NOW + timedelta(seconds=left)
    live = session_files.read(files_session(), NOW).live
    end = next_end(SessionFiles(live, expires=expires), NOW, timedelta(seconds=lifetime), timedelta(days=30))
    if expires is None:
        assert end == NOW + timedelta(seconds=lifetime)
    elif lifetime - (left or 0) > 3600:
        assert end == NOW + timedelta(seconds=lifetime)
        assert end > expires
    else:
        assert end is None
    assert (
        next_end(SessionFiles(expires=expires), NOW, timedelta(seconds=lifetime), timedelta(days=30)) is None
    )


@pytest.mark.parametrize(("hours", "active"), [(0, True), (22.99, True), (23, False), (100, False)])
def test_how_long_clients_take_a_file_for_active(hours: float, active: bool) -> None:
    modified = (NOW - timedelta(hours=hours)).isoformat()
    assert is_active(SessionFile(S, "f", "a", 1, modified), NOW) is active


@pytest.mark.parametrize(
    ("age_days", "expires_in_hours", "expected_in_hours"),
    [
        (1, 20, 25),
        (29, 20, 24),
        (29.5, 20, None),
        (29.5, 11, None),
        (29.5, 5, 12),
        (31, 5, None),
        (31, None, None),
    ],
)
def test_no_use_moves_an_end_beyond_the_longest_life(
    age_days: float, expires_in_hours: float | None, expected_in_hours: float | None
) -> None:
    expires = None if expires_in_hours is None else NOW + timedelta(hours=expires_in_hours)
    live = {"f" * 21: SessionFile(S, "f" * 21, "a", 1, "2026-01-01T10:00:00Z")}
    files = SessionFiles(live, expires=expires, created=NOW - timedelta(days=age_days))
    end = next_end(files, NOW, timedelta(hours=25), timedelta(days=30))
    assert end == (None if expected_in_hours is None else NOW + timedelta(hours=expected_in_hours))


def test_reports_about_files_that_were_not_kept() -> None:
    assert session_files.reports({"files": [ENTRY]}) == {}
    skipped = [{"path": f"f{n}", "reason": reason} for n, reason in enumerate(SKIP_REASONS)]
    made = session_files.reports({"files": [ENTRY], "skippedFiles": skipped, "skippedFileCount": 40})
    assert made["artifact_delivery"] == {
        "code": "artifact_delivery_failed",
        "status": "partial",
        "attempted": 2,
        "delivered": 1,
        "failed": 1,
    }
    truncation = made["artifact_truncation"]
    assert truncation["code"] == "artifact_truncated"
    assert truncation["reasons"] == {"max_files": 1, "size": 2, "depth": 1, "path": 1, "unreadable": 1}
    assert (truncation["skipped"], truncation["skipped_count"]) == ([f"f{n}" for n in range(6)], 39)
    only_lost = session_files.reports({"skippedFiles": [{"path": "a", "reason": "store"}]})
    assert set(only_lost) == {"artifact_delivery"}
    assert only_lost["artifact_delivery"]["status"] == "failed"
    assert only_lost["artifact_delivery"]["delivered"] == 0

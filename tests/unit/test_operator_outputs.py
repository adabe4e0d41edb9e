"""Files that runs leave, on their way into the status."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds import names
from kubecoderun_crds.files import is_file_path
from kubecoderun_crds.session import SessionStatus
from kubecoderun_operator.outputs import FileReport, report
from kubecoderun_sidecar.protocol import Captured, OutputFile, RunResult, SkippedFile, Usage

SESSION = "abcdefghijklmnopqrstu"
PREFIX = SESSION[:13]
INPUTS = {"data.csv": {"path": "data.csv", "session": "other", "id": "b" * 21}}


def result(*files: OutputFile, skipped: tuple[SkippedFile, ...] = (), skipped_count: int = 0) -> RunResult:
    return RunResult(
        "Succeeded", 0, None, None, "2026-01-01T00:00:00Z", None, Captured(), Captured(), False, Usage(),
        files, skipped, skipped_count,
    )  # fmt: skip


def output(number: int, path: str = "out.txt", size: int = 3, **more: Any) -> OutputFile:
    return OutputFile(f"{PREFIX}{number:08d}", path, size, **more)


def reported(*files: OutputFile, **more: Any) -> FileReport:
    made = report(result(*files, **more), SESSION, INPUTS)
    SessionStatus.model_validate(made.status())
    return made


def test_new_and_changed_files() -> None:
    made = reported(output(1), output(2, "data.csv", replaces=True), output(3, "lost.csv", replaces=True))
    assert made.status() == {
        "fileCount": 3,
        "files": [
            {"id": f"{PREFIX}00000001", "path": "out.txt", "bytes": 3},
            {
                "id": f"{PREFIX}00000002",
                "path": "data.csv",
                "bytes": 3,
                "modifiedFrom": {"session": "other", "id": "b" * 21},
            },
            {"id": f"{PREFIX}00000003", "path": "lost.csv", "bytes": 3},
        ],
    }
    assert made.note() == ""


def test_a_new_file_with_the_name_of_an_input_is_not_said_to_come_from_it() -> None:
    (kept,) = reported(output(1, "data.csv")).kept
    assert "modifiedFrom" not in kept


def test_inputs_that_the_program_removed() -> None:
    found = replace(result(output(1)), deleted=("data.csv", "unheard of"))
    made = report(found, SESSION, INPUTS).status()
    SessionStatus.model_validate(made)
    assert made["deletedFiles"] == ["data.csv"]
    assert RunResult.parse(found.to_json()) == found


def test_no_files() -> None:
    assert reported().status() == {"fileCount": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        OutputFile("x" * 21, "a", 1),
        OutputFile(PREFIX, "a", 1),
        OutputFile(PREFIX + "../code1", "a", 1),
        output(1, "../a"),
        output(1, "a\x1b[2J"),
        output(1, "x" * 257),
        output(1, size=2**41),
    ],
)
def test_what_no_status_can_hold_is_skipped(wrong: OutputFile) -> None:
    made = reported(output(2), wrong)
    assert (made.count, made.skipped_count) == (1, 1)
    assert made.skipped[0]["reason"] == "path"


def test_an_id_counts_once() -> None:
    made = reported(output(1), output(1, "again"))
    assert (made.count, made.skipped_count) == (1, 1)


@pytest.mark.parametrize(
    ("skipped", "count", "says"),
    [
        ((SkippedFile("a", "size"),), 1, "1 file was not kept: a (too large)"),
        ((SkippedFile("a", "count"),), 0, "1 file was not kept: a (too many files)"),
        (
            (SkippedFile("a", "total"), SkippedFile("b", "unreadable")),
            2,
            "2 files were not kept: a (too much together), b (it could not be read)",
        ),
        ((), 5, "5 files were not kept: 5 more"),
    ],
)
def test_what_is_said_of_them(skipped: tuple[SkippedFile, ...], count: int, says: str) -> None:
    assert reported(skipped=skipped, skipped_count=count).note() == says


def test_many_are_named_by_number() -> None:
    skipped = tuple(SkippedFile(f"f{n}", "count") for n in range(20))
    made = reported(skipped=skipped, skipped_count=1000)
    assert made.note().endswith("f2 (too many files), 997 more")
    assert len(made.status()["skippedFiles"]) == 20


def test_names_of_skipped_files_are_one_printable_line() -> None:
    made = reported(skipped=(SkippedFile("a\nb\tc\x1b" + "x" * 300, "path"),))
    (shown,) = made.skipped
    assert shown["path"].startswith("a\\nb\\tc\\x1bxx")
    assert len(shown["path"]) == 256


@given(
    st.lists(
        st.builds(
            OutputFile,
            st.one_of(
                st.just(PREFIX + "00000000"),
                st.from_regex(names._FILE_ID, fullmatch=True),
                st.integers(0, 10**8 - 1).map(lambda n: f"{PREFIX}{n:08d}"),
            ),
            st.one_of(st.text(max_size=20), st.just("a/b"), st.just("data.csv")),
            st.integers(0, 2**63 - 1),
            st.booleans(),
        ),
        max_size=6,
    ),
    st.lists(st.builds(SkippedFile, st.text(max_size=20), st.just("size")), max_size=20),
    st.integers(0, 2**31),
)
def test_whatever_comes_the_status_can_be_written_and_nothing_is_lost(
    files: list[OutputFile], skipped: list[SkippedFile], count: int
) -> None:
    made = reported(*files, skipped=tuple(skipped), skipped_count=count)
    assert made.count + made.skipped_count == len(files) + max(count, len(skipped))
    assert all(is_file_path(entry["path"]) for entry in made.kept)

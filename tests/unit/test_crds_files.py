"""Paths and ids of files: the functions, the models and what the API server is told say the same."""

import re
from functools import cache
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from kubecoderun_crds.files import (
    MAX_PATH_LENGTH,
    SKIP_REASONS,
    HeldFile,
    InputReference,
    OutputFile,
    is_file_path,
)
from kubecoderun_crds.printable import LINE_PATTERN, PRINTABLE_PATTERN
from kubecoderun_crds.schema import structural
from kubecoderun_crds.session import SessionSpec, SessionStatus
from kubecoderun_sidecar import answers

GOOD = (
    "a",
    "main.py",
    ".hidden",
    "...",
    "..a",
    "a..",
    "a b (1).csv",
    "表/数据.csv",
    "🙂" * 256,
    "/".join("abcdefghij"),
)
BAD = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "a/.",
    "../a",
    "a/../b",
    "a\\b",
    "\\",
    "a\nb",
    "a\n",
    "a\tb",
    "\0",
    "a\x85",
    "a\u202eb",
    "\u200b",
    "\ud800",
    "x" * 257,
    "/".join("abcdefghijk"),
)


@cache
def paths() -> list[dict[str, Any]]:
    """The schemas of all paths of files in sessions."""
    request = structural(SessionSpec)["properties"]["request"]["properties"]
    status = structural(SessionStatus)["properties"]
    return [
        part["items"]["properties"]["path"] for part in (request["inputs"], request["files"], status["files"])
    ]


def api_server_accepts(path: str) -> bool:
    """What the schema of a path says, read as the API server reads it."""
    schema = paths()[0]
    pattern = re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", schema["pattern"])
    if not (
        schema["minLength"] <= len(path) <= schema["maxLength"] and re.search(pattern[:-1] + r"\Z", path)
    ):
        return False
    for rule in schema["x-kubernetes-validations"]:
        expression = re.fullmatch(r"!self\.matches\('(.*)'\)", rule["rule"])
        assert expression
        # A literal of CEL: a doubled backslash is one. RE2's $ is the end of the text.
        if re.search(expression[1].replace("\\\\", "\\").replace("$", r"\Z"), path):
            return False
    return True


def test_all_paths_have_the_same_schema() -> None:
    for schema in paths():
        assert schema["pattern"] == LINE_PATTERN
        assert len(schema["x-kubernetes-validations"]) == 2
        assert {key: value for key, value in schema.items() if key != "description"} == {
            key: value for key, value in paths()[0].items() if key != "description"
        }


@pytest.mark.parametrize("path", GOOD)
def test_paths(path: str) -> None:
    assert is_file_path(path)
    assert api_server_accepts(path)
    assert HeldFile.model_validate({"id": "a" * 21, "path": path, "bytes": 0}).path == path


@pytest.mark.parametrize("path", BAD, ids=ascii)
def test_not_paths(path: str) -> None:
    assert not is_file_path(path)
    if path != "\ud800":  # surrogates never reach the API server
        assert not api_server_accepts(path)
    with pytest.raises(ValidationError):
        InputReference.model_validate({"path": path, "session": "s", "id": "a" * 21})


@given(
    st.one_of(
        st.text(alphabet="a./\\ \n\tä", max_size=12),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
        st.lists(st.sampled_from(["a", ".", "..", "...", "a b", ""]), max_size=12).map("/".join),
    )
)
@example("a" * MAX_PATH_LENGTH)
@example("a/" * 9 + "a")
def test_everybody_agrees_about_paths(path: str) -> None:
    accepted = is_file_path(path)
    assert api_server_accepts(path) is accepted
    try:
        OutputFile.model_validate({"id": "a" * 21, "path": path, "bytes": 1})
    except ValidationError:
        assert not accepted
    else:
        assert accepted


def test_a_path_is_one_line_of_printable_text() -> None:
    assert LINE_PATTERN != PRINTABLE_PATTERN
    line = re.compile(
        re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", LINE_PATTERN[:-1]) + r"\Z"
    )
    assert line.search("a b ä")
    assert not line.search("a\tb")
    assert not line.search("a\n")


def test_reasons_of_skipped_files_are_those_of_the_sidecar() -> None:
    """The operator hands them on as they are."""
    assert get_args(answers.SkipReason) == SKIP_REASONS


def test_content_types_are_one_line() -> None:
    with pytest.raises(ValidationError):
        HeldFile.model_validate({"id": "a" * 21, "path": "a", "bytes": 0, "contentType": "text/csv\r\nX: y"})

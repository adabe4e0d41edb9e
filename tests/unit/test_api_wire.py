"""Reading LibreChat's requests."""

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import wire
from kubecoderun_crds.fields import LANGUAGES
from kubecoderun_crds.pool import MAX_TIMEOUT_SECONDS
from kubecoderun_crds.printable import is_plain
from kubecoderun_crds.session import INLINE_CODE_BYTES, MAX_ARGS, MAX_ARGS_LENGTH


def parse(**fields: Any) -> wire.ExecRequest:
    return wire.parse_exec({"lang": "py", "code": "x", **fields})


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("python", "py"),
        ("Python3", "py"),
        ("JavaScript", "js"),
        ("bun-js", "js"),
        ("node-javascript", "js"),
        ("typescript", "ts"),
        ("bun-ts", "ts"),
        ("sh", "bash"),
        ("bash", "bash"),
        ("c++", "cpp"),
        ("rust", "rs"),
        ("golang", "go"),
        ("R", "r"),
        ("fortran", "f90"),
    ],
)
def test_names_of_languages(name: str, language: str) -> None:
    assert parse(lang=f" {name}\n").language == language


def test_every_language_of_the_resources_is_known_by_its_own_name() -> None:
    assert [parse(lang=name).language for name in LANGUAGES] == list(LANGUAGES)
    assert set(wire._ALIASES.values()) <= set(LANGUAGES)


@pytest.mark.parametrize(
    ("given_args", "expected"),
    [
        (None, ()),
        ([], ()),
        ("a b", ("a b",)),
        (["a", ""], ("a", "")),
        (3, ("3",)),
        ([1, 2.5, True, None], ("1", "2.5", "true", "null")),
        ({"a": [1, "ü"]}, ('{"a": [1, "ü"]}',)),
        ([["x"]], ('["x"]',)),
        (["a\nb\tc\r\n"], ("a\nb\tc\r\n",)),
        ("\t", ("\t",)),
    ],
)
def test_arguments_become_text(given_args: Any, expected: tuple[str, ...]) -> None:
    assert parse(args=given_args).args == expected


@pytest.mark.parametrize("char", ["\0", "\x07", "\x0b", "\x0c", "\x1b", "\x7f", "\x85", "\x9b", "\ud800"])
def test_arguments_have_no_other_control_characters(char: str) -> None:
    with pytest.raises(wire.BadRequest) as caught:
        parse(args=["a", f"b{char}c"])
    assert "control characters but tabs and line breaks" in caught.value.body["message"]


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, None),
        (1, 1),
        (0.5, 1),
        (1000, 1),
        (1001, 2),
        (15_000, 15),
        (86_400_000, MAX_TIMEOUT_SECONDS),
        (86_399_999, MAX_TIMEOUT_SECONDS),
        (1e300, MAX_TIMEOUT_SECONDS),
        (math.inf, MAX_TIMEOUT_SECONDS),
        (10**400, MAX_TIMEOUT_SECONDS),
    ],
)
def test_milliseconds_become_whole_seconds(timeout: float | None, seconds: int | None) -> None:
    assert parse(timeout=timeout).timeout_seconds == seconds


@given(st.text(min_size=1, max_size=300))
def test_code_is_inline_exactly_if_a_session_takes_it(code: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in code):
        with pytest.raises(wire.BadRequest):
            parse(code=code)
        return
    call = parse(code=code)
    assert call.code.decode() == code
    assert call.inline == (code if is_plain(code) else None)


def test_the_size_of_inline_code_counts_bytes() -> None:
    assert parse(code="ü" * (INLINE_CODE_BYTES // 2)).inline is not None
    assert parse(code="ü" * (INLINE_CODE_BYTES // 2) + "x").inline is None
    assert parse(code="x" * INLINE_CODE_BYTES).inline is not None
    assert parse(code="x" * (INLINE_CODE_BYTES + 1)).inline is None


@given(st.lists(st.text(max_size=5000) | st.integers() | st.none(), max_size=MAX_ARGS + 5))
def test_accepted_arguments_fit_into_a_session(args: list[Any]) -> None:
    try:
        made = parse(args=args).args
    except wire.BadRequest:
        return
    assert sum(map(len, made)) <= MAX_ARGS_LENGTH
    assert all(map(is_plain, made))
    assert all(len(arg) <= 4096 for arg in made)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    with suppress(wire.BadRequest):
        assert isinstance(wire.parse_json(raw), dict)


def test_a_byte_order_mark_does_not_matter() -> None:
    assert wire.parse_json(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode()) == {"a": 1}


def test_what_a_client_sent_comes_back_short_and_harmless() -> None:
    with pytest.raises(wire.BadRequest) as caught:
        parse(lang="<b>\x1b[31m" + "x" * 100)
    assert caught.value.body["error"] == "Unsupported language: <b>?[31m" + "x" * 32

"""Which text may stand in resources: the functions, the patterns and Unicode say the same."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds.fields import MESSAGE_MAX_LENGTH
from kubecoderun_crds.printable import (
    PLAIN_PATTERN,
    PRINTABLE_PATTERN,
    is_plain,
    is_printable,
    printable,
)
from kubecoderun_sidecar.output import as_safe_text


def as_python(pattern: str) -> re.Pattern[str]:
    """A pattern of the API server's syntax as one of Python's."""
    assert pattern.endswith("$")
    return re.compile(
        re.sub(r"\\x\{([0-9A-F]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern[:-1]) + r"\Z"
    )


def every_character(surrogates: bool) -> list[str]:
    points = range(sys.maxunicode + 1)
    return [chr(p) for p in points if surrogates or not 0xD800 <= p <= 0xDFFF]


def test_printable_is_what_unicode_calls_neither_control_nor_format() -> None:
    """Refused are exactly the categories named in the documentation, tab and line feed apart. What Unicode
    reserves for later invisible characters in the same blocks, variation selectors beyond those that emoji
    need, and two code points that YAML cannot have, are refused as well."""
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    refused = {c for c in every_character(surrogates=True) if not is_printable(c)}
    expected = {c for c in every_character(surrogates=True) if unicodedata.category(c) in hidden} - {
        "\t",
        "\n",
    }
    assert expected <= refused
    extra = {c for c in refused - expected if unicodedata.category(c) != "Cn"}
    assert extra == {chr(point) for point in range(0xE0100, 0xE01F0)}
    assert {"\ufffe", "\uffff"} <= refused


def test_plain_text_is_text_without_control_characters() -> None:
    refused = {c for c in every_character(surrogates=True) if not is_plain(c)}
    controls = {c for c in every_character(surrogates=True) if unicodedata.category(c) in {"Cc", "Cs"}}
    assert refused == (controls - set("\t\n\r")) | {"\ufffe", "\uffff"}


@pytest.mark.parametrize(
    ("pattern", "function"), [(PLAIN_PATTERN, is_plain), (PRINTABLE_PATTERN, is_printable)]
)
def test_patterns_say_the_same_as_the_functions(pattern: str, function: object) -> None:
    assert callable(function)
    compiled = as_python(pattern)
    different = [c for c in every_character(surrogates=False) if bool(compiled.match(c)) != function(c)]
    assert different == []
    assert compiled.match("")


@pytest.mark.parametrize(
    "text",
    ["", "hello\n\tworld", "Zoë, שלום, 你好, 🙂", "a" * 100_000, "\ufe0f", "e\u0301", "\u00a0", "\ue0b0"],
)
def test_ordinary_text_is_printable(text: str) -> None:
    assert is_printable(text)
    assert printable(text, 200_000) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\rb", "a\\x0db"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("👩\u200d💻", "👩\\u200d💻"),
    ],
)
def test_tricks_become_visible(text: str, shown: str) -> None:
    assert not is_printable(text)
    assert printable(text, 100) == shown


def test_the_sidecar_calls_the_same_text_safe() -> None:
    """It cannot import this package, and a status with its text must never be refused."""
    different = [
        c for c in every_character(surrogates=False) if (as_safe_text(c.encode()) == c) != is_printable(c)
    ]
    assert different == []


@given(text=st.text(alphabet=st.characters(), max_size=300), length=st.integers(min_value=1, max_value=200))
def test_any_text_becomes_a_message(text: str, length: int) -> None:
    message = printable(text, length)
    assert is_printable(message)
    assert len(message) <= length
    if is_printable(text) and len(text) <= length:
        assert message == text


def test_messages_are_cut_with_a_sign() -> None:
    assert printable("x" * 2000, MESSAGE_MAX_LENGTH) == "x" * (MESSAGE_MAX_LENGTH - 1) + "…"
    with pytest.raises(ValueError, match="at least 1"):
        printable("x", 0)

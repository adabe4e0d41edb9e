"""Which text resources may carry, as tables, patterns for the API server, and functions.

*Printable* text stands in a status, where some of it comes from programs, registries or nodes, and is read
with `kubectl`. Refused are control characters (C0 without line feed and tab, DEL, C1), and what changes how
other text looks without being seen itself: all format characters (soft hyphen, zero-width and joiner
characters, bidirectional embeddings, overrides and isolates, tags), line and paragraph separators, unpaired
surrogates. The rule is strict on purpose: an emoji sequence with a zero-width joiner is refused too. Output
that is refused travels as base64 and loses nothing.

*Plain* text stands in a request. It may look odd, but has no control characters except tab, line feed and
carriage return: one session with a C1 character would make `kubectl get -o yaml` fail for the whole list.

The tables are written out, not derived from `unicodedata`: the API server (Go) and Python know different
versions of Unicode, and what one side lets pass must not be refused by the other.
"""

import re
from collections.abc import Iterable
from typing import Final

Ranges = tuple[tuple[int, int], ...]

NOT_PLAIN: Final[Ranges] = (
    (0x0000, 0x0008),
    (0x000B, 0x000C),
    (0x000E, 0x001F),
    (0x007F, 0x009F),
    (0xFFFE, 0xFFFF),
)
"""First and last code points that plain text does not have. (Surrogates never reach the API server.)"""

NOT_PRINTABLE: Final[Ranges] = (
    *NOT_PLAIN,
    (0x000D, 0x000D),
    (0x00AD, 0x00AD),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x180E, 0x180E),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
"""First and last code points that printable text does not have."""

_SURROGATES: Final = (0xD800, 0xDFFF)


def text_without(ranges: Ranges) -> str:
    """A regular expression in the syntax of the API server (RE2) for text without these code points."""
    parts = (f"\\x{{{a:X}}}" if a == b else f"\\x{{{a:X}}}-\\x{{{b:X}}}" for a, b in sorted(ranges))
    return f"^[^{''.join(parts)}]*$"


def _any_of(ranges: Iterable[tuple[int, int]]) -> re.Pattern[str]:
    return re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) + "]")


PLAIN_PATTERN: Final = text_without(NOT_PLAIN)
PRINTABLE_PATTERN: Final = text_without(NOT_PRINTABLE)
LINE_PATTERN: Final = text_without((*NOT_PRINTABLE, (0x0009, 0x000A)))
"""The rules as regular expressions in the syntax of the API server (RE2). The last is that of printable text
without tabs and line feeds."""

_NOT_PLAIN: Final = _any_of((*NOT_PLAIN, _SURROGATES))
_NOT_PRINTABLE: Final = _any_of((*NOT_PRINTABLE, _SURROGATES))


def is_plain(text: str) -> bool:
    """Whether the API server accepts the characters of text in a request."""
    return _NOT_PLAIN.search(text) is None


def is_printable(text: str) -> bool:
    """Whether the API server accepts text where a status must be printable."""
    return _NOT_PRINTABLE.search(text) is None


def printable(text: str, max_length: int) -> str:
    """Text for a message: refused characters as visible escapes like `\\x1b`, cut to max_length characters.

    A cut text ends in an ellipsis. max_length is at least 1.
    """
    if max_length < 1:
        raise ValueError("max_length is at least 1")
    # Cutting first bounds the work; an escape is never shorter than the character it stands for.
    clean = _NOT_PRINTABLE.sub(_escape, text[: max_length + 1])
    return clean if len(clean) <= max_length else clean[: max_length - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"

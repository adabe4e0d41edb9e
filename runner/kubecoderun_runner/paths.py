"""Which paths files of a session may have. Pure.

The sidecar checks the same again (its `paths`), as does the API server: what is refused here is reported as
skipped, where it would break something there.
"""

from __future__ import annotations

import re
from typing import Final

MAX_CHARACTERS: Final = 256
MAX_SEGMENTS: Final = 10

_REFUSED: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f\\\\"  # control characters, and the backslash, which separates elsewhere
    # Format characters, line and paragraph separators: they change how other text looks.
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff"  # bytes that are no UTF-8, as Python spells them
    "]"
)


def is_proper(path: str) -> bool:
    """Whether a file of a session may be called so: relative, canonical, printable, not too long or deep."""
    segments = path.split("/")
    return (
        0 < len(path) <= MAX_CHARACTERS
        and len(segments) <= MAX_SEGMENTS
        and not any(segment in ("", ".", "..") for segment in segments)
        and not _REFUSED.search(path)
    )


def visible(path: str) -> str:
    """A path for a report: refused characters as escapes like `\\x1b`, cut to MAX_CHARACTERS."""
    clean = _REFUSED.sub(_escape, path[: MAX_CHARACTERS + 1])
    return clean if len(clean) <= MAX_CHARACTERS else clean[: MAX_CHARACTERS - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    if 0xDC80 <= point <= 0xDCFF:
        point -= 0xDC00  # the byte itself
    if point == ord("\\"):
        return "\\\\"
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"

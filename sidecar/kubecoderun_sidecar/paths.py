"""Which paths files of a session may have. Pure.

The runner checks the same first (its `paths`) but lives with programs, and the API server refuses what is not
so: one bad path would cost the session its whole status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kubecoderun_sidecar.output import UNSAFE_CHARACTERS

MAX_CHARACTERS = 256
MAX_SEGMENTS = 10

# Tab and newline are harmless in output only. The backslash separates elsewhere.
_REFUSED = re.compile(f"[\t\n\\\\\ud800-\udfff{UNSAFE_CHARACTERS}]")


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
    """A path for a report: refused characters as escapes like `\\x1b`, cut to MAX_CHARACTERS. Backslashes
    stay, as they are such escapes already."""
    clean = _REFUSED.sub(_escape, path[: MAX_CHARACTERS + 1])
    return clean if len(clean) <= MAX_CHARACTERS else clean[: MAX_CHARACTERS - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    if match[0] == "\\":
        return "\\"
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


def first_conflict(paths: Sequence[str]) -> int | None:
    """The place of the first path that cannot exist beside an earlier one: the same path again, or one of
    the two is a folder of the other. None: all can exist together."""
    files: set[str] = set()
    folders: set[str] = set()
    for place, path in enumerate(paths):
        segments = path.split("/")
        above = {"/".join(segments[:count]) for count in range(1, len(segments))}
        if path in files or path in folders or above & files:
            return place
        files.add(path)
        folders |= above
    return None

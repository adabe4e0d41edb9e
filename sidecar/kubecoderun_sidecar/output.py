"""Keeps a bounded part of a program's output, and decides how it travels: plain data, no I/O.

Of standard output the beginning is kept, and nothing but what the program wrote: who reads it may be a
program too, and knows from the count that it was cut. Of standard error the first three quarters of the
allowance (head) and the last quarter (tail) are kept, joined by a line that says how many bytes are missing:
what went wrong stands at the end. Cuts fall between characters, so that a cut alone never turns text into
something that is not.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from kubecoderun_sidecar.answers import Captured

Chunk = bytes | bytearray | memoryview

_MARKER_ROOM = 48
"""Longest omission marker: its words and a count of 19 digits."""

UNSAFE_CHARACTERS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    # Category Cf, format characters: bidi controls reorder what a reader sees, the others are invisible
    # (zero width, soft hyphen, tags). Unassigned code points inside these blocks count too. Then what some
    # terminals and readers of JSON or YAML take for line ends (U+2028, U+2029) or cannot hold (U+FFFE/F).
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Inside of a character class."""
_UNSAFE = re.compile(f"[{UNSAFE_CHARACTERS}]")


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept bytes of a stream of `total` bytes; nothing is missing when both parts add up to it."""

    head: bytes
    tail: bytes
    total: int
    prefix: bool = False
    """There is never a tail, nor a marker."""

    @property
    def complete(self) -> bool:
        return len(self.head) + len(self.tail) == self.total

    def joined(self) -> bytes:
        """Everything kept; with the omission marker if something is missing, unless it is a prefix."""
        if self.complete:
            return self.head + self.tail
        if self.prefix:
            return self.head[: _whole_characters(self.head)]
        return _join(self.head, self.tail, self.total)

    def preview(self, limit: int) -> bytes:
        """At most `limit` bytes (at least 256) of `joined`, cut the same way."""
        joined = self.joined()
        if len(joined) <= limit:
            return joined
        if self.prefix:
            return joined[: _whole_characters(joined[:limit])]
        whole = self.head + self.tail
        room = limit - _MARKER_ROOM
        tail_size = room // 4
        return _join(whole[: room - tail_size], whole[-tail_size:], self.total)

    def captured(self, data: bytes, notes: bytes = b"") -> Captured:
        """How `data`, one of the two above, travels, with our own `notes` after it."""
        truncated = not self.complete or len(data) != self.total
        data += notes
        text = as_safe_text(data)
        if text is None:
            return Captured(None, base64.b64encode(data).decode("ascii"), self.total, truncated)
        return Captured(text, None, self.total, truncated)


class OutputKeeper:
    """Takes a stream of any length in chunks of any size. Memory: `limit` plus a quarter of it, at most."""

    def __init__(self, limit: int, *, prefix: bool = False) -> None:
        """`prefix`: keep the beginning only."""
        self._prefix = prefix
        self._tail_size = 0 if prefix else limit // 4
        self._head_size = limit - self._tail_size
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes seen so far."""
        return self._total

    def add(self, chunk: Chunk) -> None:
        """Take the next bytes; nothing of `chunk` is referred to afterwards."""
        self._total += len(chunk)
        room = self._head_size - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        size = self._tail_size
        if len(chunk) >= size:
            self._tail[:] = chunk[len(chunk) - size :]
        elif chunk:
            self._tail += chunk
            # Trimmed only now and then: trimming at every small chunk would copy the tail each time.
            if len(self._tail) > 2 * size:
                del self._tail[:-size]

    def last(self, count: int) -> bytes:
        """The last bytes seen, at most `count` and at most what is kept of the end."""
        return bytes((self._head + self._tail)[-count:] if len(self._tail) < count else self._tail[-count:])

    def kept(self) -> Kept:
        """What is kept so far."""
        tail = bytes(self._tail[-self._tail_size :]) if self._tail_size else b""
        return Kept(bytes(self._head), tail, self._total, self._prefix)


def as_safe_text(data: bytes) -> str | None:
    """`data` as text that is harmless on a terminal and in a page: valid UTF-8, no control characters but
    newline and tab, no format characters. None otherwise: the exact bytes then travel as base64."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _UNSAFE.search(text) else text


def _join(head: bytes, tail: bytes, total: int) -> bytes:
    """Both parts, trimmed to whole characters, around the marker."""
    head = head[: _whole_characters(head)]
    tail = tail[_continuation_bytes(tail) :]
    omitted = total - len(head) - len(tail)
    return b"%b\n[... %d bytes omitted ...]\n%b" % (head, omitted, tail)


def _whole_characters(data: bytes) -> int:
    """Length of `data` without a UTF-8 character that its end cuts off."""
    size = len(data)
    for back in range(1, min(4, size + 1)):
        byte = data[size - back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return size - back if back < length else size
        if byte < 0x80:
            break
    return size


def _continuation_bytes(data: bytes) -> int:
    """How many bytes at the start of `data` belong to a character that began before it (0 to 3)."""
    count = 0
    while count < min(3, len(data)) and 0x80 <= data[count] < 0xC0:
        count += 1
    return count

"""A run as somebody who watches it is told of it: server-sent events. Plain data, no I/O.

An event's id is how much of each stream the watcher has been told, so that one whose connection broke goes on
where it stopped, at any replica.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kubecoderun_api.wire import refuse
from kubecoderun_crds.relay import Glance, Piece

Json = Mapping[str, Any]
ENDED: Final = "end"
"""Id of the last event: whoever has it needs no more."""
STREAMS: Final = ("stdout", "stderr")
HEARTBEAT: Final = b": still running\n\n"
_RETRY_MILLISECONDS: Final = 1000
_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def event(kind: str, data: Json, id: str | None = None) -> bytes:
    """One server-sent event, as it is sent."""
    lines = [f"event: {kind}", f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=True)}"]
    if id is not None:
        lines.insert(0, f"id: {id}")
    return ("\n".join(lines) + "\n\n").encode()


def prelude() -> bytes:
    """What comes first: how soon a watcher whose connection broke comes again."""
    return f"retry: {_RETRY_MILLISECONDS}\n\n".encode()


class Stream:
    """One output stream, in whole characters."""

    def __init__(self, told: int) -> None:
        """`told`: bytes that the watcher has already."""
        self.known = told
        """Bytes that need not be asked for any more."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def told(self) -> int:
        """Bytes that the watcher has: all that are known, but for a character that is still incomplete."""
        return self.known - len(self._decoder.getstate()[0])

    def take(self, piece: Piece) -> tuple[int, str]:
        """How many bytes are missing before the piece, and its text."""
        skip = self.known - piece.at
        if skip > 0:  # told before, by another look
            piece = Piece(self.known, piece.data[skip:], piece.total)
        missing, before = piece.at - self.known, ""
        if missing:
            before = self._decoder.decode(b"", final=True)
            self._decoder.reset()
        self.known = piece.at + len(piece.data)
        return missing, before + self._decoder.decode(piece.data)

    def end(self, beginning: bytes, total: int) -> tuple[str, int]:
        """The rest, when the program has ended: text, and how many bytes are missing after it. `beginning`:
        as much of all output as was kept without a gap."""
        rest = beginning[self.known :]
        missing = max(0, total - self.known - len(rest))
        self.known = max(total, self.known)
        return self._decoder.decode(rest, final=True), missing


class Progress:
    """What one watcher has been told, and what to tell next."""

    def __init__(self, cursor: str = "") -> None:
        """`cursor`: id of the last event that a watcher has got who comes again. Raises BadRequest."""
        match = _CURSOR.fullmatch(cursor)
        if cursor and match is None:
            refuse("Last-Event-ID must be the id of an event of this stream.")
        offsets = map(int, match.groups()) if match else (0, 0)
        self.streams = dict(zip(STREAMS, map(Stream, offsets), strict=True))
        self._phase: str | None = None

    def phase(self, session: str, phase: str) -> Iterator[bytes]:
        """The session is in a phase; told when it is another one."""
        if phase != self._phase:
            self._phase = phase
            yield event("status", {"session_id": session, "phase": phase})

    def output(self, glance: Glance) -> Iterator[bytes]:
        """The program has written something."""
        for name, piece in (("stdout", glance.stdout), ("stderr", glance.stderr)):
            if piece.data:
                yield from self._tell(name, *self.streams[name].take(piece))

    def rest(self, name: str, beginning: bytes, total: int) -> Iterator[bytes]:
        """The program has ended: what has not been told of a stream."""
        text, missing = self.streams[name].end(beginning, total)
        yield from self._tell(name, 0, text)
        yield from self._tell(name, missing, "")

    def result(self, body: Json) -> bytes:
        """The last event of a run that has an answer."""
        return event("result", body, ENDED)

    def failure(self, body: Json) -> bytes:
        """The last event of a run that has none."""
        return event("error", body, ENDED)

    def _tell(self, name: str, missing: int, text: str) -> Iterator[bytes]:
        cursor = "-".join(str(stream.told) for stream in self.streams.values())
        if missing:
            yield event("omitted", {"stream": name, "bytes": missing}, cursor)
        if text:
            yield event(name, {"text": text}, cursor)

"""Frames between sidecar and runner: one byte of type, four of length (big-endian), payload. No I/O.

Runner to sidecar: H hello, W warm, P prepared, S started, O stdout, E stderr, X exit, F fault.
Sidecar to runner: R prepare, C code, I stdin, G go, K cancel.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_PAYLOAD_BYTES = 1 << 20
MAX_CONTROL_BYTES = 64 << 10
"""Bound for JSON frames from the runner; only output frames may be as long as MAX_PAYLOAD_BYTES."""
CHUNK_BYTES = 64 << 10
"""Size of the C and I frames the sidecar sends."""

_HEADER_BYTES = 5
_STREAMED = frozenset(b"OE")


class FrameError(ValueError):
    """The peer broke the framing. The text holds numbers and letters of the protocol only."""


def encode_frame(kind: bytes, payload: bytes = b"{}") -> bytes:
    """One frame; `kind` is its letter."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise FrameError(f"a frame of {len(payload)} bytes is too long to send")
    return kind + len(payload).to_bytes(4, "big") + payload


class FrameDecoder:
    """Cuts a byte stream into frames. Output passes through in the pieces it arrives in, so a frame of any
    length costs no memory; all other payloads are collected (at most MAX_CONTROL_BYTES)."""

    def __init__(self) -> None:
        self.allowed = b""
        """Letters that may come next: looked at for every frame, so a caller can change it in between."""
        self._header = bytearray()
        self._payload = bytearray()
        self._left = 0

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview | bytes]]:
        """Yield (type, payload) for what `data` completes; FrameError ends the stream for good.

        A piece of output is a view into `data`: use it before asking for the next one.
        """
        position = 0
        while position < len(data):
            if len(self._header) < _HEADER_BYTES:
                position += self._take_header(data[position : position + _HEADER_BYTES - len(self._header)])
                if len(self._header) < _HEADER_BYTES or self._left:
                    continue
                piece = data[:0]
            else:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
            yield from self._emit(piece)

    def _emit(self, piece: memoryview) -> Iterator[tuple[int, memoryview | bytes]]:
        kind = self._header[0]
        done = self._left == 0
        if done:
            self._header.clear()
        if kind in _STREAMED:
            yield kind, piece
            return
        self._payload += piece
        if done:
            payload = bytes(self._payload)
            self._payload.clear()
            yield kind, payload

    def _take_header(self, piece: memoryview) -> int:
        """Add to the header; check type and length as soon as they are there."""
        self._header += piece
        kind = self._header[0]
        if kind not in self.allowed:
            raise FrameError(f"a frame of type {_name(kind)} where only {_names(self.allowed)} may come")
        if len(self._header) == _HEADER_BYTES:
            self._left = int.from_bytes(self._header[1:], "big")
            bound = MAX_PAYLOAD_BYTES if kind in _STREAMED else MAX_CONTROL_BYTES
            if self._left > bound:
                raise FrameError(f"a frame of type {_name(kind)} with {self._left} bytes")
        return len(piece)


def _name(kind: int) -> str:
    return chr(kind) if 65 <= kind <= 90 else f"0x{kind:02x}"


def _names(kinds: bytes) -> str:
    return "/".join(map(_name, kinds)) or "nothing"

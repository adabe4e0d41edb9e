"""Frames between sidecar and runner: one byte of type, four of length (big-endian), payload. No I/O.

Runner to sidecar: H hello, W warm, P prepared, S started, O stdout, E stderr, X exit, L listed file, Z end of
the listing, D data of a file, U unreadable, Q tool call, F fault.
Sidecar to runner: R prepare, N input file, D its data, C code, I stdin, G go, K cancel, T take a listed
file, A answer to a tool call, V data of its result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_PAYLOAD_BYTES = 1 << 20
MAX_CONTROL_BYTES = 64 << 10
"""Bound for JSON frames from the runner; only output and tool calls may be as long as MAX_PAYLOAD_BYTES."""
CHUNK_BYTES = 64 << 10
"""Size of the C and I frames the sidecar sends."""

PIECE_BYTES = 256 << 10
"""Longest D frame; all of a file but the last have exactly this length."""

_HEADER = struct.Struct(">BI")
_BETWEEN = -1
"""No frame is open."""
_STREAMED = frozenset(b"OED")
_LONG = _STREAMED | frozenset(b"Q")
_DATA = 0x44
"""D"""


class FrameError(ValueError):
    """The peer broke the framing. The text holds numbers and letters of the protocol only."""


def encode_frame(kind: bytes, payload: bytes = b"{}") -> bytes:
    """One frame; `kind` is its letter."""
    return frame_header(kind, len(payload)) + payload


def frame_header(kind: bytes, length: int) -> bytes:
    """What comes before a payload of `length` bytes."""
    if length > MAX_PAYLOAD_BYTES:
        raise FrameError(f"a frame of {length} bytes is too long to send")
    return kind + length.to_bytes(4, "big")


class FrameDecoder:
    """Cuts a byte stream into frames. Output and data of files pass through in the pieces they arrive in, so
    a frame of any length costs no memory; all other payloads are collected (at most MAX_CONTROL_BYTES, a
    tool call MAX_PAYLOAD_BYTES)."""

    def __init__(self) -> None:
        self.allowed = b""
        """Letters that may come next: looked at for every frame, so a caller can change it in between."""
        self.data_left = 0
        """Bytes of the file that are still to come, which say how long each D frame has to be: a peer cannot
        make work by sending them in crumbs. Looked at in the same way."""
        self._header = bytearray()
        """The part of a header that has arrived."""
        self._payload = bytearray()
        self._kind = _BETWEEN
        self._left = 0

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview | bytes]]:
        """Yield (type, payload) for what `data` completes; FrameError ends the stream for good.

        A piece of output or data is a view into `data`, never empty: use it before asking for the next one.
        """
        position, end = 0, len(data)
        while position < end:
            if self._kind == _BETWEEN:
                position = self._take_header(data, position)
                if self._kind == _BETWEEN:
                    return
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            kind = self._kind
            if self._left == 0:
                self._kind = _BETWEEN
            if kind in _STREAMED:
                if piece:
                    yield kind, piece
                continue
            self._payload += piece
            if self._left == 0:
                payload = bytes(self._payload)
                self._payload.clear()
                yield kind, payload

    def _take_header(self, data: memoryview, position: int) -> int:
        """Read a header, or the part of it that is there; the position after it."""
        if not self._header and len(data) - position >= _HEADER.size:
            self._open(*_HEADER.unpack_from(data, position))
            return position + _HEADER.size
        piece = data[position : position + _HEADER.size - len(self._header)]
        self._header += piece
        if len(self._header) == _HEADER.size:
            kind, length = _HEADER.unpack(self._header)
            self._header.clear()
            self._open(kind, length)
        else:
            # The type is there, and may be all that ever comes.
            self._check_kind(self._header[0])
        return position + len(piece)

    def _open(self, kind: int, length: int) -> None:
        self._check_kind(kind)
        if length > (MAX_PAYLOAD_BYTES if kind in _LONG else MAX_CONTROL_BYTES):
            raise FrameError(f"a frame of type {_name(kind)} with {length} bytes")
        if kind == _DATA and length != min(self.data_left, PIECE_BYTES):
            raise FrameError(f"a frame of type D with {length} bytes where {self.data_left} are to come")
        self._kind, self._left = kind, length

    def _check_kind(self, kind: int) -> None:
        if kind not in self.allowed:
            raise FrameError(f"a frame of type {_name(kind)} where only {_names(self.allowed)} may come")


def _name(kind: int) -> str:
    return chr(kind) if 65 <= kind <= 90 else f"0x{kind:02x}"


def _names(kinds: bytes) -> str:
    return "/".join(map(_name, kinds)) or "nothing"

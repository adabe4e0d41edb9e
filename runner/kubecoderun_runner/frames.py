"""Frames between runner and sidecar: one byte of type, four of length (big-endian), payload. No I/O.

Runner to sidecar: H hello, W warm, P prepared, S started, O stdout, E stderr, X exit, L listed file, Z end of
the listing, D data of a file, U unreadable, Q tool call, F fault.
Sidecar to runner: R prepare, N input file, D its data, C code, I stdin, G go, K cancel, T take a listed
file, A answer to a tool call, V data of its result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

MAX_PAYLOAD_BYTES: Final = 1 << 20
PIECE_BYTES: Final = 1 << 18
"""Length of the D frames we send; only the last one of a file is shorter."""
HEADER_BYTES: Final = 5
_STREAMED: Final = frozenset(b"DC")


class FrameError(Exception):
    """The sidecar sent something that is not the protocol."""


def header(kind: bytes, length: int) -> bytes:
    """The five bytes before a payload of `length` bytes."""
    return kind + length.to_bytes(4, "big")


def encode(kind: bytes, payload: bytes = b"{}") -> bytes:
    """A whole frame."""
    return header(kind, len(payload)) + payload


def encode_json(kind: bytes, /, **fields: object) -> bytes:
    """A frame whose payload is a JSON object."""
    return encode(kind, json.dumps(fields, separators=(",", ":")).encode())


def decode_json(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload; FrameError for anything else."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        raise FrameError("a payload is not JSON") from None
    if not isinstance(value, dict):
        raise FrameError("a payload is not a JSON object")
    return value


class FrameReader:
    """Cuts what a socket delivers into frames. Data of files and code pass through in the pieces they arrive
    in, without a copy; all other payloads are put together, so at most one of them is held."""

    def __init__(self) -> None:
        self._header = bytearray()
        """The part of a header that has arrived."""
        self._payload = bytearray()
        self._kind = b""
        """Type of the frame that is open; empty between frames."""
        self._left = 0

    def feed(self, data: memoryview) -> Iterator[tuple[bytes, memoryview | bytes]]:
        """Yield (type, payload) for what `data` completes; FrameError for a length over the bound.

        A piece of data or code is a view into `data`, never empty: use it before asking for the next one.
        """
        position, end = 0, len(data)
        while position < end:
            if not self._kind:
                piece = data[position : position + HEADER_BYTES - len(self._header)]
                self._header += piece
                position += len(piece)
                if len(self._header) < HEADER_BYTES:
                    return
                self._open()
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            kind = self._kind
            if not self._left:
                self._kind = b""
            if kind[0] in _STREAMED:
                if piece:
                    yield kind, piece
                continue
            self._payload += piece
            if not self._left:
                payload = bytes(self._payload)
                self._payload.clear()
                yield kind, payload

    def _open(self) -> None:
        length = int.from_bytes(self._header[1:], "big")
        if length > MAX_PAYLOAD_BYTES:
            raise FrameError(f"a frame announces {length} bytes")
        self._kind, self._left = bytes(self._header[:1]), length
        self._header.clear()

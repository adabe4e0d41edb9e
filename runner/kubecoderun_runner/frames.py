"""Frames between runner and sidecar: one byte of type, four of length (big-endian), payload. No I/O.

Runner to sidecar: H hello, W warm, P prepared, S started, O stdout, E stderr, X exit, F fault.
Sidecar to runner: R prepare, C code, I stdin, G go, K cancel.
"""

from __future__ import annotations

import json
from typing import Any, Final

MAX_PAYLOAD_BYTES: Final = 1 << 20
HEADER_BYTES: Final = 5


class FrameError(Exception):
    """The sidecar sent something that is not the protocol."""


def header(kind: bytes, length: int) -> bytes:
    """The five bytes before a payload of `length` bytes."""
    return kind + length.to_bytes(4, "big")


def encode(kind: bytes, payload: bytes = b"{}") -> bytes:
    """A whole frame."""
    return header(kind, len(payload)) + payload


def encode_json(kind: bytes, **fields: object) -> bytes:
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
    """Puts frames together from the pieces a socket delivers; holds at most one frame and one read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The (type, payload) pairs that are complete now; FrameError for a length over the bound."""
        self._buffer += data
        frames: list[tuple[bytes, bytes]] = []
        while len(self._buffer) >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
            if length > MAX_PAYLOAD_BYTES:
                raise FrameError(f"a frame announces {length} bytes")
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append((bytes(self._buffer[:1]), bytes(self._buffer[HEADER_BYTES:end])))
            del self._buffer[:end]
        return frames

"""A glance at the output of a run in progress: `POST /v1/output` of HTTP protocol 1."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any, cast

from kubecoderun_sidecar.answers import RunState
from kubecoderun_sidecar.fields import Fields, decode_object, encode_object

PIECE_BYTES = 32 << 10
"""Most bytes of a stream in one answer."""
MAX_WAIT_SECONDS = 20.0
_MAX_INT = 2**63 - 1
_RUN_STATES = frozenset(RunState.__args__)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """What the asker has already, in bytes of each stream, and how long it waits for more (seconds).
    `run`: in a reserved pod, the UID of the session whose run is meant."""

    stdout: int = 0
    stderr: int = 0
    wait_seconds: float = 0.0
    run: str | None = None

    def to_json(self) -> bytes:
        wire = {"stdout": self.stdout, "stderr": self.stderr, "waitSeconds": self.wait_seconds}
        return encode_object(wire if self.run is None else {**wire, "run": self.run})

    @classmethod
    def parse(cls, body: bytes) -> OutputRequest:
        fields = decode_object(body, "output")
        return cls(
            fields.integer("stdout", 0, _MAX_INT),
            fields.integer("stderr", 0, _MAX_INT),
            fields.number("waitSeconds", 0, MAX_WAIT_SECONDS),
            fields.optional_text("run", min_bytes=1, max_bytes=128),
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream from the offset `at` on. `at` is more than was asked for when the bytes between are
    not kept any more. `total`: how much the program has written so far."""

    at: int
    data: bytes = field(repr=False)
    total: int

    def to_wire(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "base64": base64.b64encode(self.data).decode("ascii"),
            "total": self.total,
        }

    @classmethod
    def read(cls, fields: Fields) -> Piece:
        text = fields.text("base64", max_bytes=2 * PIECE_BYTES)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            fields.fail("base64", "base64")
        return cls(fields.integer("at", 0, _MAX_INT), data, fields.integer("total", 0, _MAX_INT))


@dataclass(frozen=True, slots=True)
class OutputAnswer:
    """What there is beyond the asker's offsets. Of a run that has finished only that: its output is in the
    result."""

    run: RunState
    stdout: Piece
    stderr: Piece

    def to_json(self) -> bytes:
        return encode_object(
            {"run": self.run, "stdout": self.stdout.to_wire(), "stderr": self.stderr.to_wire()}
        )

    @classmethod
    def parse(cls, body: bytes) -> OutputAnswer:
        fields = decode_object(body, "output")
        return cls(
            cast(RunState, fields.choice("run", _RUN_STATES)),
            Piece.read(fields.object("stdout")),
            Piece.read(fields.object("stderr")),
        )

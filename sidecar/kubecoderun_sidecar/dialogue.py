"""What the runner may say when, and what it means: the state machine of one runner connection. No I/O.

Everything the runner says is the user's word: it is believed about the user's own run, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, cast

from kubecoderun_sidecar.answers import MAX_FILES, Reason
from kubecoderun_sidecar.fields import decode_object
from kubecoderun_sidecar.limits import Bounds, Limit

RUNNER_PROTOCOL = 1
_MAX_SECONDS = 1e9
_LIMITS = frozenset(Limit.__args__)  # type: ignore[attr-defined]
_SIGNAL = re.compile(r"SIG[A-Z0-9+-]{1,13}")


class Phase(Enum):
    """Where the conversation is."""

    CONNECTED = auto()
    GREETED = auto()
    WARM = auto()
    DELIVERING = auto()
    DELIVERED = auto()
    PREPARED = auto()
    GOING = auto()
    RUNNING = auto()
    LISTING = auto()
    """The program has ended; the list of its files is coming."""
    LISTED = auto()
    """Files can be asked for."""
    PULLING = auto()
    ENDED = auto()
    STOPPED = auto()
    """A delivery has come to nothing; another may follow."""
    LOST = auto()


ALLOWED = {
    Phase.CONNECTED: b"H",
    Phase.GREETED: b"WF",
    Phase.WARM: b"F",
    Phase.DELIVERING: b"F",
    Phase.DELIVERED: b"PF",
    Phase.PREPARED: b"F",
    Phase.GOING: b"SF",
    Phase.RUNNING: b"OEQXF",
    Phase.LISTING: b"LZF",
    Phase.LISTED: b"F",
    Phase.PULLING: b"DUF",
    Phase.ENDED: b"",
    Phase.STOPPED: b"F",
    Phase.LOST: b"",
}
"""Frames the runner may send in each phase."""


@dataclass(frozen=True, slots=True)
class ExitReport:
    """Frame X: how the program ended, in the runner's words."""

    exit_code: int | None
    signal: str | None
    timed_out: bool
    cancelled: bool
    out_of_memory: bool
    cpu_seconds: float
    max_rss_bytes: int
    wall_seconds: float
    limit: Limit | None = None
    """Which limit the program met, as far as the runner knows."""

    def reason(self, *, cancel_asked: bool) -> Reason:
        """The reason in the result. A run that was asked to end is Cancelled, however it ended in the end;
        a runner that claims a cancel nobody asked for has lost its credit."""
        if self.out_of_memory:
            return "OOMKilled"
        if cancel_asked:
            return "Cancelled"
        if self.cancelled:
            return "RuntimeLost"
        if self.timed_out:
            return "TimeLimit"
        if self.limit == "output":
            return "OutputLimit"
        if self.signal is not None:
            return "Signalled"
        return "Succeeded" if self.exit_code == 0 else "NonZeroExit"


@dataclass(frozen=True, slots=True)
class DeliveryFault:
    """Frame F during a delivery: why the runner cannot take it. `input`: which input file it is about."""

    kind: Literal["inputs_too_large", "input_path", "other"]
    input: int


def parse_fault(payload: bytes) -> DeliveryFault:
    """Read frame F; ProtocolError when it is malformed. Its message is the user's word and goes nowhere."""
    fields = decode_object(payload, "fault")
    kind = fields.optional_text("kind", max_bytes=64)
    index = fields.optional_integer("input", 0, MAX_FILES - 1) or 0
    if kind == "inputs_too_large":
        return DeliveryFault("inputs_too_large", index)
    return DeliveryFault("input_path" if kind == "input_path" else "other", index)


def check_unreadable(payload: bytes, index: int) -> None:
    """Read frame U; ProtocolError unless it is about the file that was asked for."""
    fields = decode_object(payload, "unreadable")
    if fields.integer("index", 0, MAX_FILES) != index:
        fields.fail("index", "that of the file that was asked for")


@dataclass(frozen=True, slots=True)
class Hello:
    """Frame H. `features`: what this runner can do beyond the first ones of its protocol version."""

    languages: frozenset[str]
    features: frozenset[str] = frozenset()


def parse_hello(payload: bytes) -> Hello:
    """What the runner offers; ProtocolError for another protocol version."""
    fields = decode_object(payload, "hello")
    if fields.integer("protocol", 0, 1 << 31) != RUNNER_PROTOCOL:
        fields.fail("protocol", str(RUNNER_PROTOCOL))
    return Hello(
        frozenset(fields.texts("languages", max_items=64)),
        frozenset(fields.texts("features", max_items=64)),
    )


def parse_warm(payload: bytes) -> Bounds:
    """Read frame W: the limits that hold for all programs; a runner may leave them out."""
    limits = decode_object(payload, "warm").optional_object("limits")
    if limits is None:
        return Bounds()
    return Bounds(
        limits.optional_integer("memoryBytes", 0, 2**63 - 1),
        limits.optional_integer("processes", 0, 2**31),
        limits.optional_integer("openFiles", 0, 2**31),
    )


def parse_exit(payload: bytes) -> ExitReport:
    """Read frame X; ProtocolError when a field is malformed or nothing says how the program ended."""
    fields = decode_object(payload, "exit")
    signal = fields.text("signal", max_bytes=16) if fields.has("signal") else None
    if signal is not None and not _SIGNAL.fullmatch(signal):
        fields.fail("signal", "the name of a signal")
    report = ExitReport(
        exit_code=fields.optional_integer("exitCode", 0, 255),
        signal=signal,
        timed_out=fields.boolean("timedOut", default=False),
        cancelled=fields.boolean("cancelled", default=False),
        out_of_memory=fields.boolean("oom", default=False),
        cpu_seconds=fields.number("cpuSeconds", 0, _MAX_SECONDS),
        max_rss_bytes=fields.integer("maxRssBytes", 0, 2**63 - 1),
        wall_seconds=fields.number("wallSeconds", 0, _MAX_SECONDS),
        limit=cast(Limit, fields.choice("limit", _LIMITS)) if fields.has("limit") else None,
    )
    ended = report.exit_code is not None or report.signal is not None
    if not ended and not (report.timed_out or report.cancelled or report.out_of_memory):
        fields.fail("exitCode", "given, or signal")
    return report

"""Programmatic tool calling on the wire: the tools of a program, its calls, and their results.

A value is one JSON value as ASCII text. Short ones stand in messages, long ones in the object store.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from kubecoderun_sidecar.fields import Fields, ProtocolError, decode_object, encode_object

MAX_TOOLS = 100
MAX_CALLS = 200
"""Most calls of one run."""
MAX_INLINE_BYTES = 8192
MAX_INPUT_BYTES = 500_000
MAX_RESULT_BYTES = 5 << 20
MAX_ERROR_BYTES = 16 << 10
MAX_NAME_BYTES = 512
_MAX_URL_BYTES = 8192
_HEX = set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a program may call, and the name of the function that stands for it there."""

    name: str
    function: str

    def to_wire(self) -> dict[str, str]:
        return {"name": self.name, "function": self.function}

    @classmethod
    def read(cls, fields: Fields) -> Tool:
        return cls(
            fields.text("name", min_bytes=1, max_bytes=MAX_NAME_BYTES),
            fields.text("function", min_bytes=1, max_bytes=256),
        )


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that waits for its result. `input`: what it is made with, if that is short; otherwise it is in
    the store, with this size and hash."""

    id: str
    name: str
    input: str | None = field(repr=False)
    bytes: int = 0
    sha256: str = ""

    def to_wire(self) -> dict[str, Any]:
        if self.input is not None:
            return {"id": self.id, "name": self.name, "input": self.input}
        return {"id": self.id, "name": self.name, "bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def read(cls, fields: Fields) -> ToolCall:
        id, name = fields.text("id", max_bytes=32), fields.text("name", max_bytes=MAX_NAME_BYTES)
        if fields.has("input"):
            return cls(id, name, fields.text("input", max_bytes=MAX_INLINE_BYTES))
        size = fields.integer("bytes", 0, MAX_INPUT_BYTES)
        return cls(id, name, None, size, fields.text("sha256", min_bytes=64, max_bytes=64))


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call: a short `value`; an object behind `url`, a presigned GET and a secret; or an
    `error`."""

    id: str
    value: str | None = field(default=None, repr=False)
    error: str | None = field(default=None, repr=False)
    url: str = field(default="", repr=False)
    bytes: int = 0
    sha256: str = ""

    def to_wire(self) -> dict[str, Any]:
        if self.value is not None:
            return {"id": self.id, "value": self.value}
        if self.error is not None:
            return {"id": self.id, "error": self.error}
        return {"id": self.id, "url": self.url, "bytes": self.bytes, "sha256": self.sha256}

    @classmethod
    def read(cls, fields: Fields) -> ToolResult:
        id = fields.text("id", min_bytes=1, max_bytes=32)
        if sum(map(fields.has, ("value", "error", "url"))) != 1:
            fields.fail("value", "given, or error, or url, but only one of them")
        if fields.has("value"):
            return cls(id, value=fields.text("value", max_bytes=MAX_INLINE_BYTES))
        if fields.has("error"):
            return cls(id, error=fields.text("error", max_bytes=MAX_ERROR_BYTES))
        sha256 = fields.text("sha256", min_bytes=64, max_bytes=64)
        if not set(sha256) <= _HEX:
            fields.fail("sha256", "64 lower-case hexadecimal digits")
        size = fields.integer("bytes", 0, MAX_RESULT_BYTES)
        url = fields.text("url", min_bytes=1, max_bytes=_MAX_URL_BYTES)
        return cls(id, url=url, bytes=size, sha256=sha256)


@dataclass(frozen=True, slots=True)
class ResultsRequest:
    """Results of calls; of calls that have theirs already nothing is taken. `run`: in a reserved pod, the UID
    of the session whose run is meant."""

    results: tuple[ToolResult, ...]
    run: str | None = None

    def to_json(self) -> bytes:
        results = [result.to_wire() for result in self.results]
        return encode_object({"results": results} | ({} if self.run is None else {"run": self.run}))

    @classmethod
    def parse(cls, body: bytes) -> ResultsRequest:
        fields = decode_object(body, "results")
        return cls(
            tuple(map(ToolResult.read, fields.objects("results", max_items=MAX_CALLS))),
            fields.optional_text("run", min_bytes=1, max_bytes=128),
        )


@dataclass(frozen=True, slots=True)
class AskedCall:
    """Frame Q: a call, in the runner's words. `settled`: no other one follows at once."""

    number: int
    tool: str
    input: str = field(repr=False)
    settled: bool


def parse_call(payload: bytes) -> AskedCall:
    """Read frame Q; ProtocolError when it is malformed. What it says is the user's word."""
    fields = decode_object(payload, "call")
    return AskedCall(
        fields.integer("number", 1, 1 << 53),
        fields.text("tool", max_bytes=1 << 20),
        fields.text("input", max_bytes=1 << 20),
        fields.boolean("settled", default=False),
    )


def is_value(text: str) -> bool:
    """Whether text is a value: one JSON value, ASCII without control characters."""
    if not (text.isascii() and text.isprintable()):
        return False
    try:
        decode_object(b'{"value":' + text.encode("ascii") + b"}", "value")
        json.loads(text)
    except (ProtocolError, ValueError, RecursionError):
        return False
    return True


class CallRefusedError(Exception):
    """A call that is not passed on; the text is for the program."""


@dataclass(slots=True)
class PendingCall:
    """A call that has no result yet."""

    id: str
    number: int
    name: str
    text: str = field(repr=False)
    """Its input, until that is in the store."""
    bytes: int
    sha256: str
    short: bool
    """Its input stands in messages; otherwise it goes to the store."""
    stored: bool = False
    released: bool = False
    """It may be told to readers."""

    def told(self) -> ToolCall:
        """As readers are told of it."""
        if self.short:
            return ToolCall(self.id, self.name, self.text)
        return ToolCall(self.id, self.name, None, self.bytes, self.sha256)


class CallBook:
    """The calls of one run: which have been made, and which wait. Decides, does nothing."""

    MAX_HELD_BYTES = 8 << 20
    """Inputs in memory on their way to the store."""
    MAX_ALL_INLINE_BYTES = 196_608
    """Inputs that stand in messages at the same time: all of them stand in one status."""

    def __init__(self, tools: frozenset[str]) -> None:
        self._tools = tools
        self._made = 0
        self.waiting: dict[str, PendingCall] = {}

    def add(self, asked: AskedCall) -> PendingCall:
        """Take a call up. Raises CallRefusedError."""
        if asked.tool not in self._tools:
            shown = "".join(char if char.isprintable() else "?" for char in asked.tool[:128])
            raise CallRefusedError(f"Sandbox requested an unregistered tool: {shown}")
        if self._made >= MAX_CALLS:
            raise CallRefusedError(f"a program may call tools at most {MAX_CALLS} times")
        if len(asked.input) > MAX_INPUT_BYTES:
            raise CallRefusedError(f"the input is over {MAX_INPUT_BYTES} bytes")
        if not is_value(asked.input):
            raise CallRefusedError("the input is not JSON in ASCII")
        held = sum(call.bytes for call in self.waiting.values() if not call.short and not call.stored)
        inline = sum(call.bytes for call in self.waiting.values() if call.short)
        data = asked.input.encode("ascii")
        short = len(data) <= MAX_INLINE_BYTES and inline + len(data) <= self.MAX_ALL_INLINE_BYTES
        if not short and held + len(data) > self.MAX_HELD_BYTES:
            raise CallRefusedError("too much input in calls at the same time")
        self._made += 1
        call = PendingCall(
            f"call_{self._made:03d}",
            asked.number,
            asked.tool,
            asked.input,
            len(data),
            hashlib.sha256(data).hexdigest(),
            short,
        )
        self.waiting[call.id] = call
        return call

"""The operator's side of the sidecar: paths, headers, signatures and messages of HTTP protocol 1.

This module is all that the operator shares with the sidecar. docs/sidecar-protocol.md is its prose.
Messages are immutable dataclasses: `parse` reads one from the wire (ProtocolError names the bad field),
`to_json` writes one. Times are RFC 3339 text in UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kubecoderun_sidecar.answers import (
    MAX_FILES,
    Called,
    Captured,
    Event,
    Finished,
    Heartbeat,
    OutputFile,
    Owner,
    Reason,
    Refusal,
    RunResult,
    RunState,
    RuntimeState,
    SessionRef,
    SkippedFile,
    Started,
    StateAnswer,
    Usage,
    event_line,
    parse_event,
)
from kubecoderun_sidecar.fields import Fields, ProtocolError, decode_object, encode_object
from kubecoderun_sidecar.glance import OutputAnswer, OutputRequest, Piece
from kubecoderun_sidecar.limits import PREFIX, memory_advice
from kubecoderun_sidecar.signing import (
    CLOCK_SKEW_SECONDS,
    EXPIRES_AHEAD_SECONDS,
    HEADER_EPOCH,
    HEADER_EXPIRES,
    HEADER_SESSION_UID,
    HEADER_SIGNATURE,
    Caller,
    SignatureError,
    Signer,
    Verifier,
    signing_text,
)
from kubecoderun_sidecar.toolcalls import (
    MAX_CALLS,
    MAX_INLINE_BYTES,
    MAX_TOOLS,
    ResultsRequest,
    Tool,
    ToolCall,
    ToolResult,
)

__all__ = [
    "CLOCK_SKEW_SECONDS",
    "EXPIRES_AHEAD_SECONDS",
    "HEADER_EPOCH",
    "HEADER_EXPIRES",
    "HEADER_SESSION_UID",
    "HEADER_SIGNATURE",
    "MAX_CALLS",
    "MAX_INLINE_BYTES",
    "MAX_TOOLS",
    "PREFIX",
    "Called",
    "Caller",
    "CancelRequest",
    "Captured",
    "Event",
    "FileSlot",
    "Finished",
    "FormTarget",
    "Heartbeat",
    "InlineCode",
    "InputFile",
    "Limits",
    "OutputAnswer",
    "OutputFile",
    "OutputRequest",
    "OutputTarget",
    "Owner",
    "Piece",
    "PrepareRequest",
    "ProtocolError",
    "Reason",
    "Refusal",
    "ResultTarget",
    "ResultsRequest",
    "RunResult",
    "RunState",
    "RuntimeState",
    "SessionRef",
    "SignatureError",
    "Signer",
    "SkippedFile",
    "StartRequest",
    "Started",
    "StateAnswer",
    "StoredCode",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Usage",
    "Verifier",
    "event_line",
    "memory_advice",
    "parse_event",
    "signing_text",
]  # fmt: skip

DEFAULT_PORT = 8790
PATH_HEALTH = "/healthz"
PATH_READY = "/readyz"
PATH_METRICS = "/metrics"
PATH_STATE = "/v1/state"
PATH_PREPARE = "/v1/prepare"
PATH_START = "/v1/start"
PATH_OUTPUT = "/v1/output"
PATH_CANCEL = "/v1/cancel"
PATH_RESULTS = "/v1/results"
PATH_RETIRE = "/v1/retire"
PATH_RESERVE = "/v1/reserve"

MAX_BODY_BYTES = 1 << 20
"""Largest request body."""
MAX_CODE_TEXT_BYTES = 16 << 10
MAX_STORED_CODE_BYTES = 50 << 20
MAX_STDIN_BYTES = 16 << 10
MAX_PATH_BYTES = 1024
"""Of a file's path below the working directory, in UTF-8 (256 characters of at most four bytes)."""
MAX_FILE_BYTES = 1 << 40
MAX_PRINTED_BYTES = 1 << 40
MAX_URL_BYTES = 8192
MAX_EVENT_BYTES = 1 << 20
"""Largest line of the start stream; a reader may refuse longer ones (the preview keeps them near 50 KiB)."""
HEARTBEAT_SECONDS = 1.0
TOOL_WAIT_SECONDS = 600.0
ALL_TOOL_WAITS_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class InlineCode:
    text: str


@dataclass(frozen=True, slots=True)
class StoredCode:
    """Code behind a presigned GET. `repr` leaves the URL out: it is a secret."""

    url: str = field(repr=False)
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that is put into the working directory before the start, from behind a presigned GET.

    `path` is relative, with single slashes and no `.` or `..` segment. `read_only`: made without write
    permission, and never handed back as an output.
    """

    path: str = field(repr=False)
    url: str = field(repr=False)
    bytes: int
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """`output_bytes` is what is kept of each stream; `timeout_seconds` counts from the program's start.

    `files`: how many new or changed files are handed back, each of at most `file_bytes`, together at most
    `total_file_bytes`; the others are reported as skipped. No file is looked for when `files` is 0.
    `printed_bytes`: a program that prints more is ended; 0 for no bound.
    """

    timeout_seconds: float = 30
    output_bytes: int = 65536
    files: int = 0
    file_bytes: int = 0
    total_file_bytes: int = 0
    printed_bytes: int = 0
    tool_wait_seconds: float = TOOL_WAIT_SECONDS
    """How long a program may wait for the next result of a tool call; its own time limit stands still
    meanwhile."""
    all_tool_waits_seconds: float = ALL_TOOL_WAITS_SECONDS
    """How long it may wait for tools altogether."""


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Everything a run needs, delivered to the runner before anything starts."""

    session: SessionRef
    language: str
    code: InlineCode | StoredCode = field(repr=False)
    args: tuple[str, ...] = field(default=(), repr=False)
    stdin: str = field(default="", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    inputs: tuple[InputFile, ...] = field(default=(), repr=False)
    limits: Limits = Limits()
    tools: tuple[Tool, ...] = ()

    def to_json(self) -> bytes:
        code: dict[str, Any]
        if isinstance(self.code, InlineCode):
            code = {"text": self.code.text}
        else:
            code = {"url": self.code.url, "bytes": self.code.bytes, "sha256": self.code.sha256}
        return encode_object(
            {
                "session": self.session.to_wire(),
                "language": self.language,
                "code": code,
                "args": list(self.args),
                "stdin": self.stdin,
                "env": dict(self.env),
                "inputs": [
                    {"path": file.path, "url": file.url, "bytes": file.bytes, "readOnly": file.read_only}
                    for file in self.inputs
                ],
                "limits": {
                    "timeoutSeconds": self.limits.timeout_seconds,
                    "outputBytes": self.limits.output_bytes,
                    "files": self.limits.files,
                    "fileBytes": self.limits.file_bytes,
                    "totalFileBytes": self.limits.total_file_bytes,
                    "printedBytes": self.limits.printed_bytes,
                    "toolWaitSeconds": self.limits.tool_wait_seconds,
                    "allToolWaitsSeconds": self.limits.all_tool_waits_seconds,
                },
                "tools": [tool.to_wire() for tool in self.tools],
            }
        )

    @classmethod
    def parse(cls, body: bytes) -> PrepareRequest:
        fields = decode_object(body, "prepare")
        limits = fields.object("limits")
        return cls(
            session=SessionRef.read(fields.object("session")),
            language=fields.text("language", min_bytes=1, max_bytes=32),
            code=_parse_code(fields.object("code")),
            args=fields.texts("args", max_items=1024),
            stdin=fields.text("stdin", max_bytes=MAX_STDIN_BYTES) if fields.has("stdin") else "",
            env=fields.text_map("env", max_items=1024),
            inputs=tuple(map(_parse_input, fields.objects("inputs", max_items=MAX_FILES))),
            limits=Limits(
                limits.number("timeoutSeconds", 0.001, 86400),
                limits.integer("outputBytes", 1024, 1 << 20),
                limits.optional_integer("files", 0, MAX_FILES) or 0,
                limits.optional_integer("fileBytes", 0, MAX_FILE_BYTES) or 0,
                limits.optional_integer("totalFileBytes", 0, MAX_FILE_BYTES) or 0,
                limits.optional_integer("printedBytes", 0, MAX_PRINTED_BYTES) or 0,
                limits.optional_number("toolWaitSeconds", 0.001, 86400) or TOOL_WAIT_SECONDS,
                limits.optional_number("allToolWaitsSeconds", 0.001, 86400) or ALL_TOOL_WAITS_SECONDS,
            ),
            tools=tuple(map(Tool.read, fields.objects("tools", max_items=MAX_TOOLS))),
        )


def _parse_input(fields: Fields) -> InputFile:
    path = fields.text("path", min_bytes=1, max_bytes=MAX_PATH_BYTES)
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        fields.fail("path", "a relative path without empty, . or .. segments")
    return InputFile(
        path,
        fields.text("url", min_bytes=1, max_bytes=MAX_URL_BYTES),
        fields.integer("bytes", 0, MAX_FILE_BYTES),
        fields.boolean("readOnly", default=False),
    )


def _parse_code(fields: Fields) -> InlineCode | StoredCode:
    if fields.has("text") == fields.has("url"):
        fields.fail("text", "given, or url, but not both")
    if fields.has("text"):
        return InlineCode(fields.text("text", max_bytes=MAX_CODE_TEXT_BYTES))
    sha256 = fields.text("sha256", min_bytes=64, max_bytes=64)
    if not set(sha256) <= set("0123456789abcdef"):
        fields.fail("sha256", "64 lower-case hexadecimal digits")
    size = fields.integer("bytes", 0, MAX_STORED_CODE_BYTES)
    return StoredCode(fields.text("url", min_bytes=1, max_bytes=8192), size, sha256)


@dataclass(frozen=True, slots=True)
class ResultTarget:
    """Where result.json goes: stored when more than `inline_bytes` of a stream are kept, or the run took
    longer than `after_seconds`. `url` is a presigned PUT, a secret."""

    url: str = field(repr=False)
    inline_bytes: int = 16384
    after_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class FormTarget:
    """A presigned POST policy: fields of a form that uploads any object whose key begins with `key_prefix`.
    To the fields come `key`, `x-amz-meta-path` (percent-encoded) and, last, `file`. The fields are
    secrets."""

    url: str = field(repr=False)
    key_prefix: str
    fields: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileSlot:
    """A presigned PUT for one file, under an id that was chosen for it. `url` is a secret."""

    id: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """Where new and changed files go: by `form`, under ids of `id_prefix` and random characters; or, for a
    store without POST policies, into `slots`, one file each. Exactly one of the two is given."""

    id_prefix: str
    form: FormTarget | None = None
    slots: tuple[FileSlot, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {"idPrefix": self.id_prefix}
        if self.form is not None:
            wire["form"] = {
                "url": self.form.url,
                "keyPrefix": self.form.key_prefix,
                "fields": dict(self.form.fields),
            }
        else:
            wire["slots"] = [{"id": slot.id, "url": slot.url} for slot in self.slots]
        return wire

    @classmethod
    def read(cls, fields: Fields) -> OutputTarget:
        prefix = fields.text("idPrefix", max_bytes=64)
        form = fields.optional_object("form")
        slots = fields.objects("slots", max_items=MAX_FILES)
        if (form is None) == (not slots):
            fields.fail("form", "given, or slots, but not both")
        if form is not None:
            return cls(
                prefix,
                FormTarget(
                    form.text("url", min_bytes=1, max_bytes=MAX_URL_BYTES),
                    form.text("keyPrefix", max_bytes=512),
                    form.object("fields").all_texts(max_items=32),
                ),
            )
        return cls(
            prefix,
            slots=tuple(map(_parse_slot, slots)),
        )


@dataclass(frozen=True, slots=True)
class StartRequest:
    """`result` None: no result.json is stored, and the preview is all there is. `outputs` None: no files are
    handed back. `call_slots`: where the long inputs of tool calls go, a slot by the id of the call.
    `run`: in a reserved pod, the UID of the session whose run is meant."""

    result: ResultTarget | None = None
    outputs: OutputTarget | None = None
    call_slots: tuple[FileSlot, ...] = ()
    run: str | None = None

    def to_json(self) -> bytes:
        wire: dict[str, Any] = {}
        if self.run is not None:
            wire["run"] = self.run
        if (target := self.result) is not None:
            wire["result"] = {
                "url": target.url,
                "inlineBytes": target.inline_bytes,
                "afterSeconds": target.after_seconds,
            }
        if self.outputs is not None:
            wire["outputs"] = self.outputs.to_wire()
        if self.call_slots:
            wire["callSlots"] = [{"id": slot.id, "url": slot.url} for slot in self.call_slots]
        return encode_object(wire)

    @classmethod
    def parse(cls, body: bytes) -> StartRequest:
        fields = decode_object(body, "start")
        target, outputs = fields.optional_object("result"), fields.optional_object("outputs")
        result = None
        if target is not None:
            result = ResultTarget(
                target.text("url", min_bytes=1, max_bytes=MAX_URL_BYTES),
                target.integer("inlineBytes", 1024, 65536),
                target.number("afterSeconds", 0, 86400),
            )
        return cls(
            result,
            OutputTarget.read(outputs) if outputs is not None else None,
            tuple(map(_parse_slot, fields.objects("callSlots", max_items=MAX_CALLS))),
            _parse_run(fields),
        )


def _parse_slot(fields: Fields) -> FileSlot:
    return FileSlot(
        fields.text("id", min_bytes=1, max_bytes=64),
        fields.text("url", min_bytes=1, max_bytes=MAX_URL_BYTES),
    )


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """`run`: in a reserved pod, the UID of the session whose run is meant."""

    run: str | None = None

    def to_json(self) -> bytes:
        return encode_object({} if self.run is None else {"run": self.run})

    @classmethod
    def parse(cls, body: bytes) -> CancelRequest:
        return cls(_parse_run(decode_object(body, "cancel")))


def _parse_run(fields: Fields) -> str | None:
    return fields.optional_text("run", min_bytes=1, max_bytes=128)

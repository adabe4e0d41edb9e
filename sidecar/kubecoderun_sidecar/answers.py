"""What the sidecar answers: its state, refusals, and the events of a run with the result at their end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from kubecoderun_sidecar.fields import Fields, decode_object, encode_object
from kubecoderun_sidecar.toolcalls import MAX_CALLS, ToolCall

Reason = Literal[
    "Succeeded", "NonZeroExit", "Signalled", "TimeLimit", "ToolWaitExpired", "Cancelled", "OOMKilled",
    "RuntimeLost", "OutputLimit", "DiskFull", "ProcessLimit", "OpenFilesLimit",
]  # fmt: skip
PROTOCOL = "1.1"
"""Of HTTP protocol 1. The second number rises with every addition; an addition changes no meaning."""
FIRST_PROTOCOL = "1.0"
"""Of sidecars that do not say."""
RunState = Literal["prepared", "running", "finished"]
RuntimeState = Literal["waiting", "warm", "lost"]

_REASONS = frozenset(Reason.__args__)  # type: ignore[attr-defined]
_RUN_STATES = frozenset(RunState.__args__)  # type: ignore[attr-defined]
_RUNTIME_STATES = frozenset(RuntimeState.__args__)  # type: ignore[attr-defined]
_OWNER_KINDS = frozenset({"session", "retired"})
_MAX_INT = 2**63 - 1
_MAX_SECONDS = 1e9
_MAX_CAPTURED_BYTES = 4 << 20
MAX_FILES = 256
"""Most input files, and most output files, of one run."""
MAX_SKIPPED = 20
"""Most skipped files that are named."""
SkipReason = Literal["count", "size", "total", "depth", "path", "unreadable", "store"]
SKIP_REASONS = frozenset(SkipReason.__args__)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom the pod belongs for life: a session, or whoever retired it."""

    kind: Literal["session", "retired"]
    uid: str

    def to_wire(self) -> dict[str, Any]:
        return {"kind": self.kind, "uid": self.uid}

    @classmethod
    def read(cls, fields: Fields) -> Owner:
        kind = cast(Literal["session", "retired"], fields.choice("kind", _OWNER_KINDS))
        return cls(kind, fields.text("uid", min_bytes=1, max_bytes=128))


@dataclass(frozen=True, slots=True)
class SessionRef:
    """A session, as far as a pod needs to know it."""

    namespace: str
    name: str
    uid: str

    def to_wire(self) -> dict[str, str]:
        return {"namespace": self.namespace, "name": self.name, "uid": self.uid}

    @classmethod
    def read(cls, fields: Fields) -> SessionRef:
        return cls(
            fields.text("namespace", min_bytes=1, max_bytes=63),
            fields.text("name", min_bytes=1, max_bytes=253),
            fields.text("uid", min_bytes=1, max_bytes=128),
        )


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """Answer of GET /v1/state. `session`: whose run `run` is about (None: no run was prepared, or the sidecar
    is older than this field). `reserved`: the pod takes several runs of its owner, one after another.
    `started`: how many programs have been started."""

    owner: Owner | None
    epoch: int
    run: RunState | None
    runtime: RuntimeState
    protocol: str = PROTOCOL
    session: SessionRef | None = None
    reserved: bool = False
    started: int = 0

    def to_json(self) -> bytes:
        owner = self.owner.to_wire() if self.owner else None
        wire: dict[str, Any] = {"owner": owner, "epoch": self.epoch, "run": self.run, "runtime": self.runtime}
        wire["protocol"] = self.protocol
        if self.session is not None:
            wire["session"] = self.session.to_wire()
        return encode_object({**wire, "reserved": self.reserved, "started": self.started})

    @classmethod
    def parse(cls, body: bytes) -> StateAnswer:
        fields = decode_object(body, "state")
        owner = fields.optional_object("owner")
        run = fields.choice("run", _RUN_STATES) if fields.has("run") else None
        session = fields.optional_object("session")
        return cls(
            Owner.read(owner) if owner else None,
            fields.integer("epoch", 0, _MAX_INT),
            cast(RunState | None, run),
            cast(RuntimeState, fields.choice("runtime", _RUNTIME_STATES)),
            fields.optional_text("protocol", max_bytes=16) or FIRST_PROTOCOL,
            SessionRef.read(session) if session is not None else None,
            fields.boolean("reserved", default=False),
            fields.optional_integer("started", 0, _MAX_INT) or 0,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Body of every answer from 400 up. `error` is a short fixed word, `message` for people, never user text.

    `owner` comes with "bound" (409), `epoch` with "stale_epoch" (412), `input` with "input_unavailable" (422)
    and, when an input file is meant, "store_unavailable" (502): the place of the file in the request.
    """

    error: str
    message: str = ""
    owner: Owner | None = None
    epoch: int | None = None
    input: int | None = None

    def to_json(self) -> bytes:
        wire: dict[str, Any] = {"error": self.error}
        if self.message:
            wire["message"] = self.message
        if self.owner is not None:
            wire["owner"] = self.owner.to_wire()
        if self.epoch is not None:
            wire["epoch"] = self.epoch
        if self.input is not None:
            wire["input"] = self.input
        return encode_object(wire)

    @classmethod
    def parse(cls, body: bytes) -> Refusal:
        fields = decode_object(body, "error")
        owner = fields.optional_object("owner")
        return cls(
            fields.text("error", min_bytes=1, max_bytes=64),
            fields.optional_text("message") or "",
            Owner.read(owner) if owner else None,
            fields.optional_integer("epoch", 0, _MAX_INT),
            fields.optional_integer("input", 0, MAX_FILES - 1),
        )


@dataclass(frozen=True, slots=True)
class Captured:
    """What is kept of one stream: exactly one of `text` and `base64`, the bytes the program wrote in all,
    and whether some of them are missing here."""

    text: str | None = field(default="", repr=False)
    base64: str | None = field(default=None, repr=False)
    bytes: int = 0
    truncated: bool = False

    def to_wire(self) -> dict[str, Any]:
        body = {"text": self.text} if self.base64 is None else {"base64": self.base64}
        return {**body, "bytes": self.bytes, "truncated": self.truncated}

    @classmethod
    def read(cls, fields: Fields) -> Captured:
        if fields.has("text") == fields.has("base64"):
            fields.fail("text", "given, or base64, but not both")
        return cls(
            fields.optional_text("text", max_bytes=_MAX_CAPTURED_BYTES),
            fields.optional_text("base64", max_bytes=_MAX_CAPTURED_BYTES),
            fields.integer("bytes", 0, _MAX_INT),
            fields.boolean("truncated"),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """The runner's word, except `wall_seconds`, which the sidecar measures when the runner is lost.
    None (null): not known."""

    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    wall_seconds: float = 0.0

    def to_wire(self) -> dict[str, Any]:
        return {
            "cpuSeconds": self.cpu_seconds,
            "maxRssBytes": self.max_rss_bytes,
            "wallSeconds": self.wall_seconds,
        }

    @classmethod
    def read(cls, fields: Fields) -> Usage:
        return cls(
            fields.optional_number("cpuSeconds", 0, _MAX_SECONDS),
            fields.optional_integer("maxRssBytes", 0, _MAX_INT),
            fields.number("wallSeconds", 0, _MAX_SECONDS),
        )


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A new or changed file of the program, in the object store under the session's key `id`.

    `path` is relative to the working directory, printable, in UTF-8. `replaces`: there was an input of this
    path, and the program has changed it.
    """

    id: str
    path: str = field(repr=False)
    bytes: int
    replaces: bool = False

    def to_wire(self) -> dict[str, Any]:
        return {"id": self.id, "path": self.path, "bytes": self.bytes, "replaces": self.replaces}

    @classmethod
    def read(cls, fields: Fields) -> OutputFile:
        return cls(
            fields.text("id", min_bytes=1, max_bytes=64),
            fields.text("path", min_bytes=1, max_bytes=1024),
            fields.integer("bytes", 0, _MAX_INT),
            fields.boolean("replaces", default=False),
        )


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A new or changed file that is not handed back, and why. `path` is made printable."""

    path: str = field(repr=False)
    reason: SkipReason

    def to_wire(self) -> dict[str, Any]:
        return {"path": self.path, "reason": self.reason}

    @classmethod
    def read(cls, fields: Fields) -> SkippedFile:
        return cls(
            fields.text("path", max_bytes=1024), cast(SkipReason, fields.choice("reason", SKIP_REASONS))
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. `started_at` is None when it never started (cancelled before).

    `files`: all that the object store has. `skipped`: the first MAX_SKIPPED that it has not;
    `skipped_count`: how many there are. `deleted`: paths of inputs that the program removed.

    `stored`: result.json holds this object with all kept output, and the streams here are previews.
    `store_error`: it should have been stored and could not. `detail`: the sidecar's own words on a
    RuntimeLost or TimeLimit that the runner did not report, or on a runtime that was lost while its files
    were collected; never user text.
    """

    reason: Reason
    exit_code: int | None
    signal: str | None
    started_at: str | None
    finished_at: str
    stored_at: str | None
    stdout: Captured
    stderr: Captured
    stored: bool
    usage: Usage
    files: tuple[OutputFile, ...] = field(default=(), repr=False)
    skipped: tuple[SkippedFile, ...] = field(default=(), repr=False)
    skipped_count: int = 0
    store_error: str | None = None
    detail: str | None = None
    deleted: tuple[str, ...] = field(default=(), repr=False)

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {
            "reason": self.reason,
            "exitCode": self.exit_code,
            "signal": self.signal,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "storedAt": self.stored_at,
            "stdout": self.stdout.to_wire(),
            "stderr": self.stderr.to_wire(),
            "stored": self.stored,
            "usage": self.usage.to_wire(),
            "files": [file.to_wire() for file in self.files],
            "skipped": [file.to_wire() for file in self.skipped],
            "skippedCount": self.skipped_count,
        }
        if self.store_error is not None:
            wire["storeError"] = self.store_error
        if self.detail is not None:
            wire["detail"] = self.detail
        if self.deleted:
            wire["deleted"] = list(self.deleted)
        return wire

    def to_json(self) -> bytes:
        """The content of result.json."""
        return encode_object(self.to_wire())

    @classmethod
    def parse(cls, data: bytes) -> RunResult:
        """Read result.json."""
        return cls.read(decode_object(data, "result"))

    @classmethod
    def read(cls, fields: Fields) -> RunResult:
        return cls(
            cast(Reason, fields.choice("reason", _REASONS)),
            fields.optional_integer("exitCode", 0, 255),
            fields.optional_text("signal", max_bytes=32),
            fields.optional_text("startedAt", max_bytes=40),
            fields.text("finishedAt", min_bytes=1, max_bytes=40),
            fields.optional_text("storedAt", max_bytes=40),
            Captured.read(fields.object("stdout")),
            Captured.read(fields.object("stderr")),
            fields.boolean("stored"),
            Usage.read(fields.object("usage")),
            tuple(map(OutputFile.read, fields.objects("files", max_items=MAX_FILES))),
            tuple(map(SkippedFile.read, fields.objects("skipped", max_items=MAX_SKIPPED))),
            fields.optional_integer("skippedCount", 0, _MAX_INT) or 0,
            fields.optional_text("storeError", max_bytes=1024),
            fields.optional_text("detail", max_bytes=1024),
            fields.texts("deleted", max_items=MAX_FILES),
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The program runs since `at`."""

    at: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing new; the sidecar is alive."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event."""

    result: RunResult


@dataclass(frozen=True, slots=True)
class Called:
    """The program waits for these tool calls, besides those a reader has been told of before."""

    calls: tuple[ToolCall, ...]


Event = Started | Heartbeat | Called | Finished


def event_line(event: Event) -> bytes:
    """One line of the start stream, with its newline."""
    match event:
        case Started(at):
            wire: dict[str, Any] = {"event": "started", "at": at}
        case Finished(result):
            wire = {"event": "finished", "result": result.to_wire()}
        case Called(calls):
            wire = {"event": "called", "calls": [call.to_wire() for call in calls]}
        case Heartbeat():
            wire = {"event": "heartbeat"}
    return encode_object(wire) + b"\n"


def parse_event(line: bytes) -> Event:
    """Read one line; ProtocolError for anything that is not one of these events."""
    fields = decode_object(line, "event")
    kind = fields.choice("event", frozenset({"started", "heartbeat", "called", "finished"}))
    if kind == "started":
        return Started(fields.text("at", min_bytes=1, max_bytes=40))
    if kind == "finished":
        return Finished(RunResult.read(fields.object("result")))
    if kind == "called":
        return Called(tuple(map(ToolCall.read, fields.objects("calls", max_items=MAX_CALLS))))
    return Heartbeat()

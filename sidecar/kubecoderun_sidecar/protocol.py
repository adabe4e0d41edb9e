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
    Captured,
    Event,
    Finished,
    Heartbeat,
    Owner,
    Reason,
    Refusal,
    RunResult,
    RunState,
    RuntimeState,
    Started,
    StateAnswer,
    Usage,
    event_line,
    parse_event,
)
from kubecoderun_sidecar.fields import Fields, ProtocolError, decode_object, encode_object
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

__all__ = [
    "CLOCK_SKEW_SECONDS", "EXPIRES_AHEAD_SECONDS",
    "HEADER_EPOCH", "HEADER_EXPIRES", "HEADER_SESSION_UID", "HEADER_SIGNATURE",
    "Caller", "Captured", "Event", "Finished", "Heartbeat", "InlineCode", "Limits", "Owner", "PrepareRequest",
    "ProtocolError", "Reason", "Refusal", "ResultTarget", "RunResult", "RunState", "RuntimeState",
    "SessionRef", "SignatureError", "Signer", "StartRequest", "Started", "StateAnswer", "StoredCode", "Usage",
    "Verifier", "event_line", "parse_event", "signing_text",
]  # fmt: skip

DEFAULT_PORT = 8790
PATH_HEALTH = "/healthz"
PATH_READY = "/readyz"
PATH_STATE = "/v1/state"
PATH_PREPARE = "/v1/prepare"
PATH_START = "/v1/start"
PATH_CANCEL = "/v1/cancel"
PATH_RETIRE = "/v1/retire"

MAX_BODY_BYTES = 1 << 20
"""Largest request body."""
MAX_CODE_TEXT_BYTES = 16 << 10
MAX_STORED_CODE_BYTES = 50 << 20
MAX_STDIN_BYTES = 16 << 10
MAX_EVENT_BYTES = 1 << 20
"""Largest line of the start stream; a reader may refuse longer ones (the preview keeps them near 50 KiB)."""
HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SessionRef:
    namespace: str
    name: str
    uid: str


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
class Limits:
    """`output_bytes` is what is kept of each stream; `timeout_seconds` counts from the program's start."""

    timeout_seconds: float = 30
    output_bytes: int = 65536


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """Everything a run needs, delivered to the runner before anything starts."""

    session: SessionRef
    language: str
    code: InlineCode | StoredCode = field(repr=False)
    args: tuple[str, ...] = field(default=(), repr=False)
    stdin: str = field(default="", repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits = Limits()

    def to_json(self) -> bytes:
        code: dict[str, Any]
        if isinstance(self.code, InlineCode):
            code = {"text": self.code.text}
        else:
            code = {"url": self.code.url, "bytes": self.code.bytes, "sha256": self.code.sha256}
        session = {"namespace": self.session.namespace, "name": self.session.name, "uid": self.session.uid}
        return encode_object(
            {
                "session": session,
                "language": self.language,
                "code": code,
                "args": list(self.args),
                "stdin": self.stdin,
                "env": dict(self.env),
                "limits": {
                    "timeoutSeconds": self.limits.timeout_seconds,
                    "outputBytes": self.limits.output_bytes,
                },
            }
        )

    @classmethod
    def parse(cls, body: bytes) -> PrepareRequest:
        fields = decode_object(body, "prepare")
        session, limits = fields.object("session"), fields.object("limits")
        return cls(
            session=SessionRef(
                session.text("namespace", min_bytes=1, max_bytes=63),
                session.text("name", min_bytes=1, max_bytes=253),
                session.text("uid", min_bytes=1, max_bytes=128),
            ),
            language=fields.text("language", min_bytes=1, max_bytes=32),
            code=_parse_code(fields.object("code")),
            args=fields.texts("args", max_items=1024),
            stdin=fields.text("stdin", max_bytes=MAX_STDIN_BYTES) if fields.has("stdin") else "",
            env=fields.text_map("env", max_items=1024),
            limits=Limits(
                limits.number("timeoutSeconds", 0.001, 86400), limits.integer("outputBytes", 1024, 1 << 20)
            ),
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
class StartRequest:
    """`result` None: nothing is stored, and the preview is all there is."""

    result: ResultTarget | None = None

    def to_json(self) -> bytes:
        if self.result is None:
            return encode_object({})
        target = self.result
        wire = {"url": target.url, "inlineBytes": target.inline_bytes, "afterSeconds": target.after_seconds}
        return encode_object({"result": wire})

    @classmethod
    def parse(cls, body: bytes) -> StartRequest:
        target = decode_object(body, "start").optional_object("result")
        if target is None:
            return cls()
        return cls(
            ResultTarget(
                target.text("url", min_bytes=1, max_bytes=8192),
                target.integer("inlineBytes", 1024, 65536),
                target.number("afterSeconds", 0, 86400),
            )
        )

"""The shapes of LibreChat's protocol for /openapi.json. They describe; `wire`, `answers` and `session_files`
read and write. A test holds the two against each other.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from kubecoderun_api import wire

Json = dict[str, Any]
Id = Annotated[str, Field(pattern=r"^[a-z0-9]{21}$")]
"""Of a session or a file, as it leaves the server."""
SentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{21}$")]
"""The same as a client may send it."""


Kind = Literal["skill", "agent", "user"]


class Shape(BaseModel):
    """A JSON object in which other keys are ignored."""

    model_config = ConfigDict(extra="allow")


class Answered(BaseModel):
    """A JSON object with no other keys."""

    model_config = ConfigDict(extra="forbid")


class Error(Shape):
    """Every answer that is not 2xx."""

    error: str = Field(description="a word for programs, or the official service's text")
    message: str = Field(description="a sentence")
    code: str | None = Field(default=None, description="unsupported_capability: trying again is useless")
    retry_after_seconds: int | None = Field(default=None, description="with 429")


# --- /exec ----------------------------------------------------------------------------------------------


class FileReference(Shape):
    """A file that a program finds in its working directory."""

    id: str = Field(min_length=1, max_length=128)
    name: str = Field(min_length=1, max_length=256, description="relative path below /mnt/data")
    storage_session_id: str | None = Field(default=None, description="the session that has it; a hint")
    session_id: str | None = Field(default=None, description="the same, from older clients")
    kind: Kind | None = Field(default=None, description="what it belongs to")
    resource_id: str | None = Field(default=None, max_length=128)
    version: int | str | None = Field(default=None, description="of a skill")


class ExecCall(Shape):
    """One program."""

    lang: str = Field(
        description="in any case; which of them run depends on the pools",
        json_schema_extra={"enum": list(wire.LANGUAGE_NAMES)},
    )
    code: str = Field(min_length=1)
    args: list[Any] | str | int | float | bool | None = Field(
        default=None, description="arguments; what is not text becomes its JSON"
    )
    files: list[FileReference] | None = None
    timeout: float | None = Field(default=None, gt=0, description="time limit in milliseconds")
    session_id: str | None = Field(default=None, description="ignored")


class FileOrigin(Answered):
    """A file of another session."""

    id: Id
    storage_session_id: str


class OutputFile(Answered):
    """A file that a program made or changed."""

    id: Id
    name: str
    storage_session_id: str
    session_id: str
    modified_from: FileOrigin | None = None
    inherited: Literal[True] | None = Field(default=None, description="an input that has not changed")
    kind: Kind | None = Field(default=None, description="of inputs, with the others as the reference said")
    resource_id: str | None = None
    version: int | float | None = None


class Delivery(Answered):
    """Some files could not be stored."""

    code: Literal["artifact_delivery_failed"]
    status: Literal["partial", "failed"]
    attempted: int
    delivered: int
    failed: int


class Truncation(Answered):
    """Some files were left out."""

    code: Literal["artifact_truncated"]
    reasons: dict[str, int] = Field(description="max_files, size, depth, path and unreadable")
    skipped: list[str] = Field(description="the first of them by name")
    skipped_count: int


class ExecAnswer(Answered):
    """A program that ran, whatever became of it."""

    session_id: Id
    stdout: str
    stderr: str
    files: list[OutputFile]
    code: int | None = Field(description="exit code")
    signal: str | None
    message: str | None
    status: Literal["TO", "OL", "SG"] | None
    wall_time: int | None = Field(description="milliseconds")
    cpu_time: int | None = Field(description="milliseconds")
    memory: int | None = Field(description="largest resident size in bytes")
    deleted_files: list[str] | None = Field(default=None, description="inputs that the program removed")
    artifact_delivery: Delivery | None = None
    artifact_truncation: Truncation | None = None


class Accepted(Answered):
    """A run that was handed in without waiting for its end."""

    session_id: Id
    status: Literal["accepted"]
    result: str = Field(description="address of the answer")
    events: str = Field(description="address of the events")


class Unfinished(Answered):
    """A run that has no answer yet."""

    session_id: str
    phase: str


class Cancelling(Answered):
    """A run that is being ended."""

    session_id: str
    message: str


# --- /exec/programmatic ---------------------------------------------------------------------------------


class ToolDefinition(Shape):
    """A tool that the client has."""

    name: str = Field(min_length=1, max_length=128)


class ToolResult(Shape):
    """What came of a tool call."""

    call_id: str = Field(pattern=r"^call_[0-9]{3,6}$")
    result: Any = None
    is_error: bool = False
    error_message: str | None = None


class ProgrammaticCall(Shape):
    """One program that calls tools; or results for one, with continuation_token and tool_results alone."""

    code: str | None = Field(default=None, min_length=1)
    tools: list[ToolDefinition] | None = Field(default=None, min_length=1, max_length=100)
    lang: str | None = Field(default=None, description="py or bash; default: py")
    files: list[FileReference] | None = None
    timeout: float | None = Field(default=None, gt=0, description="time limit in milliseconds")
    continuation_token: str | None = None
    tool_results: list[ToolResult] | None = Field(default=None, min_length=1, max_length=200)


class AskedToolCall(Answered):
    """A tool call that the program waits for."""

    id: str
    name: str
    input: Any


class ProgrammaticAnswer(Shape):
    """A program that waits for tools, or has ended."""

    status: Literal["tool_call_required", "completed", "error"]
    session_id: Id
    continuation_token: str | None = None
    tool_calls: list[AskedToolCall] | None = None
    error: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    files: list[OutputFile] | None = None


class CancelCall(Shape):
    """Which call's program is to end."""

    request_id: str = Field(pattern=r"^[A-Za-z0-9_-]{16,128}$")


class CancelAnswer(Answered):
    """What will become of it."""

    status: Literal["cancellation_requested", "already_completed"]


# --- uploads --------------------------------------------------------------------------------------------


class StoredFile(Answered):
    """A file of an upload."""

    fileId: Id  # noqa: N815 - as on the wire
    filename: str


class UploadAnswer(Answered):
    """All files were stored."""

    message: Literal["success"]
    storage_session_id: Id
    session_id: Id
    files: list[StoredFile]


class BatchFile(Answered):
    """What became of one file of a batch."""

    status: Literal["success", "error"]
    filename: str
    fileId: Id | None = None  # noqa: N815
    error: str | None = None


class BatchAnswer(Answered):
    """What became of a batch."""

    message: Literal["success", "partial_success", "error"]
    storage_session_id: Id | None
    session_id: Id | None
    files: list[BatchFile]
    succeeded: int
    failed: int
    filesLimitReached: bool | None = None  # noqa: N815
    maxFiles: int | None = None  # noqa: N815


FORM: Final[Json] = {
    "type": "object",
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "the files; their names may have directories. `files` is the same",
        },
        "read_only": {"type": "string", "enum": ["true", "false"]},
        "kind": {"type": "string"},
        "id": {"type": "string"},
        "version": {"type": "string"},
        "entity_id": {"type": "string"},
    },
    "required": ["file"],
}


# --- files ----------------------------------------------------------------------------------------------


class FileSummary(Answered):
    """detail=summary"""

    name: str = Field(description="session, id and extension: `<session>/<file>.csv`")
    size: int
    lastModified: str  # noqa: N815
    etag: str


class FileDetails(FileSummary):
    """detail=full"""

    id: Id
    storage_session_id: Id
    session_id: Id
    contentType: str  # noqa: N815
    versionId: None  # noqa: N815
    metadata: dict[str, str]


class NormalFile(Answered):
    """detail=normalized"""

    id: Id
    name: str
    storage_session_id: Id
    size: int
    contentType: str  # noqa: N815
    lastModified: str  # noqa: N815
    read_only: bool | None = None
    kind: Kind | None = None
    resource_id: str | None = None
    version: int | None = None


class FileDescription(FileSummary):
    """One file."""

    originalFilename: str  # noqa: N815
    contentType: str  # noqa: N815
    readOnly: bool  # noqa: N815
    kind: Kind | None = Field(default=None, description="what it was uploaded for, if that was said")
    resource_id: str | None = Field(default=None, description="id of the agent or the skill")
    version: int | None = Field(default=None, description="version of the skill")


class Erased(Answered):
    """A user of whom nothing is left."""

    message: Literal["User deleted successfully"]
    sessions: int
    objects: int
    complete: bool


class Deleted(Answered):
    """A file that is gone."""

    message: Literal["File deleted successfully"]
    session_id: str
    fileId: str  # noqa: N815

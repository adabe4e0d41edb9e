"""What a program left: its end, its output, what it used, and when each step was done."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from kubecoderun_crds.fields import BigCount, Model, Timestamp, rule, rules
from kubecoderun_crds.printable import PRINTABLE_PATTERN

INLINE_OUTPUT_BYTES: Final = 16_384
"""Kept output of a stream up to this size stands in the status; more is a preview there, all in the store."""

_MARKER_BYTES: Final = 256
_OUTPUT_LENGTH: Final = INLINE_OUTPUT_BYTES + _MARKER_BYTES
_OUTPUT_BASE64_LENGTH: Final = (_OUTPUT_LENGTH + 2) // 3 * 4
_BASE64_PATTERN: Final = r"^[A-Za-z0-9+/]*={0,2}$"

OutputText = Annotated[str, Field(max_length=_OUTPUT_LENGTH, pattern=PRINTABLE_PATTERN)]
OutputBase64 = Annotated[str, Field(max_length=_OUTPUT_BASE64_LENGTH, pattern=_BASE64_PATTERN)]


class Timings(Model):
    """When each step was done. A step that did not happen has no time."""

    queued: Timestamp | None = None
    """The operator saw the session."""
    prepared: Timestamp | None = None
    """The pod had the program and its input."""
    patched: Timestamp | None = None
    """The API server had noted whose pod it is."""
    started: Timestamp | None = None
    """The program started."""
    finished: Timestamp | None = None
    """The program ended."""
    stored: Timestamp | None = None
    """The full result was in the object store."""
    completed: Timestamp | None = None
    """The operator knew the answer; every ended session has it."""


class Result(Model):
    """What the program left."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.stdout) || !has(self.stdoutBase64)",
                "there must not be both stdout and stdoutBase64",
            ),
            rule(
                "!has(self.stderr) || !has(self.stderrBase64)",
                "there must not be both stderr and stderrBase64",
            ),
        )
    )

    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    """Exit code; none if a signal ended the program."""
    signal: Annotated[str, Field(max_length=16, pattern=r"^SIG[A-Z0-9+-]+$")] | None = None
    """Name of the signal that ended the program."""
    stdout: OutputText | None = None
    """Standard output, or its beginning."""
    stdout_base64: OutputBase64 | None = None
    """Standard output with characters that are not safe to print, as base64."""
    stdout_bytes: BigCount | None = None
    """How much the program wrote to standard output."""
    stdout_truncated: bool | None = None
    """Whether stdout here is less than the program wrote."""
    stderr: OutputText | None = None
    """Standard error, or its beginning and end."""
    stderr_base64: OutputBase64 | None = None
    """Standard error with characters that are not safe to print, as base64."""
    stderr_bytes: BigCount | None = None
    """How much the program wrote to standard error."""
    stderr_truncated: bool | None = None
    """Whether stderr here is less than the program wrote."""
    stored: bool | None = None
    """Whether the object store has this result with all of the kept output, as result.json."""


class Usage(Model):
    """What the program used, its child processes included."""

    cpu_seconds: Annotated[float, Field(ge=0)] | None = None
    """Processor time in seconds."""
    max_rss_bytes: BigCount | None = None
    """Largest resident memory of one process, in bytes."""
    wall_seconds: Annotated[float, Field(ge=0)] | None = None
    """Time from start to end in seconds."""

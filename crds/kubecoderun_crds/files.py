"""Files of sessions: what they are called, and how a request and a status name them.

A file belongs to one session. Its bytes are in the object store under the session's prefix and the file's
id; its path says where it stands in the working directory of a program.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import AfterValidator, Field

from kubecoderun_crds import names
from kubecoderun_crds.fields import Model, rule, rules
from kubecoderun_crds.pool import MAX_FILE_BYTES
from kubecoderun_crds.printable import LINE_PATTERN, PRINTABLE_PATTERN, is_printable

MAX_PATH_LENGTH: Final = 256
"""Characters of a path, slashes included."""
MAX_PATH_SEGMENTS: Final = 10

SkipReason = Literal["count", "size", "total", "depth", "path", "unreadable", "store"]
SKIP_REASONS: Final[tuple[SkipReason, ...]] = get_args(SkipReason)


def is_file_path(text: str) -> bool:
    """Whether the API server accepts text as the path of a file: relative, canonical and safe to print."""
    segments = text.split("/")
    return (
        len(text) <= MAX_PATH_LENGTH
        and len(segments) <= MAX_PATH_SEGMENTS
        and not any(segment in ("", ".", "..") for segment in segments)
        and not any(character in text for character in "\\\t\n")
        and is_printable(text)
    )


def _checked_path(text: str) -> str:
    if not is_file_path(text):
        raise ValueError("not a relative path in its shortest form")
    return text


FilePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_PATH_LENGTH,
        pattern=LINE_PATTERN,
        json_schema_extra=rules(
            rule(
                r"!self.matches('(^|/)[.]{0,2}(/|$)|\\\\')",
                "a path must be relative, without backslashes and without segments that are empty, . or ..",
            ),
            rule(
                f"!self.matches('^([^/]*/){{{MAX_PATH_SEGMENTS}}}')",
                f"a path must not have more than {MAX_PATH_SEGMENTS} segments",
            ),
        ),
    ),
    AfterValidator(_checked_path),
]
FileId = Annotated[str, Field(max_length=names.FILE_ID_LENGTH, pattern=names.FILE_ID_PATTERN)]
SessionName = Annotated[
    str, Field(min_length=1, max_length=names.SESSION_NAME_MAX_LENGTH, pattern=names.DNS_LABEL_PATTERN)
]
FileBytes = Annotated[int, Field(alias="bytes", ge=0, le=MAX_FILE_BYTES)]


class InputReference(Model):
    """A file of another session that a program finds in its working directory."""

    path: FilePath
    """Where the file stands below /mnt/data."""
    session: SessionName
    """The session that has the file, in the same namespace and of the same tenant."""
    id: FileId
    """The file: one of request.files of a session of mode Files, or of status.files of a run."""
    read_only: bool = False
    """true makes the file without write permission; whatever happens to it, it is no output of the run."""


class HeldFile(Model):
    """A file that a session of mode Files keeps."""

    id: FileId
    """Its id, the last part of its key in the object store."""
    path: FilePath
    """Its name, perhaps with directories."""
    bytes_: FileBytes
    """Its size in bytes."""
    read_only: bool = False
    """true makes the file without write permission wherever it is an input."""
    content_type: Annotated[str, Field(max_length=255, pattern=LINE_PATTERN)] | None = None
    """What it is, as the sender said."""


class FileReference(Model):
    """A file of a session."""

    session: SessionName
    """The session."""
    id: FileId
    """The file."""


class OutputFile(Model):
    """A file that a program made or changed."""

    id: FileId
    """Its id, the last part of its key in the object store."""
    path: FilePath
    """Where it stood below /mnt/data."""
    bytes_: FileBytes
    """Its size in bytes."""
    modified_from: FileReference | None = None
    """The input that the program changed; a file without it is new."""


class SkippedFile(Model):
    """A new or changed file that was not kept."""

    path: Annotated[str, Field(max_length=MAX_PATH_LENGTH, pattern=PRINTABLE_PATTERN)]
    """Where it stood below /mnt/data, perhaps shortened."""
    reason: SkipReason
    """Why: count, size or total by the pool's limits maxFiles, maxFileBytes and maxTotalFileBytes; depth for
    more directories than a path may have; path for a name that is too long or not safe to print; unreadable
    for a file that could not be read; store for one that the object store did not take."""

"""Files that a run has left: what goes into the status, and what is said of those that were not kept. Pure.

The sidecar's word is believed about what is in the store; the paths are the program's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.files import MAX_PATH_LENGTH, is_file_path
from kubecoderun_crds.pool import MAX_FILE_BYTES, MAX_FILES
from kubecoderun_crds.printable import printable
from kubecoderun_crds.session import MAX_SKIPPED_FILES
from kubecoderun_sidecar.protocol import OutputFile, RunResult

_WORDS: Final = {
    "count": "too many files",
    "size": "too large",
    "total": "too much together",
    "depth": "in too many directories",
    "path": "its name cannot be kept",
    "unreadable": "it could not be read",
    "store": "the object store did not take it",
}
_NAMED: Final = 3
"""Skipped files that a message names."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """The files of an ended session, in the form of its status."""

    count: int
    kept: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    skipped: tuple[Mapping[str, str], ...] = field(default=(), repr=False)
    skipped_count: int = 0
    deleted: tuple[str, ...] = field(default=(), repr=False)

    def status(self) -> dict[str, Any]:
        """Fields of the status."""
        made: dict[str, Any] = {"fileCount": self.count}
        if self.kept:
            made["files"] = [dict(file) for file in self.kept]
        if self.skipped_count:
            made["skippedFiles"] = [dict(file) for file in self.skipped]
            made["skippedFileCount"] = self.skipped_count
        if self.deleted:
            made["deletedFiles"] = list(self.deleted)
        return made

    def note(self) -> str:
        """A sentence about files that were not kept; empty if all were."""
        if not self.skipped_count:
            return ""
        named = [f"{file['path']} ({_WORDS[file['reason']]})" for file in self.skipped[:_NAMED]]
        more = self.skipped_count - len(named)
        if more > 0:
            named.append(f"{more} more")
        files = "1 file was" if self.skipped_count == 1 else f"{self.skipped_count} files were"
        return f"{files} not kept: {', '.join(named)}"


def report(found: RunResult, session: str, inputs: Mapping[str, Mapping[str, Any]]) -> FileReport:
    """What became of the files of a run.

    session: the run's name. inputs: what the request says of each input, by path.
    """
    prefix = names.file_id_prefix(session)
    kept: dict[str, dict[str, Any]] = {}
    skipped = [{"path": _shown(file.path), "reason": file.reason} for file in found.skipped]
    count = max(found.skipped_count, len(skipped))
    for file in found.files:
        if len(kept) < MAX_FILES and file.id not in kept and _acceptable(file, prefix):
            kept[file.id] = _entry(file, inputs)
        else:
            # The API server would refuse the whole status for it.
            skipped.append({"path": _shown(file.path), "reason": "path"})
            count += 1
    gone = set(found.deleted)
    deleted = tuple(path for path in inputs if path in gone)
    return FileReport(len(kept), tuple(kept.values()), tuple(skipped[:MAX_SKIPPED_FILES]), count, deleted)


def _acceptable(file: OutputFile, prefix: str) -> bool:
    return (
        names.is_file_id(file.id)
        and file.id.startswith(prefix)
        and is_file_path(file.path)
        and 0 <= file.bytes <= MAX_FILE_BYTES
    )


def _entry(file: OutputFile, inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"id": file.id, "path": file.path, "bytes": file.bytes}
    origin = inputs.get(file.path) if file.replaces else None
    if origin is not None:
        made["modifiedFrom"] = {"session": origin["session"], "id": origin["id"]}
    return made


def _shown(path: str) -> str:
    """A path that may be anything, as one line that is safe to print."""
    return printable(path.replace("\n", "\\n").replace("\t", "\\t"), MAX_PATH_LENGTH)

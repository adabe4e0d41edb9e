"""Which files a session has, read from its resource, and their shapes in LibreChat's protocol. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from kubecoderun_api import filenames, scopes
from kubecoderun_api.scopes import Scope
from kubecoderun_crds.files import SkipReason
from kubecoderun_crds.reasons import Mode

Json = dict[str, Any]
DETAILS: Final = ("simple", "summary", "full", "normalized")
"""How much a list of files tells; the first is the default."""


@dataclass(frozen=True)
class SessionFile:
    """One file that can be used."""

    session: str
    id: str
    path: str
    size: int
    """Bytes."""
    modified: str
    """When it was uploaded, or when the run that made it had ended: RFC 3339 in UTC."""
    read_only: bool = False

    @property
    def etag(self) -> str:
        """As in HTTP. The bytes behind an id never change."""
        return f'"{self.id}"'

    @property
    def full_name(self) -> str:
        """Session, id and extension in one, as lists call it."""
        return f"{self.session}/{self.id}{filenames.extension(self.path)}"


@dataclass(frozen=True)
class SessionFiles:
    """All files of one session."""

    live: Mapping[str, SessionFile] = field(default_factory=dict)
    """Those that can be used, by id."""
    removed: frozenset[str] = frozenset()
    """Ids of those that do not exist any more."""
    expires: datetime | None = None
    """When all of them go, if the session says so itself."""
    created: datetime | None = None
    """When the session was made."""
    scope: Scope | None = None
    """What they were uploaded for."""


NOTHING: Final = SessionFiles()


def read(resource: Mapping[str, Any], now: datetime) -> SessionFiles:
    """The files of an ExecutionSession. A session that has expired, or is being deleted, has none."""
    metadata, spec = resource["metadata"], resource["spec"]
    status = resource.get("status") or {}
    expires = _moment(spec.get("expiresAt"))
    if metadata.get("deletionTimestamp") or (expires is not None and expires <= now):
        return NOTHING
    request = spec["request"]
    if request.get("mode") == Mode.FILES:
        entries, modified = request.get("files") or [], metadata.get("creationTimestamp")
    else:
        entries, modified = status.get("files") or [], (status.get("timings") or {}).get("completed")
    removed = frozenset(spec.get("removedFiles") or [])
    session = metadata["name"]
    live = {
        entry["id"]: SessionFile(
            session=session,
            id=entry["id"],
            path=entry["path"],
            size=entry["bytes"],
            modified=modified or metadata["creationTimestamp"],
            read_only=bool(entry.get("readOnly")),
        )
        for entry in entries
        if entry["id"] not in removed
    }
    created = _moment(metadata.get("creationTimestamp"))
    return SessionFiles(live, removed, expires, created, scopes.kept(metadata))


def removal(resource: Mapping[str, Any], file: str) -> list[Json]:
    """The JSON patch that marks a file of this session as removed.

    It fails rather than undo what others have written since: appending leaves their marks alone, and the
    first mark of all is only set on the version that has none.
    """
    if "removedFiles" in resource["spec"]:
        return [{"op": "add", "path": "/spec/removedFiles/-", "value": file}]
    return [
        {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": resource["metadata"]["resourceVersion"],
        },
        {"op": "add", "path": "/spec/removedFiles", "value": [file]},
    ]


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def entry(file: SessionFile, detail: str, scope: Scope | None = None) -> Json | str:
    """One element of a list of files, which belong to `scope`."""
    if detail == "simple":
        return file.full_name
    if detail == "normalized":
        normalized = {
            "id": file.id,
            "name": file.path,
            "storage_session_id": file.session,
            "size": file.size,
            "contentType": filenames.content_type(file.path),
            "lastModified": file.modified,
        }
        return normalized | ({"read_only": True} if file.read_only else {}) | _belonging(scope)
    summary = {
        "name": file.full_name,
        "size": file.size,
        "lastModified": file.modified,
        "etag": file.etag,
    }
    if detail == "summary":
        return summary
    kind = filenames.content_type(file.path)
    return summary | {
        "id": file.id,
        "storage_session_id": file.session,
        "session_id": file.session,
        "contentType": kind,
        "versionId": None,
        "metadata": {"content-type": kind, "original-filename": file.path},
    }


def _belonging(scope: Scope | None) -> Json:
    return {} if scope is None else scope.as_answer()


def description(file: SessionFile, scope: Scope | None = None) -> Json:
    """What is told about a single file, which belongs to `scope`."""
    return {
        "name": file.full_name,
        "originalFilename": file.path,
        "size": file.size,
        "lastModified": file.modified,
        "etag": file.etag,
        "contentType": filenames.content_type(file.path),
        "readOnly": file.read_only,
    } | _belonging(scope)


def outputs(session: str, status: Mapping[str, Any]) -> list[Json]:
    """The files in the answer of a run."""
    return [_output(session, entry) for entry in status.get("files") or []]


def _output(session: str, entry: Mapping[str, Any]) -> Json:
    made: Json = {
        "id": entry["id"],
        "name": entry["path"],
        "storage_session_id": session,
        "session_id": session,
    }
    origin = entry.get("modifiedFrom")
    if origin:
        made["modified_from"] = {"id": origin["id"], "storage_session_id": origin["session"]}
    return made


_WHY_SKIPPED: Final[dict[SkipReason, str]] = {
    "count": "too many files",
    "size": "too big",
    "total": "too much together",
    "depth": "too many directories",
    "path": "its name cannot be used",
    "unreadable": "could not be read",
    "store": "the object store did not take it",
}


_CAUSES: Final[dict[SkipReason, str]] = {
    "count": "max_files",
    "size": "size",
    "total": "size",
    "depth": "depth",
    "path": "path",
    "unreadable": "unreadable",
}
"""The official service's words for what keeps a file from being kept."""


def reports(status: Mapping[str, Any]) -> Json:
    """What the answer of a run says to programs about inputs that it removed, and about files that were not
    kept: those that the limits left out, and those that the store did not take. Nothing if there are none.

    Causes are counted over the files that a status names, which are the first ones.
    """
    named = status.get("skippedFiles") or []
    lost = sum(entry["reason"] == "store" for entry in named)
    left_out = [entry for entry in named if entry["reason"] in _CAUSES]
    made: Json = {}
    if status.get("deletedFiles"):
        made["deleted_files"] = list(status["deletedFiles"])
    if lost:
        delivered = len(status.get("files") or [])
        made["artifact_delivery"] = {
            "code": "artifact_delivery_failed",
            "status": "partial" if delivered else "failed",
            "attempted": delivered + lost,
            "delivered": delivered,
            "failed": lost,
        }
    if left_out:
        causes = [_CAUSES[entry["reason"]] for entry in left_out]
        made["artifact_truncation"] = {
            "code": "artifact_truncated",
            "reasons": {cause: causes.count(cause) for cause in dict.fromkeys(_CAUSES.values())},
            "skipped": [entry["path"] for entry in left_out],
            "skipped_count": max(int(status.get("skippedFileCount") or 0) - lost, len(left_out)),
        }
    return made


def skipped_note(status: Mapping[str, Any]) -> str | None:
    """A line about new files that were not kept; None if all were."""
    named = [
        f"{entry['path']} ({_WHY_SKIPPED.get(entry['reason'], entry['reason'])})"
        for entry in status.get("skippedFiles") or []
    ]
    count = max(int(status.get("skippedFileCount") or 0), len(named))
    if not count:
        return None
    more = [f"and {count - len(named)} more"] if count > len(named) else []
    return f"{count} new or changed file{'s' if count > 1 else ''} not kept: {', '.join(named + more)}."

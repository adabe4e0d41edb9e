"""Which files a call of /exec means. No I/O: `Resolution` says what to look up and is told what was found.

A reference names a file by its id and the session that has it. Clients of some generations attach the wrong
session, so the session is a hint: a file that it does not have is looked for by the beginning of its id, with
which its session's name begins too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_api import filenames, scopes, wire
from kubecoderun_api.scopes import Scope
from kubecoderun_api.session_files import NOTHING, SessionFiles
from kubecoderun_crds import names
from kubecoderun_crds.pool import MAX_FILES

_MOST_ENTRIES: Final = 4 * MAX_FILES
"""With those that are superseded by a later one of the same name."""
_MAX_ID_LENGTH: Final = 128
_MOST_NAMED: Final = 10


@dataclass(frozen=True)
class Reference:
    """One entry of `files`, as far as it matters."""

    path: str
    """Where the program finds the file."""
    id: str
    session: str | None
    """Which session has it, according to the client; None if it says nothing that could be a session."""
    scope: Scope | None = None
    """What it belongs to, according to the client."""
    echo: bool = False
    """Whether the client is one that wants to be told of it again if it has not changed."""


@dataclass(frozen=True)
class Input:
    """A reference whose file is known to exist."""

    path: str
    session: str
    id: str
    read_only: bool
    by_prefix: bool
    """Whether another session has it than the client said."""
    scope: Scope | None = None
    echo: bool = False

    def as_request(self) -> dict[str, Any]:
        """The element of a session's inputs."""
        return {"path": self.path, "session": self.session, "id": self.id} | (
            {"readOnly": True} if self.read_only else {}
        )


def parse(value: Any) -> tuple[Reference, ...]:
    """Read `files` of a request. Raises wire.BadRequest. Of several with one name, the last counts."""
    if value is None:
        return ()
    if not isinstance(value, list):
        wire.refuse("files must be an array")
    if len(value) > _MOST_ENTRIES:
        wire.refuse(f"files has more than {_MOST_ENTRIES} elements")
    by_path: dict[str, Reference] = {}
    for number, entry in enumerate(value):
        reference = _reference(number, entry)
        by_path.pop(reference.path, None)
        by_path[reference.path] = reference
    if len(by_path) > MAX_FILES:
        wire.refuse(f"files has more than {MAX_FILES} different names")
    _refuse_files_that_are_directories(by_path)
    return tuple(by_path.values())


def _reference(number: int, entry: Any) -> Reference:
    if not isinstance(entry, dict):
        wire.refuse(f"files[{number}] must be an object")
    file = entry.get("id")
    if not isinstance(file, str) or not file or len(file) > _MAX_ID_LENGTH:
        wire.refuse(f"files[{number}].id is invalid")
    name = entry.get("name")
    if not isinstance(name, str):
        wire.refuse(f"files[{number}].name must be a string")
    clause = filenames.problem(name)
    if clause is not None:
        wire.refuse(f"files[{number}].name {clause}")
    scope = scopes.parse(
        entry.get("kind"),
        entry.get("resource_id"),
        entry.get("version"),
        where=f"files[{number}].",
        resource_name="resource_id",
    )
    session = _session(number, entry)
    return Reference(
        name,
        file,
        session if names.is_front_end_session_name(session) else None,
        scope,
        # Clients that know only session_id would take unchanged files for new ones, and for this run's.
        echo=bool(entry.get("storage_session_id")),
    )


def _session(number: int, entry: Mapping[str, Any]) -> str:
    """What the client gives as the session, under its newer or its older name; empty if nothing."""
    for key in ("storage_session_id", "session_id"):
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            wire.refuse(f"files[{number}].{key} is invalid")
        if value:
            return value
    return ""


def _refuse_files_that_are_directories(paths: Iterable[str]) -> None:
    known = set(paths)
    for path in known:
        parts = path.split("/")
        for length in range(1, len(parts)):
            if "/".join(parts[:length]) in known:
                wire.refuse("files names one path both as a file and as a directory")


class Resolution:
    """Finds the file of each reference, step by step.

    Ask `sessions_to_read` and `prefixes_to_list` what to look up, tell what there is, and repeat until both
    are empty. Then every reference is in exactly one of `inputs` and `missing`.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        self._references = references
        self._sessions: dict[str, SessionFiles] = {}
        self._found: dict[str, dict[str, set[str]]] = {}
        """By prefix that was listed and by id: sessions that have such an object."""

    def sessions_to_read(self) -> set[str]:
        """Names of sessions whose files should be told by `add_session`."""
        wanted = {name for reference in self._open() for name in self._candidates(reference)}
        return wanted - set(self._sessions)

    def prefixes_to_list(self) -> set[str]:
        """Beginnings of session names whose objects should be told by `add_listing`."""
        if self.sessions_to_read():
            return set()
        prefixes = {
            reference.id[: names.FILE_ID_PREFIX_LENGTH]
            for reference in self._open()
            if names.is_file_id(reference.id)
        }
        return prefixes - set(self._found)

    def add_session(self, name: str, files: SessionFiles) -> None:
        """A session's files; those of one that does not exist are none."""
        self._sessions[name] = files

    def add_listing(self, prefix: str, objects: Iterable[tuple[str, str]]) -> None:
        """Session and name of every object of sessions that begin like that."""
        found = self._found.setdefault(prefix, {})
        for session, name in objects:
            if names.is_front_end_session_name(session):
                found.setdefault(name, set()).add(session)

    def inputs(self) -> list[Input]:
        """The references whose files exist, in their order."""
        return [made for reference in self._references if (made := self._match(reference)) is not None]

    def missing(self) -> list[tuple[str, str]]:
        """Path and reason, as a clause without subject, of all others."""
        return [(reference.path, self._why(reference)) for reference in self._open()]

    def _open(self) -> list[Reference]:
        return [reference for reference in self._references if self._match(reference) is None]

    def _candidates(self, reference: Reference) -> list[str]:
        """Sessions that may have the file, as far as known; the client's own word first."""
        found = self._found.get(reference.id[: names.FILE_ID_PREFIX_LENGTH], {}).get(reference.id, set())
        hint = [] if reference.session is None else [reference.session]
        return hint + sorted(found - set(hint))

    def _match(self, reference: Reference) -> Input | None:
        for session in self._candidates(reference):
            file = self._meant(reference, session).live.get(reference.id)
            if file is not None:
                return Input(
                    path=reference.path,
                    session=session,
                    id=file.id,
                    read_only=file.read_only,
                    by_prefix=session != reference.session,
                    scope=reference.scope,
                    echo=reference.echo,
                )
        return None

    def _meant(self, reference: Reference, session: str) -> SessionFiles:
        """The files of a session as the reference may see them: none of what was uploaded for another agent,
        or another version of a skill."""
        files = self._sessions.get(session, NOTHING)
        return files if scopes.admits(files.scope, reference.scope) else NOTHING

    def _why(self, reference: Reference) -> str:
        removed = any(
            reference.id in self._meant(reference, session).removed for session in self._candidates(reference)
        )
        return "was deleted" if removed else "does not exist, or not any more"


def complaint(missing: Sequence[tuple[str, str]]) -> list[str]:
    """What a model reads if its program was not run for want of input files; the first sentence says all."""
    count = len(missing)
    what = "an input file is" if count == 1 else f"{count} input files are"
    lines = [f"The program was not run: {what} not available. Upload again what it needs."]
    lines += [f"Input file {path} {why}." for path, why in missing[:_MOST_NAMED]]
    if count > _MOST_NAMED:
        lines.append(f"And {count - _MOST_NAMED} more.")
    return lines

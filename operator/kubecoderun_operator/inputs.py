"""Files of other sessions that a run is given: which are meant, whether the run may have them. Pure.

A reference names a session and the id of a file in it. It is good if that session is in the same namespace
and of the same tenant, and has a file of that id which was not removed. A session of another tenant is
answered for like one that does not exist.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kubecoderun_crds.files import InputReference
from kubecoderun_crds.reasons import TERMINAL_PHASES

MAX_NAME_BYTES: Final = 255
"""Of one segment of a path in UTF-8: what file systems take."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file that the run gets. `session` and `id` say where its bytes are."""

    path: str = field(repr=False)
    session: str
    id: str
    bytes: int
    read_only: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """A reference that leads nowhere: where the file should have stood, and why there is none."""

    path: str = field(repr=False)
    why: str

    @property
    def message(self) -> str:
        """For people."""
        return f"input {self.path}: {self.why}"


def owners(references: Iterable[InputReference]) -> list[str]:
    """Names of the sessions that are referred to, each once."""
    return list(dict.fromkeys(reference.session for reference in references))


def conflict(paths: Sequence[str]) -> str:
    """Why files with these paths cannot stand side by side in one directory; empty if they can."""
    files: set[str] = set()
    for path in paths:
        if path in files:
            return f"two inputs have the path {path}"
        files.add(path)
        if any(len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for name in path.split("/")):
            return f"input {path}: a name has more than {MAX_NAME_BYTES} bytes in UTF-8"
    for path in paths:
        for directory in _directories(path):
            if directory in files:
                return f"input {directory} is a file, and input {path} needs a directory of that name"
    return ""


def _directories(path: str) -> Iterable[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def resolve(
    references: Sequence[InputReference], found: Mapping[str, Mapping[str, Any] | None], tenant: str | None
) -> tuple[Input, ...] | Missing:
    """The files that are meant, or the first that is missing.

    found: the sessions that are referred to as they stand in the cluster, None for those that do not exist,
    all of the run's own namespace. tenant: the run's.
    """
    shelves = {name: _Shelf(name, raw, tenant) for name, raw in found.items()}
    resolved = []
    for reference in references:
        file = shelves[reference.session].find(reference)
        if isinstance(file, Missing):
            return file
        resolved.append(file)
    return tuple(resolved)


class _Shelf:
    """The files of one session, as far as a tenant may have them."""

    def __init__(self, name: str, raw: Mapping[str, Any] | None, tenant: str | None) -> None:
        spec: Mapping[str, Any] = (raw or {}).get("spec") or {}
        request: Mapping[str, Any] = spec.get("request") or {}
        status: Mapping[str, Any] = (raw or {}).get("status") or {}
        self._name = name
        self._there = raw is not None and request.get("tenant") == tenant
        self._ended = status.get("phase") in TERMINAL_PHASES
        self._removed = frozenset(spec.get("removedFiles") or ())
        self._holds = request.get("mode") == "Files"
        files = request.get("files") if self._holds else status.get("files")
        self._files = {file["id"]: file for file in files or ()}

    def find(self, reference: InputReference) -> Input | Missing:
        if not self._there:
            return Missing(reference.path, f"there is no session {self._name}")
        if reference.id in self._removed:
            return Missing(reference.path, f"file {reference.id} of session {self._name} was removed")
        file = self._files.get(reference.id)
        if file is None and not (self._holds or self._ended):
            return Missing(reference.path, f"session {self._name} has not ended and has no files yet")
        if file is None:
            return Missing(reference.path, f"session {self._name} has no file {reference.id}")
        return Input(
            path=reference.path,
            session=self._name,
            id=reference.id,
            bytes=int(file["bytes"]),
            read_only=reference.read_only or bool(file.get("readOnly")),
        )

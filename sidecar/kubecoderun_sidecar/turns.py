"""A pod that is reserved for several runs: whose turn it is, and which files it has by now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from kubecoderun_sidecar.answers import OutputFile
from kubecoderun_sidecar.protocol import InputFile, SessionRef


class Turns:
    """Plain state. In a pod for one run nothing is reserved, and the first run stays the current one."""

    def __init__(self) -> None:
        self.reserved = False
        self.current: SessionRef | None = None
        """The run that was prepared, or tried to be, last."""
        self.started = 0
        """How many programs have been started."""
        self._standing: dict[str, str] = {}
        """Path and id of files that a delivery brought or a collection took: they are in the folder."""

    def is_current(self, run: str) -> bool:
        """Whether the run of this UID is the current one."""
        return self.current is not None and self.current.uid == run

    def missing(self, inputs: Sequence[InputFile]) -> list[int]:
        """Places of the inputs that have to be delivered.

        Clients name all files of their conversation with each run. One that was in the folder already stays
        as the runs since then have left it: bringing it again would undo what they have done to it.
        """
        return [place for place, file in enumerate(inputs) if self._standing.get(file.path) != _id(file)]

    def delivered(self, inputs: Iterable[InputFile]) -> None:
        """These are in the folder now."""
        self._standing.update((file.path, _id(file)) for file in inputs)

    def collected(self, files: Iterable[OutputFile]) -> None:
        """These were in the folder when the run ended."""
        self._standing.update((file.path, file.id) for file in files)


def _id(file: InputFile) -> str:
    """The file's id: the last part of its object's key. The rest of the URL differs from grant to grant."""
    return urlsplit(file.url).path.rpartition("/")[2]

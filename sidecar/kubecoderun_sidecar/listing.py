"""The runner's list of new and changed files, checked as it comes. Pure.

The list is the user's word: it is believed about which files there are, within what was allowed. More, longer
or earlier ones than allowed break the protocol; a path that resources cannot carry costs only its file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from kubecoderun_sidecar.answers import MAX_SKIPPED, SKIP_REASONS, SkippedFile, SkipReason
from kubecoderun_sidecar.fields import decode_object
from kubecoderun_sidecar.paths import is_proper, visible
from kubecoderun_sidecar.protocol import InputFile, Limits

_MAX_COUNT = 2**63 - 1
_MAX_PATH_BYTES = 2048
_MAX_DELETED = 100_000


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file the runner offers; `index` is its place in the runner's list."""

    index: int
    path: str
    bytes: int
    replaces: bool


class Listing:
    """Takes frames L and Z of one run. `files` may be collected, `skipped` may not."""

    def __init__(self, limits: Limits, inputs: Iterable[InputFile]) -> None:
        self._limits = limits
        self._inputs = {file.path: file for file in inputs}
        self._listed = 0
        self._total = 0
        self._last: str | None = None
        self.files: list[ListedFile] = []
        self.skipped: list[SkippedFile] = []
        self.skipped_count = 0
        self.deleted: list[str] = []
        """Inputs of this run that the program removed."""

    @property
    def wanted(self) -> bool:
        """Whether there is a list at all."""
        return self._limits.files > 0

    def add(self, payload: bytes) -> None:
        """Frame L; ProtocolError when it is malformed or more than was allowed."""
        fields = decode_object(payload, "listed")
        path = fields.text("path", min_bytes=1, max_bytes=_MAX_PATH_BYTES)
        size = fields.integer("bytes", 0, self._limits.file_bytes)
        self._listed += 1
        self._total += size
        if self._listed > self._limits.files or self._total > self._limits.total_file_bytes:
            fields.fail("bytes", "within what was allowed")
        if self._last is not None and path <= self._last:
            fields.fail("path", "in order, and a new one")
        self._last = path
        known = self._inputs.get(path)
        if known is not None and known.read_only:
            fields.fail("path", "none of a read-only input")
        if is_proper(path):
            self.files.append(ListedFile(self._listed - 1, path, size, known is not None))
        else:
            self.skip(path, "path")

    def finish(self, payload: bytes) -> None:
        """Frame Z; ProtocolError when it is malformed."""
        fields = decode_object(payload, "listing")
        named = fields.objects("skipped", max_items=MAX_SKIPPED)
        count = fields.integer("skippedCount", len(named), _MAX_COUNT)
        for one in named:
            path = one.text("path", max_bytes=_MAX_PATH_BYTES)
            self.skip(path, cast(SkipReason, one.choice("reason", SKIP_REASONS)))
        self.skipped_count = min(_MAX_COUNT, self.skipped_count + count - len(named))
        gone = set(fields.texts("deleted", max_items=_MAX_DELETED)).difference(
            file.path for file in self.files
        )
        self.deleted = [path for path, file in self._inputs.items() if path in gone and not file.read_only]

    def skip(self, path: str, reason: SkipReason) -> None:
        """Note a file that is not collected."""
        self.skipped_count = min(_MAX_COUNT, self.skipped_count + 1)
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(SkippedFile(visible(path), reason))

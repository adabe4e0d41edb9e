"""Where programs are compiled: outside the working directory, so that nothing of it is handed back."""

from __future__ import annotations

import shutil
import tempfile


class Builds:
    """One folder at a time, in the place for temporary files."""

    def __init__(self) -> None:
        self._folder = ""

    def fresh(self) -> str:
        """An empty folder; the one before it is removed. OSError when there is no room."""
        # What programs have put there, a link in its place included, is theirs to lose.
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = tempfile.mkdtemp(prefix="build-", dir="/tmp")
        return self._folder

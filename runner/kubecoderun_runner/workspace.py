"""The folder programs run in: where their source goes."""

from __future__ import annotations

import os


class SourceFile:
    """The program's text, written as it arrives."""

    def __init__(self, folder: str, wanted: str) -> None:
        """Create the file under the wanted name, or the nearest one nobody has taken. OSError when
        impossible."""
        self.name, self._fd = _create(folder, wanted)

    def write(self, chunk: bytes) -> None:
        """Append; OSError when the folder is full."""
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        os.close(self._fd)


def _create(folder: str, wanted: str) -> tuple[str, int]:
    stem, suffix = os.path.splitext(wanted)
    for number in range(1000):
        name = wanted if number == 0 else f"{stem}-{number}{suffix}"
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            return name, os.open(os.path.join(folder, name), flags, 0o644)
        except FileExistsError:
            continue
    raise FileExistsError(f"a thousand files are called like {wanted}")

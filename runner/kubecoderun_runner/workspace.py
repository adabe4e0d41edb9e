"""The folder programs run in: opening and making files in it without being led elsewhere.

Programs have our uid and the folder is theirs, so nothing here follows a symbolic link.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PAGE_BYTES: Final = 4096
_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening what has become a named pipe would wait for a writer.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_folder(path: str) -> int:
    """A descriptor of the working directory itself, which may be behind links of the image's own."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def free_bytes(folder: int) -> int:
    """Room left on the folder's file system."""
    status = os.fstatvfs(folder)
    return status.f_bavail * status.f_frsize


def is_full(path: str) -> bool:
    """Whether the file system at `path` has no room for another page, or for another file."""
    try:
        status = os.statvfs(path)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _PAGE_BYTES or (status.f_files > 0 and not status.f_favail)


def create(folder: int, path: str, mode: int, *, replace: bool = False) -> int:
    """Make a file for writing, and its parent folders. OSError when that is impossible or it exists.

    replace: what has the path goes first, unless it is a folder.
    """
    *parents, name = path.split("/")
    here = os.dup(folder)
    try:
        for parent in parents:
            # It may be a folder of an earlier file; anything else fails to open as one.
            with suppress(FileExistsError):
                os.mkdir(parent, 0o755, dir_fd=here)
            here = _step(here, parent)
        if replace:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=here)
        return os.open(name, _NEW, mode, dir_fd=here)
    finally:
        os.close(here)


def remove_if_same(folder: int, path: str, inode: int) -> None:
    """Remove a file, unless it is gone or another one has its path by now."""
    *parents, name = path.split("/")
    here = os.dup(folder)
    try:
        for parent in parents:
            here = _step(here, parent)
        if os.stat(name, dir_fd=here, follow_symlinks=False).st_ino == inode:
            os.unlink(name, dir_fd=here)
    except OSError:
        return  # somebody has put something else there, which is theirs
    finally:
        os.close(here)


def open_file(folder: int, path: str) -> int:
    """Open a file for reading. OSError when it, or a folder on the way, is a link or something else."""
    *parents, name = path.split("/")
    here = os.dup(folder)
    try:
        for parent in parents:
            here = _step(here, parent)
        return os.open(name, _READ, dir_fd=here)
    finally:
        os.close(here)


def _step(here: int, name: str) -> int:
    """Go one folder down; `here` is closed, or stays open when that is impossible."""
    below = os.open(name, FOLDER, dir_fd=here)
    os.close(here)
    return below


class SourceFile:
    """The program's text, written as it arrives."""

    def __init__(self, folder: int, wanted: str) -> None:
        """Create the file under the wanted name, or the nearest one nobody has taken. OSError when
        impossible."""
        self.name, self._fd = _create_nearest(folder, wanted)
        self._folder = folder
        self._inode = os.fstat(self._fd).st_ino
        self._open = True

    def write(self, chunk: memoryview) -> None:
        """Append; OSError when the folder is full."""
        write_all(self._fd, chunk)

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._fd)

    def remove(self) -> None:
        """Its program is over."""
        self.close()
        remove_if_same(self._folder, self.name, self._inode)


def write_all(fd: int, chunk: memoryview) -> None:
    """Write all of `chunk`; OSError when the file system is full."""
    while chunk:
        chunk = chunk[os.write(fd, chunk) :]


def _create_nearest(folder: int, wanted: str) -> tuple[str, int]:
    stem, suffix = os.path.splitext(wanted)
    for number in range(1000):
        name = wanted if number == 0 else f"{stem}-{number}{suffix}"
        try:
            return name, create(folder, name, 0o644)
        except FileExistsError:
            continue
    raise FileExistsError(f"a thousand files are called like {wanted}")

"""Starting a process with pipes for its streams, in a session of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PIPE_BYTES: Final = 1 << 18
"""Wanted size of output pipes: fewer, larger reads."""
_NOISE_BYTES: Final = 1 << 18
_HIGH_FD: Final = 32


@dataclass
class Process:
    """A started process and our ends of its streams. Closing them is the caller's."""

    pid: int
    stdin: int
    stdout: int
    stderr: int

    def pass_on_noise(self) -> None:
        """What an interpreter has printed so far is for our log, not part of any program's output."""
        for fd in (self.stdout, self.stderr):
            try:
                while data := os.read(fd, _NOISE_BYTES):
                    sys.stderr.buffer.write(data)
            except BlockingIOError:
                continue


def launch(program: str, argv: Sequence[str], env: dict[str, str], *, extra: Sequence[int] = ()) -> Process:
    """Start `program` in the current folder; `extra` become its descriptors 3, 4, ….

    The child has default signal handling and nothing open but its streams. OSError when it cannot be started.
    """
    theirs, ours = open_pipes()
    lifted: list[int] = []
    try:
        # Above the numbers the child uses, so that no dup2 overwrites a descriptor that is still to be
        # copied.
        wanted = [*theirs, *extra]
        lifted.extend(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for fd in wanted)
        pid = os.posix_spawn(
            program,
            list(argv),
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(lifted)],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT],
        )
    except BaseException:
        close_all(ours)
        raise
    finally:
        close_all(theirs)
        close_all(lifted)
    _volunteer(pid)
    return Process(pid, *ours)


def _volunteer(pid: int) -> None:
    """Of all in the container, the kernel is to kill programs first: not us, who tell the sidecar."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        return


def open_pipes() -> tuple[list[int], list[int]]:
    """Pipes for standard input, output and errors: a program's ends, and ours, which do not block."""
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    for fd in ours:
        os.set_blocking(fd, False)
    for fd in ours[1:]:
        _enlarge(fd)
    return theirs, ours


def _enlarge(fd: int) -> None:
    """A larger pipe only saves time; users may have a limit on how much pipe memory they use."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return


def close_all(fds: list[int]) -> None:
    """Close descriptors that are open."""
    for fd in fds:
        os.close(fd)

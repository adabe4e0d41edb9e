"""Interpreters other than Python that have started before there is a program: one row a kind.

Each is held up in its own start-up by a few lines of its own language (hook/). These report on descriptor 4
that all is loaded, and then wait on descriptor 3 for the program's file and arguments. What runs then is the
interpreter's own way of running a script, with none of our frames on the stack, as with Python (spare.py).

Some interpreters open their program's file as soon as they start. These get one that is empty, and is taken
out of the folder again. The program's text is put into it when it is there; its own file is in its place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kubecoderun_runner.environment import Settings
from kubecoderun_runner.languages import BY_NAME, HOOK_FOLDER, TYPESCRIPT, find_program
from kubecoderun_runner.launch import Process, close_all, launch
from kubecoderun_runner.log import note
from kubecoderun_runner.orders import Order
from kubecoderun_runner.spare import Report, Spare

_PIECE: Final = 1 << 16


@dataclass(frozen=True)
class Kind:
    """How one kind of interpreter is started without a program."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    modules: str = ""
    """The variable that names what it loads, if it is told."""
    opens: str = ""
    """The file it opens at once, if it does."""
    arguments: bool = True
    """Whether it can be given arguments later."""
    foreign: tuple[str, ...] = ()
    """Beginnings of names in the folder with which it might run something else, or something else first."""


def _hook(name: str) -> str:
    return os.path.join(HOOK_FOLDER, name)


KINDS: Final = {
    # without an ending, so that it finds main.js or main.ts, whichever comes
    "node": Kind(
        ("node", *TYPESCRIPT, "main"),
        {"NODE_OPTIONS": f"--require={_hook('hold.cjs')}"},
        foreign=("main", "package.json"),
    ),
    "php": Kind(
        ("php", "-d", f"auto_prepend_file={_hook('hold.php')}", *BY_NAME["php"].run[1:-1], "main.php"),
        opens="main.php",
    ),
    "r": Kind(
        ("Rscript", "main.R"),
        {"R_PROFILE_USER": _hook("hold.R")},
        modules="KCR_HELD_MODULES",
        opens="main.R",
        arguments=False,
        foreign=(".R",),
    ),
    "java": Kind((*BY_NAME["java"].run[:-1], "--held", "Main.java")),
}


class Held:
    """One waiting interpreter, in the current folder. Its streams are the program's."""

    def __init__(self, kind: str, env: Mapping[str, str], modules: tuple[str, ...]) -> None:
        """Start it. OSError when that is impossible."""
        self._kind, self._name = KINDS[kind], kind
        program = find_program(self._kind.command[0], env["PATH"])
        if program is None:
            raise FileNotFoundError(f"{self._kind.command[0]} is not on the path")
        self.report: Report | None = None
        self._file = self._make_file()
        given = {**env, **self._kind.env}
        if self._kind.modules:
            given[self._kind.modules] = ",".join(modules)
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self.control, reports = os.pipe2(os.O_CLOEXEC)
        try:
            self.process: Process = launch(program, self._kind.command, given, extra=(orders, reports))
        except OSError:
            close_all([self._orders, self.control])
            self._drop_file()
            raise
        finally:
            close_all([orders, reports])

    def read(self) -> bool:
        """Take its report; False when it is gone."""
        if not os.read(self.control, 1):
            return False
        self.report = Report()
        if self._kind.opens:
            os.unlink(self._kind.opens)
        return True

    def fits(self, order: Order, source: str, folder: str) -> bool:
        """Whether it would run this program as an interpreter that starts now."""
        language = BY_NAME[order.language]
        return (
            language.spare == self._name
            and not order.env
            and source == language.source
            and (self._kind.arguments or not order.args)
            and not any(
                entry.startswith(self._kind.foreign) and entry != source for entry in os.listdir(folder)
            )
        )

    def go(self, source: str, args: list[str]) -> Process:
        """Let it run the program that has been put in its folder; OSError when it is gone."""
        message = b"".join(os.fsencode(text) + b"\0" for text in (source, *args))
        try:
            if self._file >= 0:
                self._copy(source)
            while message:
                message = message[os.write(self._orders, message) :]
        finally:
            self._close()
        return self.process

    def discard(self) -> None:
        """Close our ends; an interpreter that still waits for its program ends by itself."""
        if self.report is None:
            self._drop_file()
        self._close()
        close_all([self.process.stdin, self.process.stdout, self.process.stderr])

    def _make_file(self) -> int:
        if not self._kind.opens:
            return -1
        return os.open(self._kind.opens, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)

    def _drop_file(self) -> None:
        if self._file >= 0 and os.path.exists(self._kind.opens):
            os.unlink(self._kind.opens)

    def _copy(self, source: str) -> None:
        with open(source, "rb") as text:
            while piece := text.read(_PIECE):
                while piece:
                    piece = piece[os.write(self._file, piece) :]

    def _close(self) -> None:
        close_all([fd for fd in (self.control, self._orders, self._file) if fd >= 0])
        self.control = self._orders = self._file = -1


def start_spare(settings: Settings, env: dict[str, str]) -> Spare | Held | None:
    """Start the interpreter that the pod's programs are likely to want: that of the first of its languages
    that has one. None where there is none."""
    offered = [BY_NAME[name] for name in settings.languages if name in BY_NAME]
    language = next((one for one in offered if one.spare), None)
    try:
        if language is None:
            return None
        if language.spare != "python":
            return Held(language.spare, env, settings.preload)
        return Spare(language, env, settings.preload) if settings.preload else None
    except OSError as error:
        note(f"no spare interpreter: {error}")
        return None

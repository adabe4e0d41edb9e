"""The spare: an interpreter that has loaded its modules and waits inside its own start-up for a program.

Its other half is hook/sitecustomize.py. See docs/architecture.md, "How a Python program starts".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import all_suffixes
from typing import Final

from kubecoderun_runner.languages import BY_NAME, HOOK_FOLDER, Language, find_program
from kubecoderun_runner.launch import Process, close_all, launch, open_pipes
from kubecoderun_runner.orders import Order

MAX_REPORT_BYTES: Final = 256 << 10


@dataclass
class Report:
    """What a spare says when it is warm."""

    loaded: frozenset[str] = frozenset()
    """Top-level modules a plain interpreter would not have loaded yet."""
    failed: list[str] = field(default_factory=list)
    """`module: error` for each that could not be loaded."""
    shadow: int = 0
    """Process id of what shares its memory (hook/sitecustomize.py, _start_shadow); 0 without one."""


def parse_report(data: bytes) -> Report:
    """Read the spare's message, without its final NUL."""
    loaded, failed, shadow = ([*data.decode("utf-8", "replace").split("\n\n"), "", "", ""])[:3]
    return Report(
        loaded=frozenset(filter(None, loaded.split("\n"))),
        failed=[line for line in failed.split("\n") if line],
        shadow=int(shadow) if shadow.isdecimal() else 0,
    )


def shadows(loaded: frozenset[str], folder: str) -> bool:
    """Whether a plain interpreter would find one of the loaded modules in `folder` instead: there the
    program must start without them."""
    return any(module_of(entry) in loaded for entry in os.listdir(folder))


def module_of(entry: str) -> str | None:
    """The top-level module a directory entry may stand for (`x.py`, `x.abi3.so`, package folder `x`); None
    for what no import would look at, like data called `x.csv`."""
    name, dot, _ = entry.partition(".")
    return name if not dot or entry.endswith(tuple(all_suffixes())) else None


def hooked(env: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a Python runs hook/sitecustomize.py while it starts."""
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, (HOOK_FOLDER, env.get("PYTHONPATH", ""))))}


class Spare:
    """One waiting interpreter."""

    def __init__(self, language: Language, env: dict[str, str], modules: tuple[str, ...]) -> None:
        """Start it. OSError when there is no interpreter."""
        program = find_program(language.tool, env["PATH"])
        if program is None:
            raise FileNotFoundError(f"{language.tool} is not on the path")
        ours, theirs = socket.socketpair()
        env = hooked(env)
        env["KCR_SPARE_CONTROL"] = "3"
        env["KCR_SPARE_MODULES"] = ",".join(modules)
        self._socket = ours
        self.control = ours.fileno()
        self.report: Report | None = None
        """None until it is warm."""
        self._received = bytearray()
        with theirs:
            self.process: Process = launch(
                program, language.argv(language.source, []), env, extra=(theirs.fileno(),)
            )
        ours.setblocking(False)

    def read(self) -> bool:
        """Take what the control socket has; False when the spare is gone."""
        data = self._socket.recv(65536)
        self._received += data
        if self._received.endswith(b"\0"):
            self.report = parse_report(bytes(self._received[:-1]))
            self._received.clear()
        return bool(data) and len(self._received) <= MAX_REPORT_BYTES

    def fits(self, order: Order, source: str, folder: str) -> bool:
        """Whether it may run this program: a spare stands for exactly `python main.py` in the pod's own
        environment, with nothing in the folder that its modules would hide."""
        language = BY_NAME[order.language]
        return (
            language.spare == "python"
            and not order.env
            and source == language.source
            and self.report is not None
            and not shadows(self.report.loaded, folder)
        )

    def go(self, _source: str, args: list[str]) -> Process:
        """Let it run the program that has been put in its folder; OSError when it is gone."""
        job = b"".join(os.fsencode(arg) + b"\0" for arg in args)
        self._socket.setblocking(True)
        theirs, ours = open_pipes()
        try:
            socket.send_fds(self._socket, [b"%08x" % len(job)], theirs)
            self._socket.sendall(job)
        except OSError:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        self.discard()
        return Process(self.process.pid, *ours)

    def discard(self) -> None:
        """Close our ends; an interpreter that still waits for its program ends by itself."""
        self._socket.close()
        close_all([self.process.stdin, self.process.stdout, self.process.stderr])

"""How programs of each language are compiled and started: one row a language."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Language:
    """One row of the table. In commands `{source}` stands for the program's file, `{build}` for an empty
    folder outside the working directory, where nothing is looked for when the program has ended."""

    name: str
    """As sessions call it."""
    source: str
    """Name of the file the program is written to."""
    run: tuple[str, ...] = ("{build}/main",)
    """What starts it; arguments follow."""
    compile: tuple[str, ...] = ()
    """What has to succeed first, if anything."""
    spare: str = ""
    """Which waiting interpreter can run it (spare.py, held.py), if any."""

    @property
    def compiled(self) -> bool:
        """Whether it takes a folder to build in."""
        return bool(self.compile)

    @property
    def tool(self) -> str:
        """The program without which the language is not there."""
        return (self.compile or self.run)[0]

    def argv(self, source: str, args: list[str], build: str = "") -> list[str]:
        """The full command line for a program written to `source`.

        A compiled language takes a shell that becomes the program: so limits, time and signals hold for
        both, and a compiler that fails is the program's own end. It may not read the program's input, and
        what it says is for standard error.
        """

        def filled(command: tuple[str, ...]) -> list[str]:
            return [part.replace("{source}", source).replace("{build}", build) for part in command]

        if not self.compile:
            return filled(self.run) + args
        script = f'{shlex.join(filled(self.compile))} </dev/null >&2 && exec "$@"'
        return ["sh", "-c", script, "sh", *filled(self.run), *args]


TYPESCRIPT: Final = ("--experimental-transform-types", "--disable-warning=ExperimentalWarning")
"""Types are stripped, enums and the like translated; nothing is checked. Line numbers stay right."""

_CPP: Final = ("-std=c++23", "-O1", "-pipe")
_PHP: Final = ("-d", "display_errors=stderr", "-d", "log_errors=0", "-d", "html_errors=0")
_GO: Final = ("-ldflags=-s -w", "-buildvcs=false")
"""Linking takes most of the time, and without debugging information half of that."""

HOOK_FOLDER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
_JAVA_OPTIONS: Final = "/opt/kubecoderun/java/options"
_JAVA: Final = (
    (f"@{_JAVA_OPTIONS}",)
    if os.path.exists(_JAVA_OPTIONS)
    else (os.path.join(HOOK_FOLDER, "kubecoderun", "Start.java"),)
)
"""What compiles a program in memory and runs it; an image may hold it compiled, and say so in a file."""

TABLE: Final = (
    Language("py", "main.py", ("python", "{source}"), spare="python"),
    Language("js", "main.js", ("node", "{source}"), spare="node"),
    Language("ts", "main.ts", ("node", *TYPESCRIPT, "{source}"), spare="node"),
    Language("bash", "main.sh", ("bash", "{source}")),
    Language("php", "main.php", ("php", *_PHP, "{source}"), spare="php"),
    Language("r", "main.R", ("Rscript", "{source}"), spare="r"),
    Language("java", "Main.java", ("java", *_JAVA, "{source}"), spare="java"),
    Language("c", "main.c", compile=("gcc", "-O1", "-pipe", "-o", "{build}/main", "{source}", "-lm")),
    Language(
        "cpp", "main.cpp", compile=("g++", "-std=c++23", "-O1", "-pipe", "-o", "{build}/main", "{source}")
    ),
    Language(
        "f90", "main.f90", compile=("gfortran", "-O1", "-J", "{build}", "-o", "{build}/main", "{source}")
    ),
    Language("d", "main.d", compile=("gdc", "-O1", "-o", "{build}/main", "{source}")),
    Language("rs", "main.rs", compile=("rustc", "--edition=2024", "-o", "{build}/main", "{source}")),
    Language("go", "main.go", compile=("go", "build", *_GO, "-o", "{build}/main", "{source}")),
)

BY_NAME: Final = {language.name: language for language in TABLE}


def find_program(name: str, path: str) -> str | None:
    """Full path of an executable on `path` (colon-separated folders), or None."""
    for folder in path.split(":"):
        candidate = os.path.join(folder, name)
        if folder and os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    return None


def installed(path: str) -> list[str]:
    """Names of the languages whose tool is on `path`."""
    return [language.name for language in TABLE if find_program(language.tool, path)]

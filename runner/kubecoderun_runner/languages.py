"""How programs of each language are started: one row a language."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Language:
    """One row of the table."""

    name: str
    """As sessions call it."""
    source: str
    """Name of the file the program is written to."""
    command: tuple[str, ...]
    """What starts it; `{source}` stands for the file's name. Arguments follow."""
    spare: bool = False
    """Whether an interpreter with loaded modules is kept ready for it."""

    def argv(self, source: str, args: list[str]) -> list[str]:
        """The full command line for a program written to `source`."""
        return [part.replace("{source}", source) for part in self.command] + args


TABLE: Final = (
    Language("py", "main.py", ("python", "{source}"), spare=True),
    Language("bash", "main.sh", ("bash", "{source}")),
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
    """Names of the languages whose first command is on `path`."""
    return [language.name for language in TABLE if find_program(language.command[0], path)]

"""What the doctor says: one finding for each thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. Never holds a key, a token or a password."""

    check: str
    """Which check; a word for programs."""
    level: Level
    says: str
    """What was found, in a sentence."""
    do: str = ""
    """What to change; empty if nothing has to be."""


def ok(check: str, says: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, says)


def note(check: str, says: str, do: str = "") -> Finding:
    """Good to know."""
    return Finding(check, Level.NOTE, says, do)


def warning(check: str, says: str, do: str) -> Finding:
    """It may fail, or will in some cases."""
    return Finding(check, Level.WARNING, says, do)


def failure(check: str, says: str, do: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAILURE, says, do)

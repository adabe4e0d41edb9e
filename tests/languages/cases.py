"""What a language has to do: one table, the same for all. The programs are in programs/LANGUAGE/CASE.*"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubecoderun_runner.languages import BY_NAME, TABLE

PROGRAMS = Path(__file__).parent / "programs"
ARGUMENTS = ["one", "two words", "", "-x", "--help", "$HOME 'quoted' \"twice\"", "ünï 世界"]
LINES = "alpha\nñandú 二\n"


@dataclass(frozen=True)
class Case:
    """One program: what it is given, and what has to come of it."""

    name: str
    stdout: str
    args: list[str] = field(default_factory=list)
    stdin: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    fails: bool = False
    """Ends with another exit code than 0, or by a signal."""
    exit_code: int | None = 0
    """None: whichever the language has for it."""
    stderr: str = ""
    """Part of what is written to standard error; nothing else may be where this is empty."""
    files: dict[str, str] = field(default_factory=dict)
    """What comes back. Neither binaries nor anything else that only made them."""


CASES = (
    Case("hello", "Hello, world\n"),
    Case("arguments", "".join(f"[{one}]\n" for one in ARGUMENTS), args=ARGUMENTS),
    Case("stdin", "42\n", stdin="10\n20\n12\n"),
    Case("exit_code", "before the end\n", fails=True, exit_code=7),
    Case("failure", "", fails=True, exit_code=None, stderr="went wrong on purpose"),
    Case("invalid", "", fails=True, exit_code=None, stderr="{source}"),
    Case("unicode", "Grüße, 世界 🌍\n11\n"),
    Case("files", "written\n", inputs={"données.txt": LINES}, files={"out/copy.txt": f"{LINES}more\n"}),
)
BY_CASE = {case.name: case for case in CASES}
LANGUAGES = tuple(language.name for language in TABLE)

_UNNAMED = {"r": "unexpected symbol"}
"""What languages say of a program they cannot read, where they do not name its file."""


def program(language: str, case: Case) -> str:
    """The text of a case's program in one language."""
    suffix = Path(BY_NAME[language].source).suffix
    return (PROGRAMS / language / f"{case.name}{suffix}").read_text(encoding="utf-8")


def check(
    language: str,
    case: Case,
    stdout: str,
    stderr: str,
    ended: tuple[int | None, str | None],
    files: dict[str, Any] | None = None,
) -> None:
    """Compare with what came of it; `ended`: exit code and signal. Files are left out where None."""
    seen = f"{language} {case.name}: {ended}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
    assert stdout == case.stdout, seen
    expected = case.stderr
    if case.name == "invalid":
        expected = _UNNAMED.get(language, BY_NAME[language].source)
    assert (expected in stderr) if expected else (stderr == ""), seen
    assert (ended != (0, None)) is case.fails, seen
    if case.exit_code is not None:
        assert ended == (case.exit_code, None), seen
    if files is not None:
        assert files == case.files, f"{seen}\n--- files\n{sorted(files)}"

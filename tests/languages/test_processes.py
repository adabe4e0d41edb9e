"""The table of cases by the real runner, as a process of this machine, for the languages that are here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from differential.runner_process import RunnerProcess, why_impossible
from languages.cases import CASES, LANGUAGES, Case, check, program
from languages.tools import why_not_here

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

HOMES = {
    "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
    "GOCACHE": os.environ.get("GOCACHE", str(Path.home() / ".cache" / "go-build")),
}
"""Where tools of this machine keep things: programs have another home."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("language", LANGUAGES)
def test_case(language: str, case: Case, tmp_path: Path) -> None:
    reason = why_not_here(language)
    if reason is not None:
        pytest.skip(reason)
    with RunnerProcess(tmp_path, preload="", tools=os.environ["PATH"], env=HOMES) as runner:
        assert language in runner.hello["languages"]
        inputs = {path: text.encode() for path, text in case.inputs.items()}
        code = program(language, case).encode()
        runner.prepare(
            code, language=language, args=case.args, stdin=case.stdin.encode(), inputs=inputs, outputs=20,
            seconds=120,
        )  # fmt: skip
        got = runner.go()
    ended = (got.exit["exitCode"], got.exit["signal"])
    files = {path: data.decode() for path, data in got.files.items()}
    check(language, case, got.stdout.decode(), got.stderr.decode(), ended, files)

"""Each program runs twice, as `python main.py` and by the runner, and cannot tell which it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from differential.runner_process import PRELOAD, RunnerProcess, why_impossible

PROGRAMS = Path(__file__).parent / "programs"
CASES = sorted(PROGRAMS.glob("*.py")) + sorted(PROGRAMS.glob("*/main.py"))

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))


@dataclass
class Result:
    """What a caller sees of a program."""

    stdout: bytes
    stderr: bytes
    exit_code: int | None
    signal: int | None


def without_addresses(text: bytes) -> bytes:
    """Addresses of objects differ from run to run."""
    return re.sub(rb"0x[0-9a-f]{6,}", b"0x...", text)


def case_name(path: Path) -> str:
    return path.stem if path.parent == PROGRAMS else path.parent.name


def options(code: bytes) -> dict[str, Any]:
    """The first line of a program may say how to run it: `# run: {"args": [...], "stdin": "..."}`."""
    first = code.split(b"\n", 1)[0]
    if not first.startswith(b"# run: "):
        return {}
    value = json.loads(first.removeprefix(b"# run: "))
    assert isinstance(value, dict)
    return value


def lay_out(case: Path, folder: Path, *, with_main: bool) -> None:
    """Empty the folder, which is somebody's current one, and put the program's files into it."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for path in sorted(case.parent.rglob("*")) if case.parent != PROGRAMS else []:
        if path.is_file() and path != case and "__pycache__" not in path.parts:
            target = folder / path.relative_to(case.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    if with_main:
        shutil.copy(case, folder / "main.py")


def environment(path: str) -> dict[str, str]:
    return {
        "PATH": path,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": "/tmp/kcr-test-matplotlib",
        "HOME": "/tmp",
    }


def run_plainly(folder: Path, path: str, args: list[str], stdin: bytes) -> Result:
    """`python main.py`, started like any program: a session of its own, pipes for its streams."""
    done = subprocess.run(
        ["python", "main.py", *args],
        executable=shutil.which("python", path=path),
        cwd=folder,
        env=environment(path),
        input=stdin,
        capture_output=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    ended = done.returncode
    exit_code, number = (ended, None) if ended >= 0 else (None, -ended)
    return Result(without_addresses(done.stdout), without_addresses(done.stderr), exit_code, number)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_cannot_tell_the_difference(case: Path, tmp_path: Path) -> None:
    assert_same(case, tmp_path, preload=PRELOAD)


def assert_same(case: Path, tmp_path: Path, *, preload: str) -> None:
    """Run a program both ways and compare."""
    code = case.read_bytes()
    how = options(code)
    args = how.get("args", [])
    stdin = how.get("stdin", "").encode() or b"s" * how.get("stdin_bytes", 0)
    folder = tmp_path / "data"
    folder.mkdir()
    with RunnerProcess(folder, preload=preload) as runner:
        assert runner.warm["failed"] == []
        lay_out(case, folder, with_main=True)
        plain = run_plainly(folder, runner.path, args, stdin)
        lay_out(case, folder, with_main=False)
        runner.prepare(code, args=args, stdin=stdin)
        outcome = runner.go()
    name = outcome.exit["signal"]
    ours = Result(
        without_addresses(outcome.stdout),
        without_addresses(outcome.stderr),
        outcome.exit["exitCode"],
        None if name is None else int(signal.Signals[name]),
    )
    assert ours == plain


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_plain_start_cannot_be_told_either(case: Path, tmp_path: Path) -> None:
    """Without a spare: an ordinary interpreter, in which figures come back all the same."""
    assert_same(case, tmp_path, preload="")


def test_python_of_the_tests_is_the_one_compared(tmp_path: Path) -> None:
    with RunnerProcess(tmp_path, preload="") as runner:
        runner.prepare(b"import sys; print(sys.version)")
        assert runner.go().stdout.decode().strip() == sys.version


def test_every_start_has_its_own_randomness(tmp_path: Path) -> None:
    code = (
        b"import random, numpy as np, os\n"
        b"print(hash('a'), random.random(), np.random.rand(), os.urandom(4).hex())"
    )
    seen = set()
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with RunnerProcess(folder) as runner:
            runner.prepare(code)
            seen.update(runner.go().stdout.split())
    assert len(seen) == 8


def test_preloaded_modules_are_really_there(tmp_path: Path) -> None:
    """Otherwise the comparisons above compare a plain start with a plain start."""
    with RunnerProcess(tmp_path) as runner:
        assert runner.warm["preloaded"] == ["numpy", "pandas", "matplotlib.pyplot"]
        runner.prepare(
            b"import sys; print('pandas' in sys.modules, os.getppid() if 'os' in globals() else '')"
        )
        assert runner.go().stdout == b"True \n"
    assert os.getpid() != 1

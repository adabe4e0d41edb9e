"""The real runner as PID 1, with several programs in turn: what stays, what goes, what comes back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from differential.runner_process import RunnerProcess, why_impossible

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

INPUT = tuple[str, bytes]


@dataclass
class Turn:
    """One program, seen to its end."""

    stdout: str = ""
    stderr: str = ""
    exit: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """Listed for collection, with their sizes."""


class Turns:
    """Orders programs in the way of a pod that is a workspace."""

    def __init__(self, runner: RunnerProcess) -> None:
        self.runner = runner

    def order(self, code: str, inputs: Mapping[str, bytes] | None = None, **more: Any) -> None:
        """Frame R alone."""
        sizes = [len(data) for data in (inputs or {}).values()]
        order = {
            "language": "py",
            "args": [],
            "env": {},
            "timeoutSeconds": 30.0,
            "stdinBytes": 0,
            "codeBytes": len(code.encode()),
            "inputs": len(sizes),
            "inputBytes": sum(sizes),
            "files": {"count": 64, "bytes": 1 << 20, "totalBytes": 1 << 24},
            "again": True,
            **more,
        }
        self.runner.send("R", json.dumps(order).encode())

    def prepare(self, code: str, inputs: Mapping[str, bytes] | None = None, **more: Any) -> None:
        self.order(code, inputs, **more)
        for path, data in (inputs or {}).items():
            self.runner.send("N", json.dumps({"path": path, "bytes": len(data)}).encode())
            if data:
                self.runner.send("D", data)
        if code:
            self.runner.send("C", code.encode())
        self.runner.expect("P")

    def go(self) -> Turn:
        turn = Turn()
        self.runner.send("G")
        self.runner.expect("S")
        while True:
            kind, payload = self.runner.receive()
            match kind:
                case "O":
                    turn.stdout += payload.decode()
                case "E":
                    turn.stderr += payload.decode()
                case "X":
                    turn.exit = json.loads(payload)
                case "L":
                    listed = json.loads(payload)
                    turn.files[listed["path"]] = listed["bytes"]
                case "Z":
                    return turn
                case _:
                    raise AssertionError(f"frame {kind} {payload!r}: {self.runner.log_text()}")

    def run(self, code: str, inputs: Mapping[str, bytes] | None = None, **more: Any) -> Turn:
        self.prepare(code, inputs, **more)
        return self.go()


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    with RunnerProcess(tmp_path, preload="json,decimal") as process:
        yield Turns(process)


def test_files_stay_and_only_news_come_back(turns: Turns, tmp_path: Path) -> None:
    assert turns.run("open('a', 'w').write('1'); open('b', 'w').write('22')").files == {"a": 1, "b": 2}
    again = turns.run("print(open('a').read()); open('b', 'a').write('3'); open('c', 'w').write('')")
    assert (again.stdout, again.files) == ("1\n", {"b": 3, "c": 0})
    assert turns.run("pass").files == {}
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_a_file_of_the_same_size_and_time_is_news_too(turns: Turns) -> None:
    turns.run("import os; open('a', 'w').write('1'); os.utime('a', (1e9, 1e9))")
    assert turns.run("import os; open('a', 'w').write('2'); os.utime('a', (1e9, 1e9))").files == {"a": 1}


def test_every_program_is_main_py_and_none_sees_the_one_before(turns: Turns) -> None:
    code = (
        "import sys, os; print(sys.argv, sorted(f for f in os.listdir('.') if f.endswith('.py')), __file__)"
    )
    first, second = turns.run(code), turns.run(code)
    assert first.stdout == second.stdout
    assert "['main.py'] ['main.py']" in first.stdout
    assert "main.py" not in first.files


def test_a_file_that_a_program_puts_in_its_own_place_stays(turns: Turns) -> None:
    left = "import os; open('x', 'w').write('mine'); os.replace('x', 'main.py')"
    turns.run(left)
    assert turns.run("print(open('main.py').read(), __file__)").stdout.startswith("mine ")


def test_processes_do_not_outlive_their_program(turns: Turns) -> None:
    turns.run("import subprocess; subprocess.Popen(['sleep', '99'], start_new_session=True)")
    seen = turns.run(
        "import os\n"
        "for pid in filter(str.isdecimal, os.listdir('/proc')):\n"
        "    print(open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' '))"
    )
    assert "sleep" not in seen.stdout


def test_a_spare_is_warm_for_the_next_program_and_one_that_is_not_yet_does_no_harm(turns: Turns) -> None:
    """Which of the two it is depends on the moment: the module is loaded already, or it is not."""
    code = "import sys; print('decimal' in sys.modules)"
    assert turns.run(code).stdout == "True\n"
    seen = {turns.run(code).stdout for _ in range(3)}
    assert seen <= {"True\n", "False\n"}
    for attempt in range(40):
        time.sleep(0.05 * attempt)
        if turns.run(code).stdout == "True\n":
            return
    raise AssertionError("no spare was ever ready for a second program")


def test_inputs_replace_what_is_there(turns: Turns) -> None:
    turns.run("import os; open('a', 'w').write('old'); os.chmod('a', 0o400); os.symlink('/etc/passwd', 'l')")
    later = turns.run("print(open('a').read(), open('l').read())", {"a": b"new", "l": b"plain"})
    assert (later.stdout, later.files) == ("new plain\n", {})


def test_an_input_of_an_earlier_program_is_no_output_of_a_later_one(turns: Turns) -> None:
    turns.run("pass", {"in": b"1"})
    assert turns.run("pass").files == {}
    assert turns.run("open('in', 'w').write('22')").files == {"in": 2}


@pytest.mark.parametrize("path", ["d", "f/x"])
def test_an_input_that_cannot_be_made_costs_its_run_only(turns: Turns, path: str) -> None:
    turns.run("import os; os.mkdir('d'); open('f', 'w').close(); open('keep', 'w').write('k')")
    turns.order("pass", {path: b"123"})
    turns.runner.send("N", json.dumps({"path": path, "bytes": 3}).encode())
    turns.runner.send("D", b"123")
    turns.runner.send("C", b"pass")
    assert turns.runner.expect("F")["kind"] == "input_path"
    assert turns.run("print(open('keep').read())").stdout == "k\n"


def test_a_delivery_that_breaks_off_leaves_nothing(turns: Turns, tmp_path: Path) -> None:
    turns.run("open('keep', 'w').write('k')")
    turns.order("x" * 100, {"half": b"x" * 1000, "never": b"x"})
    turns.runner.send("N", json.dumps({"path": "half", "bytes": 1000}).encode())
    turns.runner.send("D", b"x" * 10)
    assert turns.run("import os; print(sorted(os.listdir('.')))").stdout == "['keep', 'main.py']\n"


def test_a_program_that_was_prepared_may_never_start(turns: Turns) -> None:
    turns.prepare("print('never')")
    ended = turns.run("print('instead'); import os; print(sorted(os.listdir('.')))")
    assert ended.stdout == "instead\n['main.py']\n"


def test_time_limit_and_cancel_end_one_program_only(turns: Turns) -> None:
    late = turns.run("import time; open('kept', 'w').write('1'); time.sleep(99)", timeoutSeconds=1.0)
    assert late.exit["timedOut"] is True
    assert late.files == {"kept": 1}
    assert turns.run("print(open('kept').read())").stdout == "1\n"


def test_a_pod_for_one_program_is_for_one_program(turns: Turns) -> None:
    turns.prepare("pass", again=False)
    turns.order("pass")
    assert "where it may not come" in turns.runner.expect("F")["message"]

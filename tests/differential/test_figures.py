"""Figures come back as PNG files: those a program shows, and those it leaves open."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.runner_process import Outcome, RunnerProcess, why_impossible

pytestmark = pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))

PLT = "import matplotlib.pyplot as plt\n"
COLD = {"NEEDS": "a plain start"}
"""A program with variables of its own cannot have the spare."""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with RunnerProcess(tmp_path, preload="matplotlib.pyplot") as process:
        yield process


def run(runner: RunnerProcess, code: str, env: dict[str, str] | None = None) -> tuple[list[str], Outcome]:
    """The names of new files, and what was printed."""
    runner.prepare(code.encode(), env=env)
    outcome = runner.go()
    new = sorted(path.name for path in runner.workspace.rglob("*") if path.is_file())
    return [name for name in new if name != "main.py"], outcome


def pixels(path: Path) -> tuple[int, int]:
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])  # type: ignore[return-value]


CASES = {
    "left open": ("plt.plot([1, 2])", ["figure-1.png"]),
    "two left open": ("plt.plot([1]); plt.figure(); plt.bar([1], [2])", ["figure-1.png", "figure-2.png"]),
    "shown": ("plt.plot([1, 2]); plt.show()", ["figure-1.png"]),
    "one after the other": (
        "plt.plot([1]); plt.show(); assert not plt.get_fignums(); plt.plot([2]); plt.show()",
        ["figure-1.png", "figure-2.png"],
    ),
    "shown without waiting": (
        "plt.plot([1]); plt.show(block=False); assert plt.get_fignums() == [1]",
        ["figure-1.png"],
    ),
    "shown in interactive mode": (
        "plt.ion(); plt.plot([1]); plt.show(); assert plt.get_fignums()",
        ["figure-1.png"],
    ),
    "shown without waiting, then changed": (
        "plt.plot([1]); plt.show(block=False); plt.title('x')",
        ["figure-1.png", "figure-2.png"],
    ),
    "shown by itself": (
        "f = plt.figure(); plt.plot([1]); f.show(); assert plt.get_fignums()",
        ["figure-1.png"],
    ),
    "saved": ("plt.plot([1]); plt.savefig('a.png')", ["a.png"]),
    "saved and shown": ("plt.plot([1]); plt.savefig('a.png'); plt.show()", ["a.png"]),
    "saved as something else": ("plt.plot([1]); plt.gcf().savefig('a.svg', transparent=True)", ["a.svg"]),
    "saved to an open file": ("plt.plot([1]); plt.savefig(open('a.png', 'wb'))", ["a.png"]),
    "saved, then changed": ("plt.plot([1]); plt.savefig('a.png'); plt.title('x')", ["a.png", "figure-1.png"]),
    "saved, then changed and drawn": (
        "plt.plot([1]); plt.savefig('a.png'); plt.title('x'); plt.gcf().canvas.draw()",
        ["a.png", "figure-1.png"],
    ),
    "saved, then drawn": ("plt.plot([1]); plt.savefig('a.png'); plt.gcf().canvas.draw()", ["a.png"]),
    "saved elsewhere": ("plt.plot([1]); plt.savefig('/tmp/kcr-test-elsewhere.png')", ["figure-1.png"]),
    "saved in memory": ("import io; plt.plot([1]); plt.savefig(io.BytesIO())", ["figure-1.png"]),
    "saved from another folder": (
        "import os; os.makedirs('out'); os.chdir('out'); plt.plot([1]); plt.savefig('a.png')",
        ["a.png"],
    ),
    "in a document": (
        "from matplotlib.backends.backend_pdf import PdfPages\n"
        "with PdfPages('a.pdf') as pdf: plt.plot([1]); pdf.savefig()",
        ["a.pdf"],
    ),
    "one of two saved": (
        "plt.plot([1]); plt.savefig('a.png'); plt.figure(); plt.plot([2])",
        ["a.png", "figure-1.png"],
    ),
    "closed": ("plt.plot([1]); plt.close()", []),
    "empty": ("plt.figure(); plt.figure(); plt.show(); plt.subplots(2)", []),
    "an empty one beside another": ("plt.subplots(); plt.subplots()[1].plot([1])", ["figure-1.png"]),
    "text only": ("plt.figure().text(0.5, 0.5, 'x')", ["figure-1.png"]),
    "text in axes": ("plt.text(0.5, 0.5, 'x')", ["figure-1.png"]),
    "a table": ("plt.axis('off'); plt.table([['a', 'b']])", ["figure-1.png"]),
    "a picture": ("plt.imshow([[1, 2], [3, 4]])", ["figure-1.png"]),
    "in three dimensions": (
        "plt.figure().add_subplot(projection='3d').plot([1], [2], [3])",
        ["figure-1.png"],
    ),
    "in a part of a figure": ("plt.figure().subfigures(2)[1].subplots().plot([1])", ["figure-1.png"]),
    "the name is taken": ("open('figure-1.png', 'w'); plt.plot([1])", ["figure-1.png", "figure-2.png"]),
    "by pandas": ("import pandas as pd; pd.DataFrame({'a': [1, 2]}).plot(); plt.show()", ["figure-1.png"]),
    "a backend chosen": (
        "import matplotlib; matplotlib.use('Agg'); plt.plot([1]); plt.show()",
        ["figure-1.png"],
    ),
    "another backend": ("plt.switch_backend('svg'); plt.plot([1]); plt.show()", ["figure-1.png"]),
    "an error afterwards": ("plt.plot([1]); raise SystemExit(3)", ["figure-1.png"]),
    "an error in it": ("plt.plot([1]); 1 / 0", ["figure-1.png"]),
    "a program's own end": (
        "import atexit; plt.plot([1]); atexit.register(lambda: plt.savefig('last.png'))",
        ["last.png"],
    ),
    "forked": (
        "import os\nplt.plot([1])\nif os.fork() == 0: raise SystemExit\nos.wait()",
        ["figure-1.png"],
    ),
    "made by a process pool": (
        "import multiprocessing as m\n"
        "def f(n): plt.plot([n]); plt.show()\n"
        "if __name__ == '__main__':\n"
        " with m.get_context('fork').Pool(1) as p: p.map(f, [1, 2])",
        ["figure-1.png", "figure-2.png"],
    ),
}


@pytest.mark.parametrize(("code", "files"), CASES.values(), ids=CASES.keys())
def test_what_comes_back(runner: RunnerProcess, code: str, files: list[str]) -> None:
    found, outcome = run(runner, PLT + code)
    assert found == files, outcome
    assert b"Traceback" not in outcome.stderr or "1 / 0" in code, outcome
    assert b"UserWarning" not in outcome.stderr, outcome
    for name in found:
        if name.startswith("figure-") and "taken" not in code and (runner.workspace / name).stat().st_size:
            assert pixels(runner.workspace / name) == (640, 480)


@pytest.mark.parametrize(
    "name", ["left open", "one after the other", "saved, then changed and drawn", "empty"]
)
@pytest.mark.parametrize("chosen", ["", "import matplotlib; matplotlib.use('Agg')\n"], ids=["default", "agg"])
def test_a_plain_start_brings_them_back_too(runner: RunnerProcess, name: str, chosen: str) -> None:
    code, files = CASES[name]
    found, outcome = run(runner, chosen + PLT + code, COLD)
    assert (found, outcome.stderr) == (files, b"")


def test_without_a_spare_and_without_a_backend_in_the_environment(tmp_path: Path) -> None:
    """An image of somebody's own."""
    with RunnerProcess(tmp_path, preload="", env={"MPLBACKEND": ""}) as runner:
        code = (
            "import sys\nfinder = next(one for one in sys.meta_path if 'PathFinder' in repr(one))\n"
            f"{PLT}plt.plot([1]); plt.show(); print(finder.find_spec.__module__)"
        )
        found, outcome = run(runner, code)
        assert found == ["figure-1.png"]
        assert outcome.stdout == b"_frozen_importlib_external\n", "what waited for pyplot is gone"


def test_the_size_is_the_figures_own(runner: RunnerProcess) -> None:
    found, _outcome = run(runner, PLT + "plt.figure(figsize=(3, 2), dpi=50); plt.plot([1]); plt.show()")
    assert found == ["figure-1.png"]
    assert pixels(runner.workspace / "figure-1.png") == (150, 100)


def test_a_subprocess_may_show_what_it_likes(runner: RunnerProcess) -> None:
    code = """
import subprocess, sys
code = "import matplotlib.pyplot as plt; plt.plot([1]); plt.show(); print('shown')"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True))
"""
    _found, outcome = run(runner, code)
    assert b"stdout='shown\\n'" in outcome.stdout
    assert b"returncode=0" in outcome.stdout
    assert b"stderr=''" in outcome.stdout


@pytest.mark.parametrize("how", ["plt.show(); print('goes on')", "print('goes on')"])
def test_a_figure_that_cannot_be_drawn_says_so_and_stops_nothing(runner: RunnerProcess, how: str) -> None:
    found, outcome = run(runner, PLT + "plt.plot([1]); plt.title('$\\\\frac{1$'); " + how)
    assert (found, outcome.exit["exitCode"], outcome.stdout) == ([], 0, b"goes on\n")
    assert outcome.stderr.startswith(b"A figure could not be saved: ValueError: ")


def test_a_full_folder_says_so_and_leaves_no_half_of_a_picture(runner: RunnerProcess) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    found, outcome = run(runner, code + PLT + "plt.plot([1]); plt.show(); print('goes on')")
    assert (found, outcome.stdout) == ([], b"goes on\n")
    assert b"A figure could not be saved: OSError: [Errno 27] File too large" in outcome.stderr


def test_a_killed_program_loses_only_what_it_had_not_shown(runner: RunnerProcess) -> None:
    code = PLT + "import os\nplt.plot([1]); plt.show(); plt.plot([2]); os.kill(os.getpid(), 9)"
    found, outcome = run(runner, code)
    assert (found, outcome.exit["signal"]) == (["figure-1.png"], "SIGKILL")

"""`make test`: every check there is, each timed, on a development cluster of its own.

What is slow and needs no cluster (Go builds, images) goes on in the background, at low priority, beside the
checks that need no cluster either. A failed stage does not keep the others from running, unless they need it.
At the end: a table of times, the skipped tests with their reasons, and the totals of each pytest run.
Standard library only: it runs before there is a virtual environment.
"""

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "cluster"
LOGS = ROOT / "build" / "log"
PYTHON = str(ROOT / "build" / "venv" / "bin" / "python")
MINUTE = 60


@dataclass
class Stage:
    """One line of the table."""

    name: str
    seconds: float
    result: str

    @property
    def passed(self) -> bool:
        return self.result == "passed"


def ended(process: subprocess.Popen[bytes], minutes: float) -> str:
    """Wait for a process; how it ended. At the time limit, or an interrupt, all it started is ended."""
    try:
        status = process.wait(minutes * MINUTE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        return f"FAILED (more than {minutes:g} minutes)"
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    return "passed" if status == 0 else f"FAILED (status {status})"


class Run:
    """The stages so far."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.began = time.monotonic()

    def stage(self, name: str, *command: str, minutes: float, needs: "Stage | None" = None) -> Stage:
        """Run a command to its end, with its output here; give up after `minutes`."""
        print(f"\n=== {name} ({time.monotonic() - self.began:.0f} s)", flush=True)
        if needs is not None and not needs.passed:
            return self.add(Stage(name, 0.0, f"not run: {needs.name} failed"))
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        result = ended(process, minutes)
        return self.add(Stage(name, time.monotonic() - began, result))

    def add(self, stage: Stage) -> Stage:
        print(f"=== {stage.name}: {stage.result}", flush=True)
        self.stages.append(stage)
        return stage


class Background:
    """A command that runs beside the stages, its output in a file that is shown when it has ended."""

    def __init__(self, name: str, *command: str) -> None:
        self._name, self._began = name, time.monotonic()
        self._log = LOGS / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                ["nice", "-n", "15", *command],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        print(f"\n=== {name}: in the background, output in {self._log.relative_to(ROOT)}", flush=True)

    def join(self, run: Run, minutes: float) -> Stage:
        """Wait for it, then show what it wrote."""
        print(f"\n=== {self._name}: waiting ({time.monotonic() - run.began:.0f} s)", flush=True)
        result = ended(self._process, minutes)
        print(self._log.read_text(errors="replace"), end="", flush=True)
        return run.add(Stage(self._name, time.monotonic() - self._began, result))

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)


WITH_ENV = ("bash", "-c", '. build/env && exec "$@"', "with-env")
"""Runs the command after it with the addresses and keys of the deployed system."""
NEED_CLUSTER = ("tests/cluster", "tests/e2e", "tests/client", "tests/chaos")
IMAGES = "tests/languages/test_images.py"
NEED_BUILDS = ("tests/store", "tests/faults", IMAGES)
RUNS = ("unit", "clients", "store", "faults", "images", "cluster")
"""The pytest runs."""


def pytest(name: str, *arguments: str) -> tuple[str, ...]:
    """A pytest run; its output also in build/log/NAME.txt, its results in build/log/NAME.xml."""
    keep = ("bash", "-o", "pipefail", "-c", '"$@" 2>&1 | tee "$0"', f"{LOGS / name}.txt")
    return (
        *keep,
        PYTHON,
        "-m",
        "pytest",
        "-q",
        f"--junitxml={LOGS / name}.xml",
        "--durations=10",
        *arguments,
    )


def cases(name: str, *kinds: str) -> dict[str, list[str]]:
    """The tests of one run with a result of these kinds (skipped, xfail, failure, error), by reason."""
    file = LOGS / f"{name}.xml"
    found: dict[str, list[str]] = defaultdict(list)
    if file.is_file():
        for case in ElementTree.parse(file).getroot().iter("testcase"):
            for mark in case:
                if ("xfail" if mark.get("type") == "pytest.xfail" else mark.tag) not in kinds:
                    continue
                reason = mark.get("message", "no reason given").partition("\n")[0][:200]
                found[reason].append(f"{case.get('classname')}::{case.get('name')}")
    return found


def last_line(name: str) -> str:
    """pytest's own total of one run."""
    file = LOGS / f"{name}.txt"
    lines = file.read_text(errors="replace").split("\n") if file.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "no results")


def show(verb: str, found: dict[str, list[str]]) -> None:
    """Tests by reason, the first of each."""
    for reason, names in sorted(found.items()):
        print(f"{len(names)} {verb}: {reason}")
        print("".join(f"    {name}\n" for name in names[:8]), end="")
        if len(names) > 8:
            print(f"    ... and {len(names) - 8} more")


def report(run: Run, pytest_runs: Sequence[str]) -> None:
    """The table, skipped and failed tests with their reasons, the totals."""
    print("\n" + "=" * 78)
    for stage in run.stages:
        print(f"{stage.name:<28} {stage.seconds:7.1f} s   {stage.result}")
    print(f"{'all (some overlap)':<28} {time.monotonic() - run.began:7.1f} s")
    for name in pytest_runs:
        show("not run", cases(name, "skipped"))
    for name in pytest_runs:
        show("failed as expected", cases(name, "xfail"))
    for name in pytest_runs:
        show("FAILED", cases(name, "failure", "error"))
    for name in pytest_runs:
        print(f"{name}: {last_line(name)}", flush=True)


def main() -> int:
    """Returns the exit status: 0 if all stages passed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in RUNS:
        for suffix in ("xml", "txt"):
            (LOGS / f"{name}.{suffix}").unlink(missing_ok=True)
    os.environ.setdefault("CLUSTER", "kind")
    os.environ.setdefault("LANGUAGES", "most")
    # tests of the deployed system fail instead of being skipped when there is none
    os.environ.setdefault("CI", "true")
    # tests/store is about servers of its own here; `make test-store` is for a given one
    os.environ.pop("KCR_STORE_ENDPOINT", None)
    run = Run()
    run.stage("system packages", str(SCRIPTS / "prerequisites.sh"), "node", "npm", minutes=20)
    background = Background("builds and images", str(SCRIPTS / "prepare.sh"))
    try:
        stages(run, background)
    finally:
        background.stop()
    report(run, RUNS)
    return 0 if all(stage.passed for stage in run.stages) else 1


def stages(run: Run, background: Background) -> None:
    """All that follows the system packages."""
    venv = run.stage("venv", str(SCRIPTS / "venv.sh"), minutes=15)
    run.stage("ruff check", PYTHON, "-m", "ruff", "check", ".", minutes=2, needs=venv)
    run.stage("ruff format", PYTHON, "-m", "ruff", "format", "--check", ".", minutes=2, needs=venv)
    run.stage("mypy", PYTHON, "-m", "mypy", minutes=10, needs=venv)
    elsewhere = [f"--ignore={folder}" for folder in (*NEED_CLUSTER, *NEED_BUILDS)]
    run.stage("tests without a cluster", *pytest("unit", *elsewhere), minutes=40, needs=venv)
    clients = pytest("clients", "-m", "not cluster", "tests/client")
    run.stage("clients without a cluster", *clients, minutes=20, needs=venv)
    built = background.join(run, minutes=45)
    if venv.passed:
        run.stage("tests of object stores", *pytest("store", "tests/store"), minutes=10, needs=built)
        run.stage("tests under faults", *pytest("faults", "tests/faults"), minutes=20, needs=built)
        run.stage("tests of images", *pytest("images", "-n", "2", IMAGES), minutes=15, needs=built)
    cluster = run.stage("cluster", str(SCRIPTS / "up.sh"), minutes=10, needs=built)
    deployed = run.stage("deployment", str(SCRIPTS / "deploy.sh"), minutes=10, needs=cluster)
    if venv.passed:
        command = (*WITH_ENV, *pytest("cluster", "-m", "cluster", *NEED_CLUSTER))
        run.stage("tests on the cluster", *command, minutes=50, needs=deployed)


if __name__ == "__main__":
    sys.exit(main())

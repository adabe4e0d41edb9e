"""A program that needs too much memory, in a real cgroup: it is ended before the kernel does it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.runner_process import RunnerProcess, why_impossible
from hostile.cage import program

V1 = Path("/sys/fs/cgroup/memory")
LIMIT = 128 << 20
pytestmark = [
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
    pytest.mark.skipif(
        not (V1 / "memory.limit_in_bytes").exists() or not os.access(V1, os.W_OK) or os.geteuid() != 0,
        reason="needs root and cgroup v1; the files of v2 have a unit test",
    ),
]


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup with a limit."""
    made = V1 / f"kcr-test-{uuid.uuid4().hex[:8]}"
    made.mkdir()
    (made / "memory.limit_in_bytes").write_text(str(LIMIT))
    yield made
    for _ in range(100):
        try:
            made.rmdir()
            return
        except OSError:  # processes that were killed are still there
            time.sleep(0.1)


def kills(cgroup: Path) -> int:
    """How often the kernel has killed here."""
    lines = (cgroup / "memory.oom_control").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def test_the_program_is_ended_and_the_runner_goes_on(tmp_path: Path, cgroup: Path) -> None:
    with RunnerProcess(tmp_path, preload="", cgroup=cgroup) as runner:
        assert runner.warm["limits"]["memoryBytes"] == LIMIT
        for name in ("memory_bomb", "memory_bomb_of_many"):
            runner.prepare(program(name).encode())
            outcome = runner.go()
            assert (outcome.exit["oom"], outcome.exit["limit"]) == (True, "memory"), (name, outcome)
            assert outcome.stdout == b"begin\n"
            runner.prepare(b"print(len(bytearray(40 << 20)))")
            assert runner.go().stdout == b"41943040\n"


def test_pages_of_files_are_no_reason(tmp_path: Path, cgroup: Path) -> None:
    """Reading and writing more than the limit fills the page cache, which the kernel takes back."""
    code = b"""
with open("big", "wb") as file:
    for _ in range(200): file.write(bytes(1 << 20))
    file.flush(); import os; os.fsync(file.fileno())
with open("big", "rb") as file:
    while file.read(1 << 20): pass
print("read")
"""
    with RunnerProcess(tmp_path, preload="", cgroup=cgroup) as runner:
        runner.prepare(code)
        outcome = runner.go()
        assert (outcome.stdout, outcome.exit["limit"]) == (b"read\n", None)
    assert kills(cgroup) == 0


def test_where_the_kernel_is_faster_it_hits_the_program(tmp_path: Path, cgroup: Path) -> None:
    """Without a watch: programs volunteer, so the runner lives and tells."""
    with RunnerProcess(tmp_path, preload="") as runner:
        # after it has looked for a limit and found none
        for pid in children_of(runner.process.pid):
            (cgroup / "cgroup.procs").write_text(str(pid))
        runner.prepare(program("memory_bomb_of_many").encode(), seconds=10)
        outcome = runner.go()
        assert kills(cgroup) > 0
        assert outcome.stdout == b"begin\n"
        runner.prepare(b"print('still there')")
        assert runner.go().stdout == b"still there\n"


def children_of(pid: int) -> list[int]:
    """All processes below one."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [deeper for child in found for deeper in children_of(child)]

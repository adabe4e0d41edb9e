"""The memory of a container, read from both layouts of cgroups; when to look again, and when it is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubecoderun_runner.memory import MemoryWatch, find_gauge, margin_of

MIB = 1 << 20


class Cgroup:
    """The files of one container's memory, in one of both layouts."""

    def __init__(self, root: Path, version: int, limit: str = str(256 * MIB)) -> None:
        self._root = root / "memory" if version == 1 else root
        self._root.mkdir(exist_ok=True)
        self._v1 = version == 1
        (self._root / ("memory.limit_in_bytes" if self._v1 else "memory.max")).write_text(f"{limit}\n")
        self.use(10 * MIB)

    def use(self, usage: int, *, inactive: int = 0, active: int = 0) -> None:
        (self._root / ("memory.usage_in_bytes" if self._v1 else "memory.current")).write_text(f"{usage}\n")
        prefix = "total_" if self._v1 else ""
        own = "inactive_file 7\nactive_file 7\n" if self._v1 else ""
        (self._root / "memory.stat").write_text(
            f"anon 1\n{own}{prefix}inactive_file {inactive}\n{prefix}active_file {active}\nslab 3\n"
        )


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_what_can_be_taken_back_does_not_count(tmp_path: Path, version: int) -> None:
    cgroup = Cgroup(tmp_path, version)
    cgroup.use(200 * MIB, inactive=50 * MIB, active=30 * MIB)
    gauge = find_gauge(str(tmp_path))
    assert gauge is not None
    assert (gauge.limit, gauge.usage(), gauge.needed()) == (256 * MIB, 200 * MIB, 120 * MIB)


@pytest.mark.parametrize(("version_", "limit"), [(2, "max"), (1, "9223372036854771712")])
def test_without_a_limit_nobody_looks(tmp_path: Path, version_: int, limit: str) -> None:
    Cgroup(tmp_path, version_, limit)
    watch = MemoryWatch(find_gauge(str(tmp_path)))
    assert (watch.limit, watch.next_look, watch.exceeded()) == (None, float("inf"), False)


def test_without_cgroups_nobody_looks(tmp_path: Path) -> None:
    assert find_gauge(str(tmp_path)) is None
    (tmp_path / "memory.max").write_text("nonsense\n")
    assert find_gauge(str(tmp_path)) is None


def test_full_is_a_little_below_the_limit(tmp_path: Path, version: int) -> None:
    cgroup = Cgroup(tmp_path, version)
    now = [100.0]
    watch = MemoryWatch(find_gauge(str(tmp_path)), lambda: now[0])

    def exceeded(usage: int, inactive: int = 0) -> bool:
        cgroup.use(usage, inactive=inactive)
        now[0] = max(now[0], watch.next_look)
        return watch.exceeded()

    assert not exceeded(247 * MIB)
    assert exceeded(248 * MIB)
    assert not exceeded(256 * MIB, inactive=20 * MIB)
    assert exceeded(256 * MIB, inactive=1 * MIB)


def test_it_looks_sooner_the_nearer_the_limit_is(tmp_path: Path, version: int) -> None:
    cgroup = Cgroup(tmp_path, version, str(4096 * MIB))
    now = [0.0]
    watch = MemoryWatch(find_gauge(str(tmp_path)), lambda: now[0])
    pauses = []
    for used in (0, 3500 * MIB, 3900 * MIB, 4063 * MIB):
        cgroup.use(used)
        now[0] = watch.next_look
        assert not watch.exceeded()
        pauses.append(watch.next_look - now[0])
    assert pauses == sorted(pauses, reverse=True)
    assert (pauses[0], pauses[-1]) == (0.25, pytest.approx(0.005))
    cgroup.use(4096 * MIB)
    assert not watch.exceeded(), "not before it is time"


def test_files_that_vanish_are_no_reason_to_end_a_program(tmp_path: Path) -> None:
    Cgroup(tmp_path, 2)
    watch = MemoryWatch(find_gauge(str(tmp_path)), lambda: 5.0)
    (tmp_path / "memory.current").unlink()
    assert not watch.exceeded()
    assert watch.next_look > 5.0


@pytest.mark.parametrize(
    ("limit", "margin"), [(16 * MIB, 4 * MIB), (256 * MIB, 8 * MIB), (1 << 30, 32 * MIB), (1 << 36, 32 * MIB)]
)
def test_margin(limit: int, margin: int) -> None:
    assert margin_of(limit) == margin

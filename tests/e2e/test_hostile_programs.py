"""Hostile programs on the real cluster: each ends in the answer it should, and nobody else notices.

The programs are in tests/hostile/programs, one thing each. They run in pods with tight limits; beside them an
ordinary caller goes on asking, whose answers must stay right.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from e2e.deployment import POOLS, SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import Kube, Object
from e2e.pools import ended, fresh_name, pool_manifest, put_pool, session_manifest, wait_at_target
from hostile.cage import PROGRAMS, cage, program

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("canary")]

OMITTED = r"\n\[\.\.\. \d+ bytes omitted \.\.\.\]\n"


@dataclass(frozen=True)
class Case:
    """A program and what has to come of it: patterns that the whole of a stream matches, lines of stderr
    apart that are ours."""

    program: str
    reason: str
    stdout: str = ""
    told: str = ""
    """What our own line at the end of stderr begins with."""
    seconds: int = 30
    files: tuple[str, ...] | None = None


CASES = (
    Case("fork_bomb", "TimeLimit", r"(begin\n)+", "Time limit", seconds=5),
    Case("too_many_processes", "ProcessLimit", "", "Process limit: .* of 64 "),
    Case("too_many_threads", "ProcessLimit", "", "Process limit"),
    Case("kill_everything", "Succeeded", "alone -9\n"),
    Case("memory_bomb", "OOMKilled", "begin\n", "Memory limit: .* 256 MiB"),
    Case("memory_bomb_of_many", "OOMKilled", "begin\n", "Memory limit"),
    Case("disk_bomb", "DiskFull", "begin\n", "Disk limit"),
    Case("disk_full_handled", "Succeeded", "ENOSPC\n", files=("small",)),
    # what runs out first is the node's affair: inodes, memory for them, or time
    Case("inode_bomb", "OOMKilled|DiskFull|TimeLimit", "begin\n", "(Memory|Disk|Time) limit", seconds=10),
    Case("open_files_bomb", "OpenFilesLimit", "", "Open files limit: .* 128 "),
    Case("grandchild_keeps_stdout", "Succeeded", "done\n", seconds=300),
    Case("deaf_daemon", "Succeeded", "done\n", seconds=300, files=("later",)),
    Case("stopped", "TimeLimit", "begin\n", "Time limit", seconds=3),
    Case("closed_streams", "Succeeded"),
    Case("flood", "OutputLimit", f"x+{OMITTED}x+", "Output limit"),
    Case("much_output", "Succeeded", f"first\nx+{OMITTED}x+\nlast\n", "Output limit: of"),
    Case(
        "strange_outputs",
        "Succeeded",
        "no way out\n",
        files=("-rf", "CON", "NUL", "aux.txt", "a\\..\\b", "closed", "con\u00e9", "hard", "plain"),
    ),
    Case("many_files", "Succeeded", "made\n", seconds=60, files=tuple(f"many/{n:06}" for n in range(64))),
    Case("closed_folder", "Succeeded", "closed\n"),
    Case("channel", "Succeeded", r"\[\]\n\[0, 1, 2\] 4\nENOENT\n(EACCES|EROFS|EPERM|EBUSY|EXDEV|\n)+"),
    Case("attach_to_the_runner", "Succeeded", r"\[('EACCES', )?'EPERM'\] 12\nstill there\n"),
    Case("proc", "Succeeded", r"\[\]\n\[\]\n"),
    Case("socket_families", "Succeeded", r"\{<AddressFamily.AF_UNIX: 1>\}\n|\{1\}\n"),
    Case("io_uring", "Succeeded", r"(-1 ENOSYS\n){3}"),
    Case("call_of_32_bits", "Signalled", "before\n"),
    Case("namespaces_and_mounts", "Succeeded", r"\['EPERM'\]\n"),
)  # fmt: skip


@dataclass
class Canary:
    """An ordinary caller, beside the hostile ones."""

    front_end: FrontEnd
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def sing(self) -> None:
        """Ask again and again."""
        number = 0
        while not self._stop.wait(1.0):
            number += 1
            began = time.perf_counter()
            answer = self.front_end.exec(f"print({number} * 7)")
            self.seconds.append(time.perf_counter() - began)
            if answer.status != 200 or answer.parsed.get("stdout") != f"{number * 7}\n":
                self.wrong.append(f"{answer.status} {answer.body[:300]!r}")

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture(scope="module")
def canary(front_end: FrontEnd) -> Iterator[Canary]:
    """Its answers are right for as long as these tests last."""
    bird = Canary(front_end)
    thread = threading.Thread(target=bird.sing)
    thread.start()
    yield bird
    bird.stop()
    thread.join(60)
    assert bird.wrong == []
    assert len(bird.seconds) >= 5


@pytest.fixture(scope="module")
def make_pool(kube: Kube, pool: str) -> Iterator[Callable[..., str]]:
    """Makes pools with tight limits that last as long as these tests."""
    made: list[str] = []

    def make(**spec: object) -> str:
        name = fresh_name("x-hostile")
        like = kube.pool(pool)
        put_pool(kube, pool_manifest(name, like, **{**cage(like["spec"]["runtime"]["image"]), **spec}))
        made.append(name)
        wait_at_target(kube, name)
        return name

    yield make
    for name in made:
        kube.delete(f"{POOLS}/{name}")


@pytest.fixture(scope="module")
def tight_pool(make_pool: Callable[..., str]) -> str:
    """The pool of most of them, without a network."""
    return make_pool()


@pytest.fixture
def outcome(kube: Kube) -> Iterator[Callable[..., Object]]:
    """Runs a program in a pool; the session's status at its end."""
    made: list[str] = []

    def run(pool: str, named: str, **request: Any) -> Object:
        made.append(fresh_name("x-hostile"))
        kube.apply(session_manifest(made[-1], pool, program(named), **request))
        status: Object = ended(kube, made[-1])["status"]
        return status

    yield run
    for name in made:
        kube.delete(f"{SESSIONS}/{name}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_hostile_program_ends_as_it_should(
    tight_pool: str, outcome: Callable[..., Object], case: Case
) -> None:
    status = outcome(tight_pool, case.program, timeoutSeconds=case.seconds)
    result = status.get("result", {})
    assert re.fullmatch(case.reason, status["reason"]), status
    assert re.fullmatch(case.stdout, result.get("stdout", "")), status
    told = [line for line in result.get("stderr", "").splitlines() if line.startswith("[kubecoderun] ")]
    assert bool(told) == bool(case.told), status
    if case.told:
        assert re.match(f"\\[kubecoderun\\] {case.told}", told[0]), told
    if case.files is not None:
        assert tuple(file["path"] for file in status.get("files", [])) == case.files, status


def test_every_program_has_a_test() -> None:
    elsewhere = {"reach_out", "sidecar_on_localhost"}
    assert {path.stem for path in PROGRAMS.glob("*.py")} == {case.program for case in CASES} | elsewhere


def test_no_address_can_be_reached(kube: Kube, tight_pool: str, outcome: Callable[..., Object]) -> None:
    """The metadata service, the API server, DNS, another pod's sidecar, and that of its own pod."""
    neighbour = kube.pods(tight_pool)[0]["status"]["podIP"]
    service = kube.request("GET", "/api/v1/namespaces/default/services/kubernetes")["spec"]["clusterIP"]
    targets = ["169.254.169.254:80", f"{service}:443", "10.96.0.10:53", f"{neighbour}:8790", "127.0.0.1:8790"]
    status = outcome(tight_pool, "reach_out", args=targets)
    assert status["result"]["stdout"] == "EAFNOSUPPORT\n" * len(targets) + "no name\n"


def test_the_sidecar_minds_no_program_that_has_sockets(
    make_pool: Callable[..., str], outcome: Callable[..., Object]
) -> None:
    """Unsigned, forged, in bulk and in nonsense: the run ends as usual, and its answer arrives."""
    status = outcome(make_pool(network="Restricted"), "sidecar_on_localhost")
    assert status["result"]["stdout"] == "401 401 401 401\n401 401\nlocalhost is mine\n", status
    assert status["reason"] == "Succeeded"

"""Hostile programs on the real cluster: each ends in the answer it should, and nobody else notices.

The programs are in tests/hostile/programs, one thing each. They run in pods with tight limits; beside them an
ordinary caller goes on asking, whose answers must stay right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from e2e.deployment import SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import Kube, Object
from e2e.pools import (
    ended,
    fresh_name,
    making_pools,
    session_manifest,
    wait_at_target,
)
from hostile.cage import PROGRAMS, cage, program
from hostile.cases import CASES, Case

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("canary")]


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
def canary(front_end: FrontEnd, make_pool: Callable[..., str]) -> Iterator[Canary]:
    """Its answers are right for as long as these tests last. It ends before their pools, whose pods it may
    get too."""
    del make_pool  # asked for, so that it outlives this
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
    tight = cage(kube.pool(pool)["spec"]["runtime"]["image"])
    with making_pools(kube, pool, "x-hostile") as make:
        yield lambda **spec: make(**{**tight, **spec})


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
    files = [file["path"] for file in status.get("files", [])]
    faults = case.faults(status["reason"], result.get("stdout", ""), result.get("stderr", ""), files)
    assert not faults, status


def test_every_program_has_a_test() -> None:
    elsewhere = {"reach_out", "sidecar_on_localhost"}
    assert {path.stem for path in PROGRAMS.glob("*.py")} == {case.program for case in CASES} | elsewhere


def test_no_address_can_be_reached(kube: Kube, tight_pool: str, outcome: Callable[..., Object]) -> None:
    """The metadata service, the API server, DNS, another pod's sidecar, and that of its own pod."""
    wait_at_target(kube, tight_pool)
    neighbour = next(pod["status"]["podIP"] for pod in kube.pods(tight_pool) if "podIP" in pod["status"])
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

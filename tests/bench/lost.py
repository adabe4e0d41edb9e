"""How soon a caller is told that its run was lost: from the strike to the answer."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench.figures import Scenario, summary
from bench.system import System
from e2e.deployment import SESSIONS
from e2e.losses import Strike, strikes
from e2e.node import Node, NoNodeError
from e2e.pools import running
from e2e.waiting import eventually

PROGRAM = "import time\ntime.sleep(120)"


def lost_runs(system: System, n: int) -> dict[str, Scenario]:
    """A pod deleted, a sidecar and a runtime container killed: `n` samples each."""
    try:
        node: Node | None = Node(system.kube.kubectl("config", "current-context").stdout.strip())
    except NoNodeError:
        node = None
    names = {"PodLost": "lost_pod", "SidecarLost": "lost_sidecar", "RuntimeLost": "lost_runtime"}
    found = strikes(system.kube, node)
    return {
        name: _measured(system, n, reason, found[reason])
        if reason in found
        else {"skipped": "no access to the cluster's node"}
        for reason, name in names.items()
    }


def _measured(system: System, n: int, reason: str, strike: Strike) -> Scenario:
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        system.rest()
        ended, took = _one(system, strike)
        if ended == reason:
            seconds.append(took)
        else:
            errors.append(f"{ended} instead of {reason}")
    return summary(seconds, errors)


def _one(system: System, strike: Strike) -> tuple[str, float]:
    """The reason of the session, and the seconds from the strike to the answer."""
    before = {each["metadata"]["name"] for each in system.kube.items(SESSIONS)}
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(system.front_end.exec, PROGRAM, timeout=130_000)
        name = eventually(lambda: _new(system, before), "the call's session appears", every=0.05)
        pod = running(system.kube, name)["status"]["pod"]["name"]
        began = time.perf_counter()
        strike(pod)
        call.result(timeout=100)
        took = time.perf_counter() - began
    return str(system.kube.session(name)["status"]["reason"]), took


def _new(system: System, before: set[str]) -> str | None:
    there = {each["metadata"]["name"] for each in system.kube.items(SESSIONS)}
    return next(iter(there - before), None)

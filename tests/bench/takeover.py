"""How long nobody is served when the operator ends: from that moment to the answer to a call made in it."""

import time
from collections.abc import Callable

from bench.figures import Scenario, summary
from bench.system import Caller, System, wrong
from e2e.deployment import SYSTEM_PODS
from e2e.node import Node, NoNodeError
from e2e.workloads import OPERATOR, kill_leader, leader, wait_ready


def asked_to_stop(system: System, n: int) -> dict[str, Scenario]:
    """The leader gets SIGTERM while another operator stands by."""
    kube = system.kube
    return {"operator_asked_to_stop": measured(system, n, lambda: kill_leader(kube, grace=30))}


def container_killed(system: System, n: int) -> dict[str, Scenario]:
    """SIGKILL for the leader's process; the kubelet restarts the container in its pod. Each sample has a new
    pod, because the kubelet waits longer with every further restart."""
    kube = system.kube
    try:
        node = Node(kube.kubectl("config", "current-context").stdout.strip())
    except NoNodeError as missing:
        return {"operator_container_killed": {"skipped": str(missing)}}

    def strike() -> None:
        pod = kube.request("GET", f"{SYSTEM_PODS}/{leader(kube)}")
        node.kill_container(pod["status"]["containerStatuses"][0]["containerID"])

    def renew() -> None:
        kill_leader(kube, grace=30)

    renew()
    return {"operator_container_killed": measured(system, n, strike, renew)}


def pod_killed(system: System, n: int) -> dict[str, Scenario]:
    """The leader's pod is gone without a word: the standby waits until its lease has run out."""
    kube = system.kube
    return {"operator_pod_killed": measured(system, n, lambda: kill_leader(kube, grace=0))}


def measured(
    system: System, n: int, strike: Callable[[], object], renew: Callable[[], object] = lambda: None
) -> Scenario:
    """`n` samples; `renew` is done after each. All operators are there, and ready, before the next."""
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        wait_ready(system.kube, OPERATOR)
        system.rest()
        caller = Caller(system.front_end)
        strike()
        began = time.perf_counter()
        run = caller.call("print(1)")
        took = time.perf_counter() - began
        caller.close()
        fault = wrong(run, "1\n")
        if fault:
            errors.append(fault)
        else:
            seconds.append(took)
        renew()
    return summary(seconds, errors)

"""How long nobody is served when the operator ends: from that moment to the answer to a call made in it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from bench.figures import Scenario, summary
from bench.system import Caller, System, wrong
from e2e.deployment import SYSTEM_PODS
from e2e.kube import Kube
from e2e.node import Node, NoNodeError
from e2e.workloads import OPERATOR, kill, kill_leader, leader, wait_ready


def asked_to_stop(system: System, n: int) -> dict[str, Scenario]:
    """The leader gets SIGTERM while another operator stands by."""
    kube = system.kube
    return {"operator_asked_to_stop": measured(system, n, lambda: kill_leader(kube, grace=30))}


def container_killed(system: System, n: int) -> dict[str, Scenario]:
    """SIGKILL for the leader's process; the kubelet restarts the container in its pod. Each sample has a new
    pod, because the kubelet waits longer with every further restart."""
    try:
        node = node_of(system)
    except NoNodeError as missing:
        return {"operator_container_killed": {"skipped": str(missing)}}
    kube = system.kube
    renew(kube)
    strike = partial(kill_process, kube, node)
    return {"operator_container_killed": measured(system, n, strike, lambda: renew(kube))}


def pod_killed(system: System, n: int) -> dict[str, Scenario]:
    """The leader's pod dies without a word and nothing restarts it: the standby waits until its lease has run
    out. A pod that is deleted does not do, not even without grace: the kubelet asks its processes to stop."""
    try:
        node = node_of(system)
    except NoNodeError as missing:
        return {"operator_pod_killed": {"skipped": str(missing)}}
    kube = system.kube
    strike, afterwards = partial(kill_process, kube, node), partial(kill, kube, OPERATOR, 30)
    return {"operator_pod_killed": measured(system, n, strike, afterwards, node.frozen_kubelet)}


def node_of(system: System) -> Node:
    """The node of the development cluster. Raises NoNodeError."""
    return Node(system.kube.kubectl("config", "current-context").stdout.strip())


def kill_process(kube: Kube, node: Node) -> None:
    """SIGKILL for the process of the operator that leads."""
    pod = kube.request("GET", f"{SYSTEM_PODS}/{leader(kube)}")
    node.kill_container(pod["status"]["containerStatuses"][0]["containerID"])


def renew(kube: Kube) -> None:
    """Another pod for the operator that leads, which the kubelet restarts at once when it dies."""
    kill_leader(kube, grace=30)


def measured(
    system: System,
    n: int,
    strike: Callable[[], object],
    afterwards: Callable[[], object] = lambda: None,
    meanwhile: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Scenario:
    """`n` samples; `meanwhile` holds from before the strike to the answer, `afterwards` is done after each.
    Before the next, all operators are there and ready."""
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        wait_ready(system.kube, OPERATOR)
        system.rest()
        caller = Caller(system.front_end)
        with meanwhile():
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
        afterwards()
    return summary(seconds, errors)

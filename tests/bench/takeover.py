"""How long nobody is served when the operator ends: from that moment to the answer to a call made in it."""

import time
from collections.abc import Callable

from bench.figures import Scenario, summary
from bench.system import Caller, System, wrong
from e2e.deployment import SYSTEM_NAMESPACE, SYSTEM_PODS
from e2e.kube import MERGE_PATCH, Kube, is_going, is_ready
from e2e.node import Node, NoNodeError
from e2e.waiting import eventually
from e2e.workloads import DEPLOYMENTS, kill, pods_of, wait_replaced

OPERATOR = "kubecoderun-operator"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{OPERATOR}"


def asked_to_stop(system: System, n: int) -> dict[str, Scenario]:
    """The leader gets SIGTERM while another operator stands by."""
    kube = system.kube

    def strike() -> None:
        holder = kube.request("GET", LEASE)["spec"]["holderIdentity"]
        leader = next(pod for pod in pods_of(kube, OPERATOR) if pod["metadata"]["uid"] == holder)
        kube.delete(f"{SYSTEM_PODS}/{leader['metadata']['name']}", gracePeriodSeconds=30)

    before = kube.request("GET", f"{DEPLOYMENTS}/{OPERATOR}")["spec"]["replicas"]
    scale(kube, 2)
    try:
        return {"operator_asked_to_stop": measured(system, n, strike, lambda: ready(kube, 2))}
    finally:
        scale(kube, before)


def container_killed(system: System, n: int) -> dict[str, Scenario]:
    """SIGKILL for the process; the kubelet restarts the container in its pod. Each sample has a new pod,
    because the kubelet waits longer with every further restart."""
    kube = system.kube
    try:
        node = Node(kube.kubectl("config", "current-context").stdout.strip())
    except NoNodeError as missing:
        return {"operator_container_killed": {"skipped": str(missing)}}

    def strike() -> None:
        (pod,) = pods_of(kube, OPERATOR)
        node.kill_container(pod["status"]["containerStatuses"][0]["containerID"])

    def renew() -> None:
        wait_replaced(kube, OPERATOR, kill(kube, OPERATOR, grace=0))
        ready(kube, 1)

    renew()
    return {"operator_container_killed": measured(system, n, strike, renew)}


def pod_killed(system: System, n: int) -> dict[str, Scenario]:
    """The pod is gone without a word, and nobody stands by: another pod is made, and waits for the lease."""
    kube = system.kube

    def strike() -> None:
        kill(kube, OPERATOR, grace=0)

    return {"operator_pod_killed": measured(system, n, strike, lambda: ready(kube, 1))}


def measured(system: System, n: int, strike: Callable[[], None], renew: Callable[[], None]) -> Scenario:
    """`n` samples; `renew` puts everything back before the next."""
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
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


def scale(kube: Kube, replicas: int) -> None:
    """So many operators, all ready."""
    kube.request("PATCH", f"{DEPLOYMENTS}/{OPERATOR}/scale", {"spec": {"replicas": replicas}}, MERGE_PATCH)
    ready(kube, replicas)


def ready(kube: Kube, replicas: int) -> None:
    """Wait until just so many operators are there, and ready."""

    def look() -> bool:
        pods = pods_of(kube, OPERATOR)
        return len(pods) == replicas and all(is_ready(pod) and not is_going(pod) for pod in pods)

    eventually(look, f"{replicas} operators are ready")

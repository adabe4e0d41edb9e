"""How long a pool takes to replace a pod, beside a ReplicaSet of the very same pod: what is over the floor
is ours."""

import time
from typing import Any

from bench.figures import Scenario, milliseconds, percentile, summary
from bench.system import Caller, System, time_to_replace
from e2e.deployment import NAMESPACE, PODS
from e2e.kube import Kube, Object, is_going, is_ready
from e2e.waiting import eventually

NAME = "kubecoderun-bench"
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/replicasets"
SELECTOR = f"app={NAME}"
FOREIGN = ("nodeName", "serviceAccount", "priority", "preemptionPolicy", "activeDeadlineSeconds", "hostname")
"""Fields of a running pod that the API server or the scheduler has filled in."""


def pod_ready(system: System, n: int) -> dict[str, Scenario]:
    """Replace one warm pod after another, of the pool and of a ReplicaSet in turn, with both at rest in
    between."""
    kube, replicas = system.kube, system.replicas()
    pool_selector = f"kubecoderun.io/pool={system.pool},kubecoderun.io/state=warm"
    system.rest()
    create_set(kube, kube.pods(system.pool)[0], replicas)
    ours: list[float] = []
    theirs: list[float] = []
    used: list[float] = []
    caller = Caller(system.front_end)
    try:
        for _ in range(n):
            both_rest(system, replicas)
            ours.append(time_to_replace(kube, pool_selector, lambda: delete_one(kube, pool_selector)))
            both_rest(system, replicas)
            theirs.append(time_to_replace(kube, SELECTOR, lambda: delete_one(kube, SELECTOR)))
            both_rest(system, replicas)
            used.append(time_to_replace(kube, pool_selector, lambda: caller.call("print(1)")))
    finally:
        caller.close()
        kube.delete(f"{SETS}/{NAME}")
        eventually(lambda: not kube.items(PODS, labelSelector=SELECTOR), "the ReplicaSet's pods go")
    return {"pod_ready": compared(ours, theirs, used)}


def compared(ours: list[float], theirs: list[float], used: list[float]) -> Scenario:
    """The pool's own figures, the ReplicaSet's median, and how many times as long the pool takes."""
    floor = percentile(theirs, 50)
    return summary(ours) | {
        "replicaset_p50_ms": milliseconds(floor),
        "replicaset_p90_ms": milliseconds(percentile(theirs, 90)),
        "ratio": round(percentile(ours, 50) / floor, 2),
        "after_use_p50_ms": milliseconds(percentile(used, 50)),
    }


def both_rest(system: System, replicas: int) -> None:
    """Wait until the pool and the ReplicaSet are both full and nothing is going away."""
    eventually(lambda: len(full(system.kube)) == replicas, "the ReplicaSet is full")
    system.rest()


def full(kube: Kube) -> list[Object]:
    """The ReplicaSet's pods, or nothing while one of them is not ready or going."""
    pods = kube.items(PODS, labelSelector=SELECTOR)
    return pods if all(is_ready(pod) and not is_going(pod) for pod in pods) else []


def delete_one(kube: Kube, selector: str) -> None:
    """Delete one pod of those a selector names."""
    pod = kube.items(PODS, labelSelector=selector)[0]
    kube.request("DELETE", f"{PODS}/{pod['metadata']['name']}")


def create_set(kube: Kube, pod: Object, replicas: int) -> None:
    """Make the ReplicaSet; one that an interrupted run has left is replaced."""
    kube.delete(f"{SETS}/{NAME}", propagationPolicy="Foreground")
    eventually(lambda: kube.find(f"{SETS}/{NAME}") is None, "an earlier ReplicaSet is gone")
    labels = {"app": NAME}
    template = {"metadata": {"labels": labels}, "spec": template_spec(pod["spec"])}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    kube.request("POST", SETS, {"metadata": {"name": NAME}, "spec": spec})
    began = time.monotonic()
    while len(full(kube)) != replicas and time.monotonic() - began < 120:
        time.sleep(0.5)


def template_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """A pod's spec as a template. A ReplicaSet accepts no other restart policy than Always; all else is the
    same."""
    return {name: value for name, value in spec.items() if name not in FOREIGN} | {"restartPolicy": "Always"}

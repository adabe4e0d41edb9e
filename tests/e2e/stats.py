"""What the kubelets know about memory, asked through the API server: works the same wherever the node is."""

from dataclasses import dataclass
from typing import Any

from e2e.deployment import NAMESPACE
from e2e.kube import Kube, Object, label


@dataclass(frozen=True)
class Memory:
    """Memory of one container in bytes: the working set counts against its limit, RSS is what is anonymous
    in it."""

    namespace: str
    pod: str
    container: str
    working_set: int
    rss: int


def summary(kube: Kube, node: str) -> Object:
    """The kubelet's summary of one node."""
    return kube.request("GET", f"/api/v1/nodes/{node}/proxy/stats/summary")


def memories(stats: Object) -> list[Memory]:
    """Memory of every container in a summary that has been measured at least once."""
    found: list[Memory] = []
    for pod in stats.get("pods", []):
        for container in pod.get("containers", []):
            used: dict[str, Any] = container.get("memory", {})
            if "workingSetBytes" in used:
                ref = pod["podRef"]
                sizes = int(used["workingSetBytes"]), int(used.get("rssBytes", 0))
                found.append(Memory(ref["namespace"], ref["name"], container["name"], *sizes))
    return found


def all_memories(kube: Kube) -> list[Memory]:
    """Memory of every container of the cluster."""
    nodes = [node["metadata"]["name"] for node in kube.items("/api/v1/nodes")]
    return [memory for node in nodes for memory in memories(summary(kube, node))]


def container_memory(kube: Kube, container: str, assigned: bool) -> list[Memory]:
    """Memory of a container in the pods that serve a session, or in those that wait for one."""
    state = "assigned" if assigned else "warm"
    pods = {pod["metadata"]["name"] for pod in kube.pods() if label(pod, "state") == state}
    return [
        memory
        for memory in all_memories(kube)
        if memory.namespace == NAMESPACE and memory.container == container and memory.pod in pods
    ]

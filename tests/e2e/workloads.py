"""The programs of the system as Deployments: their pods, ending them, waiting for others."""

from e2e.deployment import SYSTEM_NAMESPACE, SYSTEM_PODS
from e2e.kube import Kube, Object, is_going, is_ready
from e2e.waiting import eventually

DEPLOYMENTS = "/apis/apps/v1/namespaces/kubecoderun-system/deployments"
OPERATOR = "kubecoderun-operator"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases/{OPERATOR}"


def pods_of(kube: Kube, deployment: str) -> list[Object]:
    """Pods of one of the system's Deployments."""
    spec = kube.request("GET", f"{DEPLOYMENTS}/{deployment}")["spec"]
    selector = ",".join(f"{name}={value}" for name, value in spec["selector"]["matchLabels"].items())
    return kube.items(SYSTEM_PODS, labelSelector=selector)


def kill(kube: Kube, deployment: str, grace: int) -> set[str]:
    """Delete every pod of a Deployment; returns their UIDs. With no grace the process gets no chance to say
    goodbye."""
    pods = pods_of(kube, deployment)
    assert pods
    for pod in pods:
        kube.delete(f"{SYSTEM_PODS}/{pod['metadata']['name']}", gracePeriodSeconds=grace)
    return {pod["metadata"]["uid"] for pod in pods}


def leader(kube: Kube) -> str:
    """Name of the pod of the operator that holds the Lease; empty if nobody does."""
    holder = kube.request("GET", LEASE)["spec"].get("holderIdentity") or ""
    return str(holder).partition("_")[0]


def kill_leader(kube: Kube, grace: int) -> str:
    """Delete the pod of the operator that leads; returns its name."""
    name = eventually(lambda: leader(kube), "an operator leads")
    kube.delete(f"{SYSTEM_PODS}/{name}", gracePeriodSeconds=grace)
    return name


def wait_ready(kube: Kube, deployment: str) -> None:
    """Wait until a Deployment has just as many pods as it wants, all of them ready."""

    def look() -> bool:
        wanted = kube.request("GET", f"{DEPLOYMENTS}/{deployment}")["spec"]["replicas"]
        pods = pods_of(kube, deployment)
        return len(pods) == wanted and all(is_ready(pod) and not is_going(pod) for pod in pods)

    eventually(look, f"all pods of {deployment} are ready")


def wait_replaced(kube: Kube, deployment: str, old: set[str]) -> None:
    """Wait until other pods of the Deployment are ready."""

    def look() -> bool:
        pods = [pod for pod in pods_of(kube, deployment) if not is_going(pod)]
        return bool(pods) and all(is_ready(pod) and pod["metadata"]["uid"] not in old for pod in pods)

    eventually(look, f"{deployment} is replaced")

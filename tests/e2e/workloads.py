"""The programs of the system as Deployments: their pods, ending them, waiting for others."""

from e2e.deployment import SYSTEM_PODS
from e2e.kube import Kube, Object, is_going, is_ready
from e2e.waiting import eventually

DEPLOYMENTS = "/apis/apps/v1/namespaces/kubecoderun-system/deployments"


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


def wait_replaced(kube: Kube, deployment: str, old: set[str]) -> None:
    """Wait until other pods of the Deployment are ready."""

    def look() -> bool:
        pods = [pod for pod in pods_of(kube, deployment) if not is_going(pod)]
        return bool(pods) and all(is_ready(pod) and pod["metadata"]["uid"] not in old for pod in pods)

    eventually(look, f"{deployment} is replaced")

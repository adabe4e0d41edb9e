"""Takes a running program's pod away, or a part of it, from the node or by the API."""

from collections.abc import Callable

from e2e.deployment import PODS
from e2e.kube import Kube
from e2e.node import Node

Strike = Callable[[str], None]
"""Given the name of a pod."""


def strikes(kube: Kube, node: Node | None) -> dict[str, Strike]:
    """By the reason that a session ends with. Without access to the node only the first is possible."""

    def container(name: str) -> Strike:
        def kill(pod: str) -> None:
            assert node is not None
            statuses = kube.request("GET", f"{PODS}/{pod}")["status"]["containerStatuses"]
            node.kill_container(next(each["containerID"] for each in statuses if each["name"] == name))

        return kill

    found: dict[str, Strike] = {
        "PodLost": lambda pod: kube.delete(f"{PODS}/{pod}", gracePeriodSeconds=0),
    }
    if node is not None:
        found |= {"SidecarLost": container("sidecar"), "RuntimeLost": container("runtime")}
    return found

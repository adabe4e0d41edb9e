"""Pods of the tests' own beside the system, in a namespace of their own: three that listen, one of which no
policy speaks of, and one behind a policy that lets nothing out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from e2e.kube import Kube, Object, is_ready
from e2e.pools import fresh_name
from e2e.reaching import LISTENER, Place
from e2e.waiting import eventually

LISTED: Final = "listed"
UNLISTED: Final = "unlisted"
WALLED: Final = "walled"
ROLES: Final = (LISTED, UNLISTED, WALLED)
ROLE_LABEL: Final = "app"


@dataclass(frozen=True)
class Ground:
    """The pods, by what they are there for."""

    namespace: str
    pods: dict[str, Object]

    def address(self, role: str) -> str:
        """A pod's address."""
        return str(self.pods[role]["status"]["podIP"])

    def place(self, role: str) -> Place:
        """A pod as a place where connections come from."""
        return Place.of(self.pods[role], "listener")

    def container(self, role: str) -> str:
        """containerID of a pod's only container."""
        return str(self.pods[role]["status"]["containerStatuses"][0]["containerID"])

    def wall(self, kube: Kube) -> None:
        """The policy that lets nothing out of the walled pod."""
        policy = {
            "metadata": {"name": WALLED},
            "spec": {"podSelector": {"matchLabels": {ROLE_LABEL: WALLED}}, "policyTypes": ["Egress"]},
        }
        path = f"/apis/networking.k8s.io/v1/namespaces/{self.namespace}/networkpolicies"
        kube.request("POST", path, policy)


@contextmanager
def listening(kube: Kube, image: str) -> Iterator[Ground]:
    """The pods, all ready, until the end. `image` has Python and is in the cluster."""
    namespace = fresh_name("kubecoderun-e2e-policies")
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = f"/api/v1/namespaces/{namespace}/pods"
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    try:
        eventually(lambda: kube.find(account), "pods can be made in the new namespace")
        for role in ROLES:
            kube.request("POST", path, _listener(role, image))

        def ready() -> list[Object]:
            pods = kube.items(path)
            assert all(is_ready(pod) for pod in pods), [pod["status"] for pod in pods]
            return pods

        pods = eventually(ready, "the tests' own pods are ready")
        yield Ground(namespace, {pod["metadata"]["name"]: pod for pod in pods})
    finally:
        kube.delete(f"/api/v1/namespaces/{namespace}")


def _listener(role: str, image: str) -> Object:
    context = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    ports = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    return {
        "metadata": {"name": role, "labels": {ROLE_LABEL: role}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"sysctls": ports},
            "containers": [
                {
                    "name": "listener",
                    "image": image,
                    "command": ["python", "-c", LISTENER],
                    "securityContext": context,
                    "readinessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1},
                }
            ],
        },
    }

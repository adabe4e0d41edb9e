"""What is killed, how, and how to tell that it is back.

Containers are killed from the node, as the kernel would; without access to it (any cluster but a development
one) pods are deleted instead, and what has no pod of its own is left out.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import urllib3

from e2e.deployment import PODS, SYSTEM_PODS
from e2e.kube import Kube, KubeError, Object, is_going, is_ready, label
from e2e.node import Node, NoNodeError
from e2e.waiting import eventually
from e2e.workloads import OPERATOR, leader, pods_of

FRONT_END: Final = "kubecoderun-api"
STORE: Final = "kubecoderun-store"
API_SERVER_PODS: Final = "/api/v1/namespaces/kube-system/pods"
API_SERVER_PATIENCE: Final = 15.0
"""Seconds after which the kubelet is restarted, because it holds a crashed API server back for minutes."""
AWAY: Final = (KubeError, urllib3.exceptions.HTTPError, OSError)
"""What a request comes to while the API server is away."""
T = TypeVar("T")
BACK_SECONDS: Final = 120.0
"""Longest time for anything to come back."""


@dataclass(frozen=True)
class Victim:
    """One kind of victim. `strike` says what it did, or "" if there was nothing to strike right now."""

    name: str
    strike: Callable[[], str]
    wait: Callable[[], None]


class Victims:
    """All of a system's victims."""

    def __init__(self, kube: Kube, node: Node | None, pool: str, chance: random.Random) -> None:
        self._kube, self._node, self._pool, self._chance = kube, node, pool, chance
        self._turns: dict[str, int] = {}

    def all(self) -> list[Victim]:
        """Those that can be struck here, in the order in which they are."""
        found = [
            Victim("operator", lambda: self._workload(OPERATOR), lambda: self._wait_workload(OPERATOR)),
            Victim("front end", lambda: self._workload(FRONT_END), lambda: self._wait_workload(FRONT_END)),
            Victim("pod", self._pod, self._wait_pool),
            Victim("store", lambda: self._workload(STORE), lambda: self._wait_workload(STORE)),
        ]
        if self._node is not None:
            found += [
                Victim("sidecar", lambda: self._container("sidecar"), self._wait_pool),
                Victim("runtime", lambda: self._container("runtime"), self._wait_pool),
                Victim("kubelet", self._kubelet, self._wait_pool),
                Victim("api server", self._api_server, self._wait_api_server),
            ]
        return found

    # --- the system's own programs ------------------------------------------------------------------

    def _workload(self, deployment: str) -> str:
        """In turn: its container dies, its pod is gone at once, its pod is asked to stop. The kubelet only
        restarts a container at once the first time, so each pod loses one container at most."""
        turn = self._turns[deployment] = self._turns.get(deployment, -1) + 1
        pods = [pod for pod in pods_of(self._kube, deployment) if not is_going(pod) and is_ready(pod)]
        if deployment == OPERATOR:
            # Nobody would notice the end of one that stands by.
            name = leader(self._kube)
            pods = [pod for pod in pods if pod["metadata"]["name"] == name]
        if not pods:
            return ""
        pod = self._chance.choice(pods)
        if turn % 3 == 0 and self._node is not None and _restarts(pod) == 0:
            self._node.kill_container(_container_id(pod, 0))
            return "container killed"
        grace = 30 if turn % 3 == 2 else 0
        self._kube.delete(f"{SYSTEM_PODS}/{pod['metadata']['name']}", gracePeriodSeconds=grace)
        return "pod asked to stop" if grace else "pod deleted"

    def _wait_workload(self, deployment: str) -> None:
        def look() -> bool:
            pods = [pod for pod in pods_of(self._kube, deployment) if not is_going(pod)]
            return bool(pods) and all(map(is_ready, pods))

        eventually(steadily(look), f"{deployment} is ready", BACK_SECONDS)

    # --- pods of runs -------------------------------------------------------------------------------

    def _some_pod(self) -> Object | None:
        """One with a session, if there is one."""
        pods = [pod for pod in self._kube.pods(self._pool) if not is_going(pod) and is_ready(pod)]
        busy = [pod for pod in pods if label(pod, "state") == "assigned"]
        return self._chance.choice(busy or pods) if pods else None

    def _pod(self) -> str:
        pod = self._some_pod()
        if pod is None:
            return ""
        grace = self._chance.choice((0, 1))
        self._kube.delete(f"{PODS}/{pod['metadata']['name']}", gracePeriodSeconds=grace)
        return f"{label(pod, 'state')} pod deleted"

    def _container(self, name: str) -> str:
        pod = self._some_pod()
        if pod is None or self._node is None:
            return ""
        containers = pod["status"].get("containerStatuses", [])
        number = next(index for index, each in enumerate(containers) if each["name"] == name)
        try:
            self._node.kill_container(_container_id(pod, number))
        except NoNodeError:
            return ""  # it has ended by itself meanwhile
        return f"{name} of {label(pod, 'state')} pod killed"

    def _wait_pool(self) -> None:
        def look() -> bool:
            pods = [pod for pod in self._kube.pods(self._pool) if label(pod, "state") == "warm"]
            return any(is_ready(pod) and not is_going(pod) for pod in pods)

        eventually(steadily(look), f"pool {self._pool} has a ready pod", BACK_SECONDS)

    # --- the cluster's own programs -----------------------------------------------------------------

    def _kubelet(self) -> str:
        assert self._node is not None
        self._node.restart_kubelet()
        return "restarted"

    def _api_server(self) -> str:
        assert self._node is not None
        pods = self._kube.items(API_SERVER_PODS, labelSelector="component=kube-apiserver")
        self._node.kill_container(_container_id(pods[0], 0))
        return "container killed"

    def _wait_api_server(self) -> None:
        assert self._node is not None
        began = time.monotonic()
        while not self._api_server_answers():
            if time.monotonic() - began > API_SERVER_PATIENCE:
                self._node.restart_kubelet()
                break
            time.sleep(0.5)
        eventually(self._api_server_answers, "the API server answers", BACK_SECONDS)
        self._wait_pool()

    def _api_server_answers(self) -> bool:
        try:
            return self._kube.text("/readyz") == "ok"
        except AWAY:
            return False


def steadily(look: Callable[[], T]) -> Callable[[], T]:
    """The same look, for which an API server that does not answer means "not yet" (an AssertionError)."""

    def patient() -> T:
        try:
            return look()
        except AWAY as away:
            raise AssertionError(f"the API server does not answer: {away}") from None

    return patient


def _container_id(pod: Object, number: int) -> str:
    return str(pod["status"]["containerStatuses"][number]["containerID"])


def _restarts(pod: Object) -> int:
    return sum(int(each.get("restartCount", 0)) for each in pod["status"].get("containerStatuses", []))


def chosen(victims: Sequence[Victim], names: Sequence[str]) -> list[Victim]:
    """Victims by name, or all. Raises ValueError for a name that there is not."""
    known = {victim.name: victim for victim in victims}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no such victim here: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(victims)

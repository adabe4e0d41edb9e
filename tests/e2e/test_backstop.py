"""The node ends a pod at its deadline although no operator is there; the next operator knows what it was."""

from collections.abc import Callable

import pytest

from e2e.deployment import PODS
from e2e.kube import MERGE_PATCH, Kube, Object
from e2e.pools import ended, running, session_manifest, wait_at_target
from e2e.waiting import eventually
from e2e.workloads import DEPLOYMENTS, pods_of

pytestmark = pytest.mark.cluster

OPERATOR = "kubecoderun-operator"
TIME_LIMIT = 6
"""Seconds; the operator has to be gone before."""


def scale(kube: Kube, replicas: int) -> None:
    """Ask for so many operators."""
    kube.request("PATCH", f"{DEPLOYMENTS}/{OPERATOR}/scale", {"spec": {"replicas": replicas}}, MERGE_PATCH)


def test_a_pod_ends_at_its_deadline_without_an_operator(
    kube: Kube, full_pool: str, own_session: Callable[[Object], str]
) -> None:
    operators = len(pods_of(kube, OPERATOR))
    code = "import time\nprint('begin', flush=True)\ntime.sleep(600)"
    name = own_session(session_manifest("x-e2e-deadline", full_pool, code, timeoutSeconds=TIME_LIMIT))
    pod = running(kube, name)["status"]["pod"]

    def limited() -> bool:
        return "activeDeadlineSeconds" in kube.request("GET", f"{PODS}/{pod['name']}")["spec"]

    eventually(limited, "the pod has a deadline, a second after the start")
    try:
        scale(kube, 0)
        eventually(lambda: pods_of(kube, OPERATOR) == [], "no operator runs")

        def over() -> Object | None:
            status = kube.request("GET", f"{PODS}/{pod['name']}")["status"]
            assert status["phase"] == "Failed", status["phase"]
            return status

        assert eventually(over, "the node ends the pod", patience=420)["reason"] == "DeadlineExceeded"
        assert kube.session(name)["status"]["phase"] == "Running", "nobody was there to tell"
    finally:
        scale(kube, operators)
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("TimedOut", "TimeLimit")
    assert status["result"]["stdout"] == "begin\n", "the sidecar had stored what there was"
    wait_at_target(kube, full_pool)

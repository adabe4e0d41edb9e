"""What is read out of a pod object."""

from typing import Any

import pytest

from kubecoderun_operator.members import Ending, Trouble, member

LABELS = {
    "kubecoderun.io/pool": "python",
    "kubecoderun.io/pool-uid": "pool-uid",
    "kubecoderun.io/revision": "abc",
    "kubecoderun.io/state": "warm",
}


UNREADY = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:16:40Z"}


def pod(status: dict[str, Any], **meta: Any) -> dict[str, Any]:
    common = {"namespace": "ns", "name": "python-1", "uid": "u1", "resourceVersion": "42", "labels": LABELS}
    runtime = {"name": "runtime", "securityContext": {"runAsUser": 100007}}
    return {
        "metadata": {**common, "creationTimestamp": "2026-01-01T00:00:00Z", **meta},
        "spec": {"nodeName": "n1", "containers": [runtime]},
        "status": status,
    }


def waiting(reason: str, container: str = "runtime") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "why"}}
    return {"phase": "Pending", "containerStatuses": [{"name": container, "image": "img:1", "state": state}]}


def test_a_ready_pod() -> None:
    found = member(
        pod(
            {
                "phase": "Running",
                "podIP": "10.1.2.3",
                "startTime": "2026-01-01T00:00:05Z",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:07Z"}
                ],
            }
        )
    )
    assert found is not None
    assert found.usable
    assert (found.ip, found.node, found.runtime_uid, found.version) == ("10.1.2.3", "n1", 100007, 42)
    assert found.ready_since == found.created + 7
    assert found.started == found.created + 5


@pytest.mark.parametrize(
    "raw", [{"metadata": {"uid": "u", "labels": {}}}, {"metadata": {"labels": LABELS}}, {}]
)
def test_other_pods_are_nobody(raw: dict[str, Any]) -> None:
    assert member(raw) is None


def test_a_pod_without_an_address_or_being_deleted_is_not_usable() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"}
    assert member(pod(ready)).usable  # type: ignore[union-attr]
    assert not member(pod({**ready, "podIP": None})).usable  # type: ignore[union-attr]
    assert not member(pod(ready, deletionTimestamp="2026-01-01T00:00:00Z")).usable  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "trouble", "says"),
    [
        (waiting("ImagePullBackOff"), Trouble.IMAGE, "runtime (img:1): ImagePullBackOff: why"),
        (waiting("ErrImagePull", "sidecar"), Trouble.IMAGE, "sidecar (img:1): ErrImagePull: why"),
        (
            waiting("CreateContainerConfigError"),
            Trouble.CONTAINER,
            "runtime: CreateContainerConfigError: why",
        ),
        (waiting("ContainerCreating"), None, ""),
        (waiting("PodInitializing"), None, ""),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/1 nodes",
                    }
                ],
            },
            Trouble.UNSCHEDULABLE,
            "0/1 nodes",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource"},
            Trouble.ENDED,
            "Evicted: The node was low on resource",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "runtime", "state": {"terminated": {"reason": "Error", "exitCode": 1}}}
                ],
            },
            Trouble.ENDED,
            "runtime ended with Error, exit code 1",
        ),
        ({"phase": "Running"}, None, ""),
    ],
)
def test_trouble(status: dict[str, Any], trouble: Trouble | None, says: str) -> None:
    found = member(pod(status))
    assert found is not None
    assert (found.trouble, found.message) == (trouble, says)


def test_endings_of_containers() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    found = member(
        pod({"containerStatuses": [{"name": "runtime", "state": ended}, {"name": "sidecar", "state": {}}]})
    )
    assert found is not None
    assert found.runtime_ending == Ending("OOMKilled", 137)
    assert found.sidecar_ending is None
    assert found.ended


@pytest.mark.parametrize(
    ("status", "after", "failed"),
    [
        ({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, 119, False),
        ({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, 121, True),
        ({"startTime": "2026-01-01T00:00:00Z", "conditions": [UNREADY]}, 1100, False),
        ({"startTime": "2026-01-01T00:00:00Z", "conditions": [UNREADY]}, 1121, True),
        (waiting("ImagePullBackOff"), 10_000, False),
        ({"phase": "Failed"}, 0, True),
    ],
)
def test_failed_is_what_only_another_pod_cures(status: dict[str, Any], after: float, failed: bool) -> None:
    found = member(pod(status))
    assert found is not None
    assert found.failed(found.created + after, 120.0) is failed

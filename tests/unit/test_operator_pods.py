"""From a pool to its pods, and the patch that gives a pod to a session."""

import json
from typing import Any

import pytest

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_operator.members import member
from kubecoderun_operator.pods import PodDefaults, assignment, backstop, manifest, pick_uid, template

DEFAULTS = PodDefaults(
    sidecar_image="sidecar:1",
    sidecar_pull_policy="IfNotPresent",
    sidecar_resources={"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "96Mi"}},
    port=8790,
    public_keys=("key-a", "key-b"),
    grace_seconds=1,
    first_uid=100_000,
    last_uid=100_009,
)
SPEC: dict[str, Any] = {"runtime": {"image": "python:1", "languages": ["py"]}}


def made(spec: dict[str, Any] | None = None, **changes: Any) -> Any:
    return template(
        "ns", "python", "pool-uid", PoolSpec.model_validate({**(spec or SPEC), **changes}), DEFAULTS
    )


def pod(**changes: Any) -> dict[str, Any]:
    return manifest(made(**changes), "python-abcdefgh", 100_003)


def containers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in found["spec"]["containers"]}


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_labels_and_owner() -> None:
    meta = pod()["metadata"]
    assert meta["labels"] == {
        "kubecoderun.io/pool": "python",
        "kubecoderun.io/pool-uid": "pool-uid",
        "kubecoderun.io/revision": made().revision,
        "kubecoderun.io/state": "warm",
        "kubecoderun.io/network": "None",
    }
    (owner,) = meta["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        "ExecutionPool",
        "python",
        "pool-uid",
        True,
    )


def test_restricted_by_every_rule_of_the_pod_security_standard() -> None:
    found = pod()
    spec = found["spec"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert "activeDeadlineSeconds" not in spec
    assert "shareProcessNamespace" not in spec
    for container in containers(found).values():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsNonRoot"] is True
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])


def test_user_ids() -> None:
    found = containers(pod())
    assert found["sidecar"]["securityContext"]["runAsUser"] == 65532
    assert found["runtime"]["securityContext"]["runAsUser"] == 100_003
    assert found["runtime"]["securityContext"]["runAsGroup"] == 100_003
    assert env(found["sidecar"])["KCR_RUNTIME_UID"] == "100003"
    seen = member({**pod(), "metadata": {**pod()["metadata"], "uid": "u"}})
    assert seen is not None
    assert seen.runtime_uid == 100_003


def test_the_sidecar() -> None:
    sidecar = containers(pod())["sidecar"]
    assert sidecar["image"] == "sidecar:1"
    assert env(sidecar) == {
        "KCR_POD_UID": {"fieldRef": {"fieldPath": "metadata.uid"}},
        "KCR_PUBLIC_KEYS": "key-a,key-b",
        "KCR_CHANNEL": "/run/kubecoderun/runner.sock",
        "KCR_PORT": "8790",
        "KCR_RUNTIME_UID": "100003",
    }
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8790}
    assert sidecar["readinessProbe"]["periodSeconds"] == 1
    assert [mount["mountPath"] for mount in sidecar["volumeMounts"]] == ["/run/kubecoderun"]


def test_the_runtime() -> None:
    runtime = containers(
        pod(
            runtime={
                **SPEC["runtime"],
                "env": [{"name": "A", "value": "costs $(HOME) $5"}],
                "preload": ["numpy"],
            }
        )
    )["runtime"]
    assert runtime["command"] == ["/opt/kubecoderun/bin/runner"]
    assert env(runtime) == {
        "A": "costs $$(HOME) $5",
        "KCR_CHANNEL": "/run/kubecoderun/runner.sock",
        "KCR_WORKSPACE": "/mnt/data",
        "KCR_NETWORK": "None",
        "KCR_LANGUAGES": "py",
        "KCR_PRELOAD": "numpy",
        "KCR_PROCESSES": "512",
        "KCR_OPEN_FILES": "4096",
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in runtime["volumeMounts"]}
    assert mounts == {"channel": "/run/kubecoderun", "data": "/mnt/data", "tmp": "/tmp"}
    assert runtime["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }


@pytest.mark.parametrize(
    ("scratch", "expected"),
    [
        ({}, {"medium": "Memory", "sizeLimit": "256Mi"}),
        ({"medium": "Disk", "size": "2Gi"}, {"sizeLimit": "2Gi"}),
    ],
)
def test_scratch(scratch: dict[str, Any], expected: dict[str, Any]) -> None:
    volumes = pod(runtime={**SPEC["runtime"], "scratch": scratch})["spec"]["volumes"]
    by_name = {volume["name"]: volume["emptyDir"] for volume in volumes}
    assert by_name == {
        "channel": {"medium": "Memory", "sizeLimit": "1Mi"},
        "data": expected,
        "tmp": expected,
    }


def test_allowed_settings_are_passed_on_and_nothing_else() -> None:
    settings = {
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "low",
        "imagePullSecrets": [{"name": "registry"}],
        "hostUsers": False,
        "serviceAccountName": "admin",
        "volumes": [{"name": "x", "hostPath": {"path": "/"}}],
    }
    found = pod(pod=settings, runtime={**SPEC["runtime"], "runtimeClassName": "gvisor"})
    spec = found["spec"]
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["metadata"]["annotations"]["note"] == "b"
    for name in (
        "nodeSelector",
        "tolerations",
        "topologySpreadConstraints",
        "priorityClassName",
        "hostUsers",
    ):
        assert spec[name] == settings[name]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["runtimeClassName"] == "gvisor"
    assert "serviceAccountName" not in spec
    assert [volume["name"] for volume in spec["volumes"]] == ["channel", "data", "tmp"]
    unset = pod()["spec"]
    assert not {"nodeSelector", "tolerations", "runtimeClassName", "priorityClassName", "hostUsers"} & set(
        unset
    )


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(entry) for entry in value] if isinstance(value, list) else value


def test_the_revision_ignores_key_order_and_what_is_not_in_a_pod() -> None:
    spec = {
        "replicas": 3,
        "maxPods": 9,
        "runtime": {"image": "python:1", "languages": ["py"], "env": [{"name": "A", "value": "1"}]},
        "pod": {"labels": {"a": "1", "b": "2"}},
    }
    first = made(spec).revision
    assert len(first) == 10
    assert made(shuffled(spec)).revision == first
    assert made({**spec, "replicas": 7, "onEmpty": {"policy": "Reject"}, "limits": {}}).revision == first
    assert json.dumps(manifest(made(spec), "x", 1)) != json.dumps(manifest(made(spec), "x", 2))


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": {**SPEC["runtime"], "image": "python:2"}},
        {"runtime": {**SPEC["runtime"], "preload": []}},
        {"runtime": {**SPEC["runtime"], "resources": {"limits": {"memory": "2Gi"}}}},
        {"network": "Unmanaged"},
        {"limits": {"maxProcesses": 64}},
        {"limits": {"maxOpenFiles": 128}},
        {"pod": {"labels": {"a": "1"}}},
    ],
)
def test_the_revision_changes_with_the_pods(change: dict[str, Any]) -> None:
    assert made(**change).revision != made().revision


def test_every_pod_gets_a_user_id_of_its_own_while_the_range_lasts() -> None:
    taken: set[int] = set()
    for _ in range(10):
        taken.add(pick_uid(DEFAULTS, taken))
    assert taken == set(range(100_000, 100_010))
    assert pick_uid(DEFAULTS, taken) in taken


def test_the_assignment_patch() -> None:
    meta, status = {**pod()["metadata"], "uid": "u1"}, {"startTime": "1970-01-01T00:01:40Z"}
    found = member({**pod(), "metadata": meta, "status": status})
    assert found is not None
    patch = assignment(found, "hello", "session-uid", deadline=90, now=130.5)
    by_path = {(entry["op"], entry["path"]): entry["value"] for entry in patch}
    assert patch[0] == {"op": "test", "path": "/metadata/uid", "value": "u1"}
    assert patch[1] == {"op": "test", "path": "/metadata/labels/kubecoderun.io~1state", "value": "warm"}
    assert by_path["replace", "/metadata/labels/kubecoderun.io~1state"] == "assigned"
    assert by_path["add", "/metadata/labels/kubecoderun.io~1session"] == "hello"
    assert by_path["add", "/metadata/labels/kubecoderun.io~1session-uid"] == "session-uid"
    assert by_path["add", "/spec/activeDeadlineSeconds"] == 121
    (owner,) = by_path["add", "/metadata/ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("ExecutionSession", "session-uid")
    assert not any("resourceVersion" in entry["path"] for entry in patch)
    assert backstop(found, deadline=90, now=130.5) == [patch[0], patch[-1]]


@pytest.mark.parametrize(
    ("created", "started", "seconds"),
    [
        ("00:01:00", "00:01:40", 40 + 90),
        # The node's clock is ahead, even of now: to it, the pod has been there for as long as for us.
        ("00:01:00", "05:00:00", 40 + 90),
        # It is behind: the node counts from the moment that it has noted itself.
        ("00:01:00", "00:00:10", 90 + 90),
        ("00:01:00", None, 40 + 90),
    ],
)
def test_a_deadline_never_comes_early_however_wrong_clocks_are(
    created: str, started: str | None, seconds: int
) -> None:
    meta = {**pod()["metadata"], "uid": "u1", "creationTimestamp": f"1970-01-01T{created}Z"}
    status = {"startTime": f"1970-01-01T{started}Z"} if started else {}
    found = member({**pod(), "metadata": meta, "status": status})
    assert found is not None
    assert backstop(found, deadline=90, now=100)[1]["value"] == seconds

"""From a pool to its pods: the manifest, its revision, and the patch that gives a pod to a session. Pure."""

import hashlib
import json
import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.pool import PoolSpec
from kubecoderun_operator.members import RUNTIME_CONTAINER, SIDECAR_CONTAINER, Member

CHANNEL_FOLDER: Final = "/run/kubecoderun"
CHANNEL: Final = f"{CHANNEL_FOLDER}/runner.sock"
WORKSPACE: Final = "/mnt/data"
RUNNER: Final = "/opt/kubecoderun/bin/runner"
SIDECAR_UID: Final = 65532
SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"

JsonObject = dict[str, Any]
JsonPatch = list[JsonObject]


@dataclass(frozen=True, slots=True)
class PodDefaults:
    """What all pods have in common, from the operator's settings."""

    sidecar_image: str
    sidecar_pull_policy: str
    sidecar_resources: Mapping[str, Mapping[str, str]]
    port: int
    public_keys: tuple[str, ...]
    grace_seconds: int
    first_uid: int
    last_uid: int


@dataclass(frozen=True, slots=True)
class Template:
    """A pool's pods, rendered but for what differs from pod to pod."""

    namespace: str
    pool: str
    pool_uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    revision: str
    """10 hexadecimal digits; equal for templates that make equal pods, whatever the order of their keys."""


def template(namespace: str, name: str, uid: str, spec: PoolSpec, defaults: PodDefaults) -> Template:
    """Render a pool. The revision covers everything that ends up in a pod, also the operator's own
    settings."""
    labels = {**spec.pod.labels, names.LABEL_NETWORK: spec.network}
    annotations = {SAFE_TO_EVICT: "true", **spec.pod.annotations}
    rendered = _pod_spec(spec, defaults)
    canonical = json.dumps([labels, annotations, rendered], sort_keys=True, separators=(",", ":"))
    revision = hashlib.sha256(canonical.encode()).hexdigest()[:10]
    return Template(namespace, name, uid, labels, annotations, rendered, revision)


def manifest(made: Template, pod_name: str, runtime_uid: int) -> JsonObject:
    """The pod to create. It belongs to the pool until a session takes it over."""
    spec = dict(made.spec)
    spec["containers"] = [_with_uid(container, runtime_uid) for container in made.spec["containers"]]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name,
            "namespace": made.namespace,
            "labels": {
                **made.labels,
                names.LABEL_POOL: made.pool,
                names.LABEL_POOL_UID: made.pool_uid,
                names.LABEL_REVISION: made.revision,
                names.LABEL_STATE: str(names.PodState.WARM),
            },
            "annotations": dict(made.annotations),
            "ownerReferences": [_owner(names.POOL_KIND, made.pool, made.pool_uid)],
        },
        "spec": spec,
    }


def pick_uid(defaults: PodDefaults, taken: Collection[int]) -> int:
    """A user id for a new pod's programs that no other known pod has, as long as the range has room.

    Limits on processes count per user id and node, so pods should not share one.
    """
    size = defaults.last_uid - defaults.first_uid + 1
    start = random.randrange(size)  # spreads ids, keeps no secret
    for step in range(min(size, len(taken) + 1)):
        uid = defaults.first_uid + (start + step) % size
        if uid not in taken:
            return uid
    return defaults.first_uid + start


def assignment(member: Member, session_name: str, session_uid: str, deadline: float, now: float) -> JsonPatch:
    """Write down in a pod that the session has it: labels, owner, and a deadline as for `backstop`. The API
    server refuses it for another pod of that name or another state.
    """
    patch: JsonPatch = [
        {"op": "test", "path": "/metadata/uid", "value": member.uid},
        {"op": "test", "path": _label(names.LABEL_STATE), "value": str(names.PodState.WARM)},
        {"op": "replace", "path": _label(names.LABEL_STATE), "value": str(names.PodState.ASSIGNED)},
        {"op": "add", "path": _label(names.LABEL_SESSION), "value": session_name},
        {"op": "add", "path": _label(names.LABEL_SESSION_UID), "value": session_uid},
        {"op": "add", "path": f"/metadata/annotations/{_pointer(SAFE_TO_EVICT)}", "value": "false"},
        {
            "op": "add",
            "path": "/metadata/ownerReferences",
            "value": [_owner(names.SESSION_KIND, session_name, session_uid)],
        },
    ]
    return [*patch, _deadline(member, deadline, now)]


def backstop(member: Member, deadline: float, now: float) -> JsonPatch:
    """Let the node end the pod `deadline` seconds from now, even if no operator is there."""
    return [{"op": "test", "path": "/metadata/uid", "value": member.uid}, _deadline(member, deadline, now)]


def _deadline(member: Member, deadline: float, now: float) -> JsonObject:
    """The node counts from the pod's own start, by its own clock. Where that is ahead of ours, the start
    seems to be too late: then the time at which the API server has created the pod counts, or a run would be
    ended before its time."""
    began = min((moment for moment in (member.started, member.created) if moment), default=now)
    age = max(0.0, now - began)
    return {"op": "add", "path": "/spec/activeDeadlineSeconds", "value": math.ceil(age + deadline)}


def _owner(kind: str, name: str, uid: str) -> JsonObject:
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _label(key: str) -> str:
    return f"/metadata/labels/{_pointer(key)}"


def _pointer(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _with_uid(container: Mapping[str, Any], uid: int) -> JsonObject:
    if container["name"] == SIDECAR_CONTAINER:
        env = [*container["env"], {"name": "KCR_RUNTIME_UID", "value": str(uid)}]
        return {**container, "env": env}
    return {**container, "securityContext": _security(uid)}


def _pod_spec(spec: PoolSpec, defaults: PodDefaults) -> JsonObject:
    pod = spec.pod
    made: JsonObject = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": defaults.grace_seconds,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_sidecar(defaults), _runtime(spec)],
        "volumes": [
            {"name": "channel", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "data", "emptyDir": _scratch(spec)},
            {"name": "tmp", "emptyDir": _scratch(spec)},
        ],
    }
    settings = pod.as_dict()
    for field in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "imagePullSecrets"):
        if settings.get(field):
            made[field] = settings[field]
    optional = {
        "runtimeClassName": spec.runtime.runtime_class_name,
        "priorityClassName": pod.priority_class_name,
        "hostUsers": pod.host_users,
    }
    made.update({field: value for field, value in optional.items() if value is not None})
    return made


def _sidecar(defaults: PodDefaults) -> JsonObject:
    return {
        "name": SIDECAR_CONTAINER,
        "image": defaults.sidecar_image,
        "imagePullPolicy": defaults.sidecar_pull_policy,
        "ports": [{"name": "sidecar", "containerPort": defaults.port}],
        "env": [
            {"name": "KCR_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "KCR_PUBLIC_KEYS", "value": ",".join(defaults.public_keys)},
            {"name": "KCR_CHANNEL", "value": CHANNEL},
            {"name": "KCR_PORT", "value": str(defaults.port)},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": defaults.port},
            "periodSeconds": 1,
            # A node that is busy answers late; a sidecar that is dead has ended its container.
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "resources": {kind: dict(amounts) for kind, amounts in defaults.sidecar_resources.items()},
        "securityContext": _security(SIDECAR_UID),
        "volumeMounts": [{"name": "channel", "mountPath": CHANNEL_FOLDER}],
    }


def _runtime(spec: PoolSpec) -> JsonObject:
    runtime = spec.runtime
    env = {
        "KCR_CHANNEL": CHANNEL,
        "KCR_WORKSPACE": WORKSPACE,
        "KCR_NETWORK": spec.network,
        "KCR_LANGUAGES": ",".join(runtime.languages),
        "KCR_PRELOAD": ",".join(runtime.preload),
        "KCR_PROCESSES": str(spec.limits.max_processes),
        "KCR_OPEN_FILES": str(spec.limits.max_open_files),
    }
    # Ours come last: of two equal names in a pod the last one counts.
    pool_env = [{"name": entry.name, "value": _literal(entry.value)} for entry in runtime.env]
    return {
        "name": RUNTIME_CONTAINER,
        "image": runtime.image,
        "imagePullPolicy": runtime.image_pull_policy,
        "command": [RUNNER],
        "env": pool_env + [{"name": name, "value": value} for name, value in env.items()],
        "resources": runtime.resources.as_dict(),
        "volumeMounts": [
            {"name": "channel", "mountPath": CHANNEL_FOLDER},
            {"name": "data", "mountPath": WORKSPACE},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


def _literal(value: str) -> str:
    """Kubernetes expands $(NAME) in values; a doubled dollar sign stands for itself."""
    return value.replace("$(", "$$(")


def _scratch(spec: PoolSpec) -> JsonObject:
    made: JsonObject = {"sizeLimit": spec.runtime.scratch.size}
    if spec.runtime.scratch.medium == "Memory":
        made["medium"] = "Memory"
    return made


def _security(uid: int) -> JsonObject:
    return {
        "runAsUser": uid,
        "runAsGroup": uid,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }

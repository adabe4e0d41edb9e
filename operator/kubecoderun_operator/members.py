"""A pod of a pool, reduced to what decisions need. Pure: pod objects in, plain data out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from kubecoderun_crds import names

RUNTIME_CONTAINER: Final = "runtime"
SIDECAR_CONTAINER: Final = "sidecar"

OOM_KILLED: Final = "OOMKilled"

_IMAGE_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONTAINER_REASONS: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "StartError",
    }
)


class Trouble(StrEnum):
    """Why a pod does not become ready. Only some of these are cured by another pod, see `Member.failed`."""

    UNSCHEDULABLE = "Unschedulable"
    IMAGE = "Image"
    CONTAINER = "Container"
    ENDED = "Ended"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a container of a pod ended."""

    reason: str
    exit_code: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One pod as last seen. Times are seconds since 1970."""

    namespace: str
    name: str
    uid: str
    pool: str
    pool_uid: str
    revision: str
    state: str
    """The label `kubecoderun.io/state`; empty if it is missing."""
    version: int
    """resourceVersion, to tell an old view from a new one; 0 if it is not a number."""
    created: float
    session_uid: str = ""
    session: str = ""
    """Name of the session."""
    ip: str = ""
    node: str = ""
    runtime_uid: int = 0
    started: float | None = None
    """When the kubelet took over; activeDeadlineSeconds counts from here."""
    limited: bool = False
    """Whether the node ends the pod at a deadline."""
    ready: bool = False
    ready_since: float | None = None
    unready_since: float | None = None
    deleting: bool = False
    trouble: Trouble | None = None
    message: str = ""
    """About the trouble, in the words of the node."""
    pod_reason: str = ""
    """status.reason of the pod: Evicted, DeadlineExceeded, NodeLost, ..."""
    runtime_ending: Ending | None = None
    sidecar_ending: Ending | None = None

    @property
    def ended(self) -> bool:
        """A container has ended for good. With restartPolicy Never, such a pod serves nobody again."""
        return self.trouble is Trouble.ENDED

    @property
    def usable(self) -> bool:
        """Ready to serve a session, as far as the pod itself goes."""
        return self.ready and not self.deleting and not self.ended and bool(self.ip)

    def failed(self, now: float, ready_grace: float) -> bool:
        """Only another pod can help: this one ended, or has not been ready for ready_grace seconds.

        Pods that wait for a node or an image are not failed: the scheduler and the kubelet go on trying.
        """
        if self.ended:
            return True
        waits = self.trouble in (Trouble.UNSCHEDULABLE, Trouble.IMAGE)
        return not self.ready and not waits and self.node != "" and now - self.waiting_since > ready_grace

    @property
    def waiting_since(self) -> float:
        """Since when a pod that is not ready could be expected to be."""
        return max(self.created, self.started or 0.0, self.unready_since or 0.0)


def member(pod: Mapping[str, Any]) -> Member | None:
    """The pod as a member, or None for a pod that carries no pool label or no uid."""
    meta = pod.get("metadata") or {}
    labels = meta.get("labels") or {}
    if names.LABEL_POOL not in labels or not meta.get("uid"):
        return None
    spec = pod.get("spec") or {}
    status = pod.get("status") or {}
    conditions = {entry.get("type"): entry for entry in status.get("conditions") or ()}
    containers = {entry.get("name"): entry for entry in status.get("containerStatuses") or ()}
    ready = conditions.get("Ready") or {}
    trouble, message = _trouble(status, conditions, containers)
    is_ready = ready.get("status") == "True"
    return Member(
        namespace=meta.get("namespace", ""),
        name=meta.get("name", ""),
        uid=meta["uid"],
        pool=labels[names.LABEL_POOL],
        pool_uid=labels.get(names.LABEL_POOL_UID, ""),
        revision=labels.get(names.LABEL_REVISION, ""),
        state=labels.get(names.LABEL_STATE, ""),
        version=version_of(meta),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        session_uid=labels.get(names.LABEL_SESSION_UID, ""),
        session=labels.get(names.LABEL_SESSION, ""),
        ip=status.get("podIP") or "",
        node=spec.get("nodeName") or "",
        runtime_uid=_runtime_uid(spec),
        started=seconds(status.get("startTime")),
        limited=spec.get("activeDeadlineSeconds") is not None,
        ready=is_ready,
        ready_since=seconds(ready.get("lastTransitionTime")) if is_ready else None,
        unready_since=None if is_ready else seconds(ready.get("lastTransitionTime")),
        deleting=bool(meta.get("deletionTimestamp")),
        trouble=trouble,
        message=message,
        pod_reason=status.get("reason") or "",
        runtime_ending=_ending(containers.get(RUNTIME_CONTAINER)),
        sidecar_ending=_ending(containers.get(SIDECAR_CONTAINER)),
    )


def seconds(text: str | None) -> float | None:
    """An RFC 3339 time as seconds since 1970; None for no time."""
    return datetime.fromisoformat(text).timestamp() if text else None


def version_of(meta: Mapping[str, Any]) -> int:
    """The resourceVersion as a number, which says only which of two views is newer; 0 if it is not one."""
    text = str(meta.get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def _trouble(
    status: Mapping[str, Any], conditions: Mapping[Any, Any], containers: Mapping[Any, Any]
) -> tuple[Trouble | None, str]:
    if status.get("phase") in ("Failed", "Succeeded"):
        said = status.get("message") or _first_ending(containers) or ""
        return Trouble.ENDED, f"{status.get('reason') or status['phase']}: {said}".rstrip(": ")
    if ended := _first_ending(containers):
        return Trouble.ENDED, ended
    for name, container in containers.items():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _IMAGE_REASONS:
            image = container.get("image", "")
            return Trouble.IMAGE, f"{name} ({image}): {reason}: {waiting.get('message', '')}".rstrip(": ")
        if reason in _CONTAINER_REASONS:
            return Trouble.CONTAINER, f"{name}: {reason}: {waiting.get('message', '')}".rstrip(": ")
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble.UNSCHEDULABLE, scheduled.get("message", "")
    return None, ""


def _first_ending(containers: Mapping[Any, Any]) -> str:
    for name, container in containers.items():
        ending = _ending(container)
        if ending is not None:
            said = f": {ending.message}" if ending.message else ""
            return f"{name} ended with {ending.reason}, exit code {ending.exit_code}{said}"
    return ""


def _ending(container: Mapping[str, Any] | None) -> Ending | None:
    ended = ((container or {}).get("state") or {}).get("terminated")
    if not ended:
        return None
    return Ending(ended.get("reason") or "Unknown", int(ended.get("exitCode", 0)), ended.get("message") or "")


def _runtime_uid(spec: Mapping[str, Any]) -> int:
    for container in spec.get("containers") or ():
        if container.get("name") == RUNTIME_CONTAINER:
            return int((container.get("securityContext") or {}).get("runAsUser") or 0)
    return 0

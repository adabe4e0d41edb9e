"""Closed lists: phases of a session, why it ended, and why a pool's conditions are as they are.

Programs decide by these values, people read the meanings. The API server refuses a session with a phase or
reason that is not listed here.
"""

from enum import StrEnum
from typing import Final

from kubecoderun_crds.names import PoolCondition


class Mode(StrEnum):
    """What a session is for."""

    RUN = "Run"
    FILES = "Files"
    WORKSPACE = "Workspace"


class Phase(StrEnum):
    """Where a session is in its life. An absent phase means the same as Pending."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    CANCELLED = "Cancelled"
    HELD = "Held"


class StartType(StrEnum):
    """How a session came by its pod."""

    WARM = "Warm"
    WAITED = "Waited"


class Reason(StrEnum):
    """`status.reason` of a session."""

    WAITING_FOR_POD = "WaitingForPod"
    WAITING_FOR_TURN = "WaitingForTurn"
    WAITING_FOR_TOOLS = "WaitingForTools"
    SUCCEEDED = "Succeeded"
    NON_ZERO_EXIT = "NonZeroExit"
    SIGNALLED = "Signalled"
    TIME_LIMIT = "TimeLimit"
    TOOL_WAIT_EXPIRED = "ToolWaitExpired"
    OOM_KILLED = "OOMKilled"
    OUTPUT_LIMIT = "OutputLimit"
    DISK_FULL = "DiskFull"
    PROCESS_LIMIT = "ProcessLimit"
    OPEN_FILES_LIMIT = "OpenFilesLimit"
    RUNTIME_LOST = "RuntimeLost"
    SIDECAR_LOST = "SidecarLost"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    CANCELLED = "Cancelled"
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_EMPTY = "PoolEmpty"
    WAIT_EXPIRED = "WaitExpired"
    LANGUAGE_NOT_IN_POOL = "LanguageNotInPool"
    INVALID_REQUEST = "InvalidRequest"
    CODE_UNAVAILABLE = "CodeUnavailable"
    INPUT_UNAVAILABLE = "InputUnavailable"
    STORE_UNAVAILABLE = "StoreUnavailable"
    OPERATOR_ERROR = "OperatorError"
    FILES_HELD = "FilesHeld"
    WORKSPACE_NOT_FOUND = "WorkspaceNotFound"
    WORKSPACE_BUSY = "WorkspaceBusy"
    WORKSPACE_ENDED = "WorkspaceEnded"
    IDLE_TIMEOUT = "IdleTimeout"
    MAX_LIFETIME = "MaxLifetime"


class PoolReason(StrEnum):
    """`reason` of a pool's conditions; `POOL_CONDITION_REASONS` says which condition uses which."""

    ACCEPTED = "Accepted"
    NOT_CHECKED = "NotChecked"
    TEMPLATE_REJECTED = "TemplateRejected"
    PODS_READY = "PodsReady"
    NO_READY_PODS = "NoReadyPods"
    SCALED_TO_ZERO = "ScaledToZero"
    COMPLETE = "Complete"
    CREATING_PODS = "CreatingPods"
    ROLLING_OUT = "RollingOut"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_FAILING = "PodsFailing"
    NETWORK_POLICY_FAILED = "NetworkPolicyFailed"
    AT_MAX_PODS = "AtMaxPods"
    PACED = "Paced"
    NOTHING_WAITING = "NothingWaiting"


class EventReason(StrEnum):
    """`reason` of the Events that the operator posts; all are about a pool."""

    TEMPLATE_REJECTED = "TemplateRejected"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NETWORK_POLICY_FAILED = "NetworkPolicyFailed"
    PODS_FAILING = "PodsFailing"
    AT_MAX_PODS = "AtMaxPods"
    RECOVERED = "Recovered"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    SIDECAR_LOST = "SidecarLost"
    RUNTIME_LOST = "RuntimeLost"


TERMINAL_PHASES: Final = frozenset(
    {Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.CANCELLED, Phase.HELD}
)
"""A session in one of these never changes its phase, reason, result or files again."""

NON_TERMINAL_REASONS: Final = frozenset(
    {Reason.WAITING_FOR_POD, Reason.WAITING_FOR_TURN, Reason.WAITING_FOR_TOOLS}
)
"""Reasons of a session that has not ended."""


def phase_of(reason: Reason) -> Phase:
    """The terminal phase for the reason of an end. Raises ValueError for a reason that ends nothing."""
    if reason in NON_TERMINAL_REASONS:
        raise ValueError(f"{reason} does not end a session")
    return _PHASE_OF.get(reason, Phase.FAILED)


_PHASE_OF: Final = {
    Reason.SUCCEEDED: Phase.SUCCEEDED,
    Reason.TIME_LIMIT: Phase.TIMED_OUT,
    Reason.TOOL_WAIT_EXPIRED: Phase.TIMED_OUT,
    Reason.CANCELLED: Phase.CANCELLED,
    Reason.FILES_HELD: Phase.HELD,
    Reason.IDLE_TIMEOUT: Phase.TIMED_OUT,
    Reason.MAX_LIFETIME: Phase.TIMED_OUT,
}

MODE_MEANINGS: Final[dict[Mode, str]] = {
    Mode.RUN: "runs a program in a pod of a pool",
    Mode.FILES: "runs nothing and keeps files for other sessions",
    Mode.WORKSPACE: "owns a pod, in which the runs that name it take turns",
}

PHASE_MEANINGS: Final[dict[Phase, str]] = {
    Phase.PENDING: "accepted by the API server, not yet seen by the operator",
    Phase.QUEUED: "seen by the operator, waits for a pod",
    Phase.RUNNING: "it has a pod, in which the program is about to start or runs",
    Phase.ACTIVE: "a session of mode Workspace that has its pod",
    Phase.SUCCEEDED: "the program ended with exit code 0",
    Phase.FAILED: "the program ended otherwise, or could not be run; the reason says which",
    Phase.TIMED_OUT: "the program was killed at its time limit, or the workspace came to its own",
    Phase.CANCELLED: "ended on request",
    Phase.HELD: "a session of mode Files, whose files can be used",
}

REASON_MEANINGS: Final[dict[Reason, str]] = {
    Reason.WAITING_FOR_POD: "no pod of the pool is free yet",
    Reason.WAITING_FOR_TURN: "another run is in progress in the workspace, or comes first",
    Reason.WAITING_FOR_TOOLS: "the program waits for results of its tool calls",
    Reason.SUCCEEDED: "exit code 0",
    Reason.NON_ZERO_EXIT: "the program ended with another exit code",
    Reason.SIGNALLED: "the program was ended by a signal that was not ours",
    Reason.TIME_LIMIT: "the program ran longer than its time limit and was killed",
    Reason.TOOL_WAIT_EXPIRED: "the results of tool calls did not come in time, and the program was killed",
    Reason.OOM_KILLED: "the program needed more memory than the pod may use",
    Reason.OUTPUT_LIMIT: "the program printed more than the pool's limits.maxPrintedBytes and was killed",
    Reason.DISK_FULL: "the program failed because the scratch space was full",
    Reason.PROCESS_LIMIT: "the program failed because it could not start another process or thread",
    Reason.OPEN_FILES_LIMIT: "the program failed because it had too many files open",
    Reason.RUNTIME_LOST: "the runtime container died or broke its protocol while the program ran",
    Reason.SIDECAR_LOST: "the sidecar of the pod stopped answering while the program ran",
    Reason.POD_LOST: "the pod was deleted, evicted or failed while it belonged to the session",
    Reason.NODE_LOST: "the node of the pod stopped answering",
    Reason.CANCELLED: "spec.cancel was set before the end",
    Reason.POOL_NOT_FOUND: "no pool of that name exists in the namespace",
    Reason.POOL_EMPTY: "no pod was free and the pool says Reject",
    Reason.WAIT_EXPIRED: "no pod became free within the pool's onEmpty.waitSeconds",
    Reason.LANGUAGE_NOT_IN_POOL: "the pool does not offer that language",
    Reason.INVALID_REQUEST: "the request contradicts the pool or itself; the message says how",
    Reason.CODE_UNAVAILABLE: "the object named by codeRef is missing or has another hash",
    Reason.INPUT_UNAVAILABLE: "a file named in inputs does not exist; the message says which and why",
    Reason.STORE_UNAVAILABLE: "the object store did not answer",
    Reason.OPERATOR_ERROR: "a fault of KubeCodeRun itself; the operator's log says more",
    Reason.FILES_HELD: "the session keeps files and has nothing to run",
    Reason.WORKSPACE_NOT_FOUND: "the tenant has no workspace of that name",
    Reason.WORKSPACE_BUSY: "too many runs wait for the workspace, or its turn did not come in time; the "
    "program was not started",
    Reason.WORKSPACE_ENDED: "the workspace ended before the program was started",
    Reason.IDLE_TIMEOUT: "nobody has used the workspace for its idle time",
    Reason.MAX_LIFETIME: "the longest life of the workspace is over",
}

POOL_REASON_MEANINGS: Final[dict[PoolReason, str]] = {
    PoolReason.ACCEPTED: "the API server would create a pod from this template",
    PoolReason.NOT_CHECKED: "the API server has not answered about this template yet",
    PoolReason.TEMPLATE_REJECTED: "the API server refuses pods of this template; the message is its answer",
    PoolReason.PODS_READY: "at least one warm pod is ready",
    PoolReason.NO_READY_PODS: "no warm pod is ready",
    PoolReason.SCALED_TO_ZERO: "no warm pod is wanted: pods are made when sessions wait",
    PoolReason.COMPLETE: "as many pods as wanted are ready, all of the current revision",
    PoolReason.CREATING_PODS: "pods are being created or are starting",
    PoolReason.ROLLING_OUT: "warm pods of an older revision are being replaced",
    PoolReason.IMAGE_PULL_FAILED: "a node cannot get the image; the message names it",
    PoolReason.UNSCHEDULABLE: "no node has room for the pods, or none fits their constraints",
    PoolReason.QUOTA_EXCEEDED: "a ResourceQuota of the namespace is used up",
    PoolReason.PODS_FAILING: "pods start but fail or never become ready",
    PoolReason.NETWORK_POLICY_FAILED: "the pool's NetworkPolicy cannot be made, and no pod without it",
    PoolReason.AT_MAX_PODS: "maxPods pods exist already",
    PoolReason.PACED: "as many pods as startsPerMinute allows have been begun; the next one is due soon",
    PoolReason.NOTHING_WAITING: "no session waits for a pod",
}

_BLOCKED: Final = (
    PoolReason.TEMPLATE_REJECTED,
    PoolReason.IMAGE_PULL_FAILED,
    PoolReason.UNSCHEDULABLE,
    PoolReason.QUOTA_EXCEEDED,
    PoolReason.PODS_FAILING,
    PoolReason.NETWORK_POLICY_FAILED,
)

POOL_CONDITION_REASONS: Final[dict[PoolCondition, dict[str, tuple[PoolReason, ...]]]] = {
    PoolCondition.TEMPLATE_ACCEPTED: {
        "True": (PoolReason.ACCEPTED,),
        "False": (PoolReason.TEMPLATE_REJECTED,),
        "Unknown": (PoolReason.NOT_CHECKED,),
    },
    PoolCondition.AVAILABLE: {
        "True": (PoolReason.PODS_READY,),
        "False": (PoolReason.NO_READY_PODS, PoolReason.SCALED_TO_ZERO),
    },
    PoolCondition.PROGRESSING: {
        "True": (
            PoolReason.COMPLETE,
            PoolReason.CREATING_PODS,
            PoolReason.ROLLING_OUT,
            PoolReason.AT_MAX_PODS,
            PoolReason.PACED,
        ),
        "False": _BLOCKED,
    },
    PoolCondition.STARVED: {
        "True": (PoolReason.CREATING_PODS, PoolReason.AT_MAX_PODS, PoolReason.PACED, *_BLOCKED),
        "False": (PoolReason.NOTHING_WAITING, PoolReason.PODS_READY),
    },
}
"""For each condition type of a pool, the reasons each of its statuses can have."""

NORMAL_EVENTS: Final = frozenset({EventReason.RECOVERED})
"""All others are warnings."""

EVENT_MEANINGS: Final[dict[EventReason, str]] = {
    EventReason.TEMPLATE_REJECTED: "the API server refuses pods of this pool; the message is its answer",
    EventReason.IMAGE_PULL_FAILED: "a node cannot get the image",
    EventReason.UNSCHEDULABLE: "no node takes the pods",
    EventReason.QUOTA_EXCEEDED: "a ResourceQuota of the namespace is used up",
    EventReason.NETWORK_POLICY_FAILED: "the pool's NetworkPolicy cannot be made, and no pod without it",
    EventReason.PODS_FAILING: "pods start but fail or never become ready",
    EventReason.AT_MAX_PODS: "sessions wait although maxPods pods are there",
    EventReason.RECOVERED: "the pool gets pods again",
    EventReason.POD_LOST: "a run was lost with its pod; the message names the session",
    EventReason.NODE_LOST: "a run was lost with its node; the message names the session",
    EventReason.SIDECAR_LOST: "a run was lost with its sidecar; the message names the session",
    EventReason.RUNTIME_LOST: "a run was lost with its runtime container; the message names the session",
}

"""ExecutionPool: warm pods of one kind, ready for sessions.

`PoolSpec.model_validate(raw["spec"])` reads a pool with the same defaults that the API server fills in.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from kubecoderun_crds import names
from kubecoderun_crds.egress import EgressRule
from kubecoderun_crds.fields import (
    ATOMIC_LIST,
    ATOMIC_MAP,
    SET_LIST,
    BigCount,
    Condition,
    Count,
    EnvVar,
    JsonObject,
    LabelMap,
    Language,
    Model,
    Quantity,
    ResourceName,
    ShortText,
    map_list,
    rule,
    rules,
)
from kubecoderun_crds.scheduling import Affinity, Toleration, TopologySpreadConstraint
from kubecoderun_crds.workspaces import PoolWorkspaces

MAX_REPLICAS: Final = 1000
MAX_PODS: Final = 5000
MAX_STARTS_PER_MINUTE: Final = 60_000
MAX_TIMEOUT_SECONDS: Final = 86_400
"""The longest time limit any pool can allow: a day."""
MAX_FILES: Final = 256
"""Most files of one session, and most input files of one run."""
MAX_FILE_BYTES: Final = 2**40
"""The largest file there is, and the most that any pool can allow to be kept of one run."""
MAX_TTL_SECONDS: Final = 30 * 86_400
"""The longest time for which a pool can keep sessions that name no expiry."""

ModuleName = Annotated[
    str,
    Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"),
]

RESERVED_KEYS: Final = (
    # ours: labels decide which pod belongs to whom
    r"([-a-z0-9.]+[.])?kubecoderun[.]io/.*",
    # security profiles of containers by annotation
    r".*(apparmor|seccomp).*",
    # options of container runtimes (devices, user namespaces, host mounts)
    r"io[.]kubernetes[.]cri-o[./].*",
    r"io[.]katacontainers[./].*",
    r"dev[.]gvisor[./].*",
    # further networks, or somebody else's address
    r"(.*[.])?cni[.](cncf[.]io|projectcalico[.]org)/.*",
    # credentials, and containers that other controllers would add
    r"iam[.]amazonaws[.]com/.*",
    r"azure[.]workload[.]identity/.*",
    r"vault[.]hashicorp[.]com/.*",
    r"sidecar[.]istio[.]io/.*",
)
"""Label and annotation keys that a pool must not put on its pods: each weakens what a pod promises."""

_RESERVED_KEYS_RULE: Final = rule(
    f"self.all(key, !key.matches('^({'|'.join(RESERVED_KEYS)})$'))",
    "keys of kubecoderun.io, and keys that change a pod's security, network, credentials or containers, "
    "must not be used",
    "FieldValueForbidden",
)


def _at_most(kind: str) -> str:
    return (
        f"quantity(string(self.resources.requests.{kind}))"
        f".compareTo(quantity(string(self.resources.limits.{kind}))) <= 0"
    )


class ResourceRequests(Model):
    """What the scheduler sets aside for the runtime container."""

    cpu: Quantity = "50m"
    """Processor time; 500m is half a core."""
    memory: Quantity = "128Mi"
    """Memory, files in Memory scratch space included."""


class ResourceLimits(Model):
    """What the runtime container can use at most."""

    cpu: Quantity = "1"
    """Processor time; beyond it the program is slowed down."""
    memory: Quantity = "1Gi"
    """Memory, files in Memory scratch space included; beyond it the program is killed."""


class Resources(Model):
    """Resources of the runtime container."""

    requests: ResourceRequests = ResourceRequests()
    """What the scheduler sets aside for each pod."""
    limits: ResourceLimits = ResourceLimits()
    """What a program can use at most."""


class Scratch(Model):
    """Space for files of the program."""

    medium: Literal["Memory", "Disk"] = "Memory"
    """Memory is fast, counts as memory of the pod, and a full disk is an error the program can handle.
    Disk is the node's; a pod that writes more than the size is evicted."""
    size: Annotated[
        Quantity,
        Field(
            json_schema_extra=rules(
                rule(
                    "quantity(string(self)).compareTo(quantity('1Mi')) >= 0",
                    "scratch space must be 1Mi or more",
                )
            )
        ),
    ] = "256Mi"
    """Size of the working directory /mnt/data, and also of /tmp."""


class Runtime(Model):
    """The container in which programs run."""

    # The rules stand here and not at resources: a default is checked by the rules of its own field first.
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(_at_most("cpu"), "resources.requests.cpu must not be larger than resources.limits.cpu"),
            rule(
                _at_most("memory"),
                "resources.requests.memory must not be larger than resources.limits.memory",
            ),
        )
    )

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")]
    """Image with the runner and the languages."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull the image."""
    languages: Annotated[list[Language], Field(min_length=1, max_length=13, json_schema_extra=SET_LIST)] = (
        Field(default=["py"])
    )
    """Languages the image can run."""
    resources: Resources = Resources()
    """Resources of the container."""
    runtime_class_name: ResourceName | None = None
    """RuntimeClass of the pods, for instance one of gVisor or Kata Containers."""
    scratch: Scratch = Scratch()
    """Space for files of the program."""
    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=map_list("name"))] = Field(
        default_factory=list
    )
    """Environment of all programs; a session's own values win."""
    preload: Annotated[list[ModuleName], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default=["numpy", "pandas", "matplotlib.pyplot"]
    )
    """Python modules that are loaded before a pod is Ready; importing them costs a program nothing."""


class UpdateStrategy(Model):
    """How warm pods follow a changed template. Pods that run a session are never replaced."""

    type: Literal["Rolling", "OnReplenish"] = "Rolling"
    """Rolling replaces warm pods of the old template; OnReplenish uses them up."""
    max_unavailable: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """How many warm pods fewer than replicas may be ready during Rolling."""


class OnEmpty(Model):
    """What happens to a session when no warm pod is ready."""

    policy: Literal["Wait", "Reject"] = "Wait"
    """Wait queues it and makes a pod for it, up to maxPods; Reject ends it with reason PoolEmpty."""
    wait_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    """How long a session waits before it ends with reason WaitExpired."""


class SessionDefaults(Model):
    """Values for sessions that name none."""

    timeout_seconds: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_SECONDS)] = 30
    """Time limit of a program in seconds."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=10, le=604_800)] = 600
    """How long a finished session without files, and so its result, is kept."""
    files_ttl_seconds: Annotated[int, Field(ge=10, le=MAX_TTL_SECONDS)] = 86_400
    """How long a finished session with files, and so its files, is kept."""


class PoolLimits(Model):
    """Bounds that no session of the pool can exceed."""

    max_timeout_seconds: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_SECONDS)] = 300
    """The longest time limit a session can ask for, in seconds."""
    max_output_bytes: Annotated[int, Field(ge=1024, le=1_048_576)] = 65_536
    """How much of stdout, and as much of stderr, is kept: the beginning of stdout, the first three quarters
    and the last quarter of stderr."""
    max_files: Annotated[int, Field(ge=0, le=MAX_FILES)] = 64
    """How many new or changed files of a run are kept; no file is looked for when it is 0."""
    max_file_bytes: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)] = 157_286_400
    """The largest file of a run that is kept, in bytes."""
    max_total_file_bytes: Annotated[int, Field(ge=1, le=MAX_FILE_BYTES)] = 536_870_912
    """How much the files of a run that are kept may have together, in bytes."""
    max_printed_bytes: Annotated[int, Field(ge=1_048_576, le=MAX_FILE_BYTES)] = 2_147_483_648
    """How much a program may write to stdout and stderr together; one that writes more is ended."""
    max_processes: Annotated[int, Field(ge=16, le=32_768)] = 512
    """How many processes and threads there can be in a pod at a time."""
    max_open_files: Annotated[int, Field(ge=64, le=1_048_576)] = 4096
    """How many files, pipes and sockets each process can have open at a time."""


class LocalReference(Model):
    """An object in the pool's namespace."""

    name: ResourceName
    """Its name."""


class PodSettings(Model):
    """The settings of a pod that a pool can choose; everything else is fixed."""

    labels: Annotated[LabelMap, Field(json_schema_extra=rules(_RESERVED_KEYS_RULE))] = Field(
        default_factory=dict
    )
    """Further labels."""
    annotations: Annotated[
        dict[str, ShortText],
        Field(max_length=32, json_schema_extra=rules(_RESERVED_KEYS_RULE)),
    ] = Field(default_factory=dict)
    """Further annotations."""
    node_selector: Annotated[LabelMap, Field(json_schema_extra=ATOMIC_MAP)] = Field(default_factory=dict)
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default_factory=list
    )
    """Taints of nodes that are tolerated."""
    affinity: Affinity | None = None
    """Where pods go, by nodes and by neighbours."""
    topology_spread_constraints: Annotated[
        list[TopologySpreadConstraint],
        Field(max_length=8, json_schema_extra=map_list("topologyKey", "whenUnsatisfiable")),
    ] = Field(default_factory=list)
    """Spreads pods evenly over nodes or zones."""
    priority_class_name: ResourceName | None = None
    """PriorityClass of the pods."""
    image_pull_secrets: Annotated[
        list[LocalReference], Field(max_length=8, json_schema_extra=map_list("name"))
    ] = Field(default_factory=list)
    """Secrets with which nodes pull the image."""
    host_users: bool | None = None
    """false gives each pod a user namespace of its own, where nodes support it."""


class PoolSpec(Model):
    """Desired state."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self.replicas <= self.maxPods", "replicas must not be larger than maxPods"),
            rule(
                "self.sessionDefaults.timeoutSeconds <= self.limits.maxTimeoutSeconds",
                "sessionDefaults.timeoutSeconds must not be larger than limits.maxTimeoutSeconds",
            ),
            rule(
                "self.network == 'Restricted' || size(self.?egress.orValue([])) == 0",
                "egress is for network Restricted only",
            ),
        )
    )

    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 2
    """Warm pods to keep ready. Pods that run sessions do not count."""
    max_pods: Annotated[int, Field(ge=1, le=MAX_PODS)] = 50
    """Bound on all pods of the pool, those that run sessions included."""
    starts_per_minute: Annotated[int, Field(ge=1, le=MAX_STARTS_PER_MINUTE)] | None = None
    """How many pods the pool may begin in a minute, beyond a reserve (`replicas`) at once; sessions wait
    meanwhile. Every run uses up a pod, and making another one costs a small node more than most programs
    do: this bounds it. Absent: as many as are needed."""
    runtime: Runtime
    """The container in which programs run."""
    update_strategy: UpdateStrategy = UpdateStrategy()
    """How warm pods follow a changed template."""
    on_empty: OnEmpty = OnEmpty()
    """What happens to a session when no warm pod is ready."""
    session_defaults: SessionDefaults = SessionDefaults()
    """Values for sessions that name none."""
    limits: PoolLimits = PoolLimits()
    """Bounds that no session of the pool can exceed."""
    workspaces: PoolWorkspaces = PoolWorkspaces()
    """What the pool offers to sessions of mode Workspace."""
    network: Literal["None", "Restricted", "Unmanaged"] = "None"
    """None: programs cannot open any network connection. Restricted: they have localhost, the cluster's DNS
    and what egress lists, in a cluster that enforces network policies. Unmanaged: KubeCodeRun does nothing
    about it, and what programs can reach is up to the cluster."""
    egress: Annotated[list[EgressRule], Field(max_length=16, json_schema_extra=ATOMIC_LIST)] = Field(
        default_factory=list
    )
    """What programs may reach with network Restricted."""
    pod: PodSettings = PodSettings()
    """Settings of the pods."""


class PoolStatus(Model):
    """Observed state, written by the operator."""

    observed_generation: BigCount | None = None
    """The metadata.generation this status is about; never falls."""
    replicas: Count | None = None
    """Warm pods, ready or not."""
    ready_replicas: Count | None = None
    """Warm pods that are ready."""
    updated_replicas: Count | None = None
    """Warm pods of the current revision."""
    assigned_replicas: Count | None = None
    """Pods that run a session."""
    terminating_replicas: Count | None = None
    """Pods that are being deleted."""
    waiting_sessions: Count | None = None
    """Sessions that wait for a pod."""
    revision: Annotated[str, Field(max_length=10, pattern=r"^[0-9a-f]{10}$")] | None = None
    """Hash of the current pod template, also a label of pods."""
    selector: Annotated[str, Field(max_length=512)] | None = None
    """Label selector of the warm pods, for autoscalers."""
    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra=map_list("type"))] = Field(
        default_factory=list
    )
    """TemplateAccepted: the API server would create the pods. Available: a warm pod is ready.
    Progressing: the pool gets to its size and template, or is there.
    Starved: sessions wait and nothing is ready."""


POOL_RULES: Final[tuple[JsonObject, ...]] = (
    rule(
        f"size(self.metadata.name) <= {names.POOL_NAME_MAX_LENGTH}",
        f"the name must not have more than {names.POOL_NAME_MAX_LENGTH} characters: pods are named after it",
    ),
    rule(
        f"self.metadata.name.matches('{names.DNS_LABEL_PATTERN}')",
        "the name must not have dots: it is a label of pods",
    ),
    rule(
        "self.?status.?observedGeneration.orValue(-1) >= oldSelf.?status.?observedGeneration.orValue(-1)",
        "status.observedGeneration must not fall",
    ),
)
"""Rules about the whole object, which also see a status that is removed."""

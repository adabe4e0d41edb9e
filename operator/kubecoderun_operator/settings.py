"""The operator's settings. Each is an environment variable: its name in capitals after `KCR_`.

`docs/operator-settings.md` lists them for people; a test compares the two.
"""

import math
import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kubecoderun_crds import names
from kubecoderun_operator.pods import PodDefaults

Seconds = Annotated[float, Field(gt=0)]
CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Read once at the start; a wrong value ends the program with the name of the variable."""

    model_config = SettingsConfigDict(
        env_prefix="KCR_",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        # An error must not repeat the store's keys.
        hide_input_in_errors=True,
    )

    # --- where -----------------------------------------------------------------------------------
    namespaces: CommaList = ("kubecoderun",)
    """Namespaces with pools, sessions and pods, separated by commas."""
    lease_namespace: str = "kubecoderun-system"
    """Namespace of the Lease that elects the leading operator."""
    lease_name: str = "kubecoderun-operator"
    """Name of that Lease."""
    pod_uid: str = ""
    """UID of the operator's own pod, which tells it from others in the election; host name and process id
    without it."""
    pod_name: str = ""
    """Name of that pod, for people who look at the Lease: it stands before the UID."""
    kubeconfig: Path | None = None
    """File with the cluster's address; without it the service account of the pod, then KUBECONFIG."""
    http_host: str = "0.0.0.0"
    """Address of the port for health checks and metrics."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port for /healthz, /readyz and /metrics."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level of log lines."""

    # --- leadership ------------------------------------------------------------------------------
    lease_seconds: Seconds = 8.0
    """How long others wait for a leader that says nothing, before one of them takes over."""
    lease_renew_deadline: Seconds = 5.0
    """How long a leader that cannot renew its Lease goes on."""
    lease_renew_seconds: Seconds = 2.0
    """Pause between renewals."""
    lease_retry_seconds: Seconds = 1.0
    """Pause after a failed renewal, and between looks at another leader's Lease."""
    drain_seconds: float = Field(default=1.0, ge=0)
    """How long runs may come to their end on SIGTERM; the next leader goes on with the others."""

    # --- pods ------------------------------------------------------------------------------------
    sidecar_image: str = "localhost/kubecoderun-sidecar:dev"
    """Image of the sidecar container in all pods."""
    sidecar_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull it."""
    sidecar_port: int = Field(default=8790, ge=1024, le=65535)
    """Port of the sidecar in all pods."""
    sidecar_cpu_request: str = "10m"
    """Processor time set aside for each sidecar."""
    sidecar_memory_request: str = "32Mi"
    """Memory set aside for each sidecar."""
    sidecar_memory_limit: str = "96Mi"
    """Memory each sidecar can use at most."""
    signing_key_file: Path = Path("/etc/kubecoderun/signing/private.key")
    """File with the key that signs requests to sidecars: base64 of an Ed25519 seed of 32 bytes."""
    other_public_key: str = ""
    """A second public key that new pods accept, base64; for changing the signing key without a gap."""
    runtime_uid_first: int = Field(default=100_000, ge=1000)
    """First user id of the range from which each pod's programs get one."""
    runtime_uid_last: int = Field(default=165_535, ge=1000, lt=2**31)
    """Last user id of that range."""
    pod_grace_seconds: int = Field(default=1, ge=0, le=30)
    """Seconds between SIGTERM and SIGKILL of a deleted pod; 0 removes it without waiting for the node."""
    pod_ready_grace_seconds: Seconds = 120.0
    """A pod that has started but is not ready after this is replaced."""
    pod_deadline_margin_seconds: int = Field(default=60, ge=10)
    """What a run may take beyond its time limit before the node ends its pod, operator or not."""

    # --- pools -----------------------------------------------------------------------------------
    create_expectation_seconds: Seconds = 30.0
    """How long a pod whose creation was not confirmed counts as there."""
    backoff_first_seconds: Seconds = 1.0
    """Pause of a pool after the first pod that fails or cannot be created; doubles with each in a row."""
    backoff_longest_seconds: Seconds = 300.0
    """Longest such pause."""
    quota_pause_seconds: Seconds = 15.0
    """Least pause of a pool whose quota is used up."""
    replacement_delay_seconds: float = Field(default=0.25, ge=0)
    """A pod that a session took is replaced after its answer, or after this time if that comes first."""
    pool_status_seconds: float = Field(default=5.0, ge=0)
    """Least time between two status writes of a pool, unless a condition changes."""

    event_pause_seconds: Seconds = 30.0
    """Least time between two writes of the same Event of a pool; what happens meanwhile is counted."""

    # --- sessions --------------------------------------------------------------------------------
    queued_after_seconds: Seconds = 1.0
    """A session that waits longer gets the phase Queued."""
    running_after_seconds: Seconds = 1.0
    """The pod of a run that takes longer is labelled with its session, and gets a deadline."""
    stored_after_seconds: float = Field(default=1.0, ge=0)
    """The result of a run that takes longer is put into the object store before the answer."""
    pods_tried: int = Field(default=5, ge=1)
    """Pods that may turn out unusable for one session before it ends with OperatorError."""
    tool_wait_seconds: Seconds = 600.0
    """How long a program may wait for the next result of its tool calls; then it is ended."""
    all_tool_waits_seconds: Seconds = 3600.0
    """How long a program may wait for tools altogether; that does not count for its time limit."""
    collect_seconds: int = Field(default=120, ge=10)
    """How long storing the files of a run may take after its end."""
    ttl_seconds: int = Field(default=600, ge=0)
    """How long a finished session without files is kept whose pool is gone; otherwise the pool says."""
    files_ttl_seconds: int = Field(default=86_400, ge=0)
    """How long a session with files is kept that names no expiry and has no pool; otherwise the pool says."""
    sweep_pods_seconds: Seconds = 20.0
    """Pause between two looks for pods whose session or event was missed."""
    sweep_sessions_seconds: Seconds = 60.0
    """Pause between two looks for sessions whose expiry or event was missed."""
    sweep_store_seconds: Seconds = 600.0
    """Pause between two looks for objects in the store whose session is gone."""
    orphan_seconds: int = Field(default=3600, ge=60)
    """Objects of a session that nobody has ever seen are removed when the newest is older than this; uploads
    must not take longer."""
    orphan_share: float = Field(default=0.2, gt=0, le=1)
    """If more than this part of all sessions in the store would go in one look, none goes; 1 for no bound."""

    # --- requests --------------------------------------------------------------------------------
    api_attempt_seconds: Seconds = 2.5
    """Time limit of one attempt of a request to the API server; less than the lease outlives its renewal."""
    api_patience_seconds: Seconds = 15.0
    """How long a request that fails by 429, 5xx or connection is repeated. Results are repeated for ever."""
    sidecar_connect_seconds: Seconds = 1.0
    """Time limit for a connection to a sidecar."""
    sidecar_answer_seconds: Seconds = 5.0
    """Time limit for the answer of a sidecar, except when it fetches code or input files."""
    sidecar_fetch_seconds: Seconds = 120.0
    """Time limit for the answer of a sidecar that fetches code or input files; it is asked three times."""
    sidecar_silence_seconds: Seconds = 5.0
    """A run whose sidecar sends nothing (it sends a heartbeat each second) counts as disconnected after
    this."""
    node_silence_seconds: Seconds = 4.0
    """A pod counts as lost when nothing has come from it for so long and its node takes no connections
    either, tried four times."""
    sidecar_attempts: int = Field(default=5, ge=1)
    """Connections to the sidecar of one run that may break in a row before the run counts as lost."""
    ending_grace_seconds: float = Field(default=3.0, ge=0)
    """How long to wait for the node's word on how a runtime container ended."""

    # --- object store ----------------------------------------------------------------------------
    store_endpoint: str = ""
    """URL of the S3 object store as pods reach it; without it, larger code and results and all files are not
    available."""
    store_region: str = "us-east-1"
    """Its region, needed to sign without asking the store."""
    store_bucket: str = "kubecoderun"
    """Its bucket."""
    store_access_key: SecretStr = SecretStr("")
    """Its access key."""
    store_secret_key: SecretStr = SecretStr("")
    """Its secret key."""
    store_virtual_hosts: bool = False
    """Whether the bucket's name is part of the host name; otherwise of the path."""
    store_uploads: Literal["post", "put"] = "put"
    """How pods upload files: put, by a URL for each; post, by one form for all, where the store reads forms
    without keeping them in memory."""
    store_ca_file: FilePath | None = None
    """CA certificates for an https store; the system's without it."""
    store_seconds: Seconds = 10.0
    """Time limit of one request of the operator to the store."""
    install_id: str = "kubecoderun"
    """What all keys in the bucket begin with; different for installations that share a bucket."""

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.namespaces or not all(names.is_dns_label(name) for name in self.namespaces):
            raise ValueError("namespaces needs at least one namespace, and only valid names")
        if self.runtime_uid_first > self.runtime_uid_last:
            raise ValueError("runtime_uid_first is larger than runtime_uid_last")
        if self.lease_renew_deadline + self.api_attempt_seconds > self.lease_seconds:
            raise ValueError(
                "lease_renew_deadline and api_attempt_seconds together exceed lease_seconds: "
                "a write could reach the API server after another operator took over"
            )
        if not names.is_dns_label(self.install_id):
            raise ValueError("install_id must be a DNS label")
        return self

    @property
    def identity(self) -> str:
        """Who this process is in the election."""
        if self.pod_uid:
            return f"{self.pod_name}_{self.pod_uid}" if self.pod_name else self.pod_uid
        return f"{socket.gethostname()}-{os.getpid()}"

    def longest_run_seconds(self, limit_seconds: int, *, tools: bool = False) -> int:
        """From the start of a program with that time limit to the moment when its pod must be done. tools: it
        may wait for tools."""
        waits = math.ceil(self.all_tool_waits_seconds) if tools else 0
        return limit_seconds + waits + self.collect_seconds + self.pod_deadline_margin_seconds

    def pod_defaults(self, public_key: str) -> PodDefaults:
        """What all pods have in common. public_key: of the key that signs the operator's requests."""
        keys = (public_key, self.other_public_key) if self.other_public_key else (public_key,)
        return PodDefaults(
            sidecar_image=self.sidecar_image,
            sidecar_pull_policy=self.sidecar_image_pull_policy,
            sidecar_resources={
                "requests": {"cpu": self.sidecar_cpu_request, "memory": self.sidecar_memory_request},
                "limits": {"memory": self.sidecar_memory_limit},
            },
            port=self.sidecar_port,
            public_keys=keys,
            grace_seconds=self.pod_grace_seconds,
            first_uid=self.runtime_uid_first,
            last_uid=self.runtime_uid_last,
        )

"""Every setting of the front end, read once at start from environment variables that begin with KCR_."""

import uuid
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kubecoderun_api.auth import networks
from kubecoderun_api.object_writer import MAX_OBJECT_BYTES

MEBIBYTE = 1024 * 1024
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Authentication(StrEnum):
    """Who is served."""

    KEYS = "keys"
    NONE = "none"


class OnDisconnect(StrEnum):
    """What becomes of a session whose client left before the answer."""

    CANCEL = "cancel"
    FINISH = "finish"


class Settings(BaseSettings):
    """Values with their defaults; docs/api-settings.md lists the same in a table."""

    model_config = SettingsConfigDict(
        env_prefix="KCR_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    # --- serving
    host: str = Field(default="0.0.0.0", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65_535, description="port to listen on; 0 takes any free one")
    keep_alive_seconds: int = Field(
        default=75,
        ge=6,
        le=3600,
        description="how long an idle client connection stays open; the clients should give up first",
    )
    max_body_bytes: int = Field(
        default=50 * MEBIBYTE,
        ge=1024,
        le=1024 * MEBIBYTE,
        description="largest accepted request body; above it 413",
    )
    body_seconds: Seconds = Field(default=120.0, description="how long a request body may take; then 408")
    drain_seconds: float = Field(
        default=2.0,
        ge=0,
        le=300,
        description="after SIGTERM: how long to be not ready but still accepting, until that is noticed",
    )
    shutdown_seconds: Seconds = Field(
        default=45.0,
        description="after that: how long open calls may take before they are answered with an error",
    )
    log_level: str = Field(
        default="INFO",
        pattern=r"^(DEBUG|INFO|WARNING|ERROR)$",
        description="least severe log lines that are written",
    )

    # --- authentication
    auth: Authentication = Field(
        default=Authentication.KEYS,
        description="keys: an API key or a token is needed; none: neither is looked at, and only"
        " KCR_OPEN_NETWORKS are served",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="file with one API key or its hash per line, re-read when it changes (http-api.md)",
    )
    open_networks: str | None = Field(
        default=None,
        description="networks (CIDR, separated by commas) whose members need no credential; the socket tells,"
        " never a header. With KCR_AUTH=none the default is the loopback interface",
    )
    jwt_jwks_url: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="address of the public keys that tokens are signed with (a JWK set)",
    )
    jwt_keys_dir: Path | None = Field(
        default=None,
        description="folder with such keys: PEM files named after their kid, or *.json with a JWK or a set",
    )
    jwt_key_seconds: float = Field(
        default=30.0, gt=0, le=300, description="after how long keys for tokens are read again"
    )
    jwt_issuer: str = Field(
        default="librechat", min_length=1, description="who must have issued a token (iss)"
    )
    jwt_audience: str = Field(
        default="codeapi", min_length=1, description="for whom a token must be meant (aud)"
    )
    jwt_algorithms: str = Field(
        default="EdDSA,RS256",
        pattern=r"^(EdDSA|RS256)(,(EdDSA|RS256))*$",
        description="how tokens may be signed: EdDSA, RS256 or both, separated by a comma",
    )
    jwt_max_seconds: int = Field(
        default=300, ge=1, le=300, description="longest validity (exp - iat) of a token that is accepted"
    )
    jwt_leeway_seconds: int = Field(
        default=30, ge=0, le=60, description="how far the clock of who signs tokens may be off"
    )
    jwt_tenant_claim: str = Field(
        default="tenant_id", min_length=1, description="claim of a token that names the tenant"
    )
    jwt_tenant_required: bool = Field(
        default=False, description="refuse tokens that name no tenant, instead of counting them as one tenant"
    )
    jwt_admin_roles: str = Field(
        default="ADMIN",
        description="values of a token's claim role, separated by commas, that may delete all of any user",
    )

    # --- the hang-up policy
    heartbeat: bool = Field(default=True, description="send spaces before the JSON of a slow /exec")
    heartbeat_after_seconds: Seconds = Field(
        default=2.0,
        description="time since the request after which an answer is begun (200) with the first space",
    )
    heartbeat_every_seconds: Seconds = Field(default=1.5, description="time between two spaces")
    close_connections: bool = Field(
        default=True, description="send Connection: close with everything but 2xx of /exec"
    )
    on_disconnect: OnDisconnect = Field(
        default=OnDisconnect.CANCEL,
        description="cancel or finish: what happens to a run whose client has left",
    )

    # --- the cluster
    namespace: Label = Field(
        default="kubecoderun", description="the execution namespace this front end serves"
    )
    replica_uid: Label = Field(
        default_factory=lambda: uuid.uuid4().hex,
        description="label front-end of its sessions; default: random. Must be new for every start",
    )
    cluster_attempt_seconds: Seconds = Field(
        default=5.0, description="time limit of one call of the API server"
    )
    create_seconds: Seconds = Field(
        default=20.0, description="how long creating a session is tried before 503"
    )
    watch_seconds: int = Field(
        default=300, ge=1, le=3600, description="after how long the API server ends a watch (it is renewed)"
    )
    recheck_seconds: Seconds = Field(
        default=10.0,
        description="a session that is waited for is read again after so long, in case a watch loses its end",
    )
    wait_slack_seconds: Seconds = Field(
        default=60.0,
        description="how long past the pool's waiting time plus the time limit an answer is waited for",
    )

    tool_waits_seconds: int = Field(
        default=3600,
        ge=1,
        le=86_400,
        description="how long a program may wait for tools altogether; as the operator's"
        " KCR_ALL_TOOL_WAITS_SECONDS, or longer",
    )

    # --- workspaces
    stateful: bool = Field(
        default=True,
        description="whether runs with the same runtime_session_hint share a workspace; otherwise hints are"
        " ignored, and clients that assert the profile stateful get 409",
    )
    name_key: SecretStr | None = Field(
        default=None,
        description="secret that names of workspaces are derived with, equal for all replicas; none: derived"
        " from the store's secret key",
    )

    # --- too much work
    pod_refill_seconds: float = Field(
        default=0.35,
        ge=0,
        le=600,
        description="estimated time between two new pods; a call that would have to wait longer than its pool"
        " allows gets 429 at once; 0 switches this off",
    )
    retry_after_seconds: int = Field(
        default=5, ge=1, le=3600, description="Retry-After of a 429 after a pool had no pod"
    )

    tenant_runs_per_minute: float = Field(
        default=0.0, ge=0, description="runs that one tenant may begin in a minute; 0: no limit"
    )
    tenant_burst: int = Field(
        default=20, ge=1, description="runs that one tenant may begin at once after a quiet time"
    )
    tenant_runs_at_once: int = Field(
        default=0, ge=0, description="runs of one tenant that may be open at the same time; 0: no limit"
    )
    limit_wait_seconds: float = Field(
        default=1.0,
        ge=0,
        le=1.5,
        description="how long a run is held back that a limit forbids now, before 429",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=100,
        description="front ends behind the Service; each admits its share of what a tenant may do",
    )
    idempotency_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="equal in all front ends: makes names of sessions out of idempotency keys; without it"
        " requests with such a key are refused",
    )

    # --- watching runs
    watchers_at_once: int = Field(
        default=256, ge=0, le=10_000, description="clients that watch a run at once; above it 429"
    )
    relay_url: str | None = Field(
        default=None,
        pattern=r"^http://[^/@?#]+/?$",
        description="address that stands for all operators, which tell the output of runs in progress; "
        "without it watchers see the phase and the result only",
    )
    relay_key_file: Path | None = Field(
        default=None, description="file with the key that is shared with the operators; needed with relay_url"
    )

    # --- files
    max_upload_bytes: int = Field(
        default=150 * MEBIBYTE,
        ge=1,
        le=MAX_OBJECT_BYTES,
        description="largest file of an upload; above it 413",
    )
    upload_seconds: float = Field(
        default=300.0,
        gt=0,
        le=1800,  # the operator takes objects without a session for left behind after an hour
        description="how long an upload may take, with its way into the store; then 504",
    )
    uploads_at_once: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="uploads that are taken in at once, each with up to 16 MiB of memory; others wait",
    )
    download_stall_seconds: Seconds = Field(
        default=60.0, description="a client that takes nothing of a download for so long is given up"
    )
    files_ttl_seconds: int = Field(
        default=90_000,
        ge=60,
        le=30 * 86_400,
        description="how long files are kept after they were last uploaded, used or told to be there",
    )
    files_max_seconds: int = Field(
        default=30 * 86_400,
        ge=60,
        le=365 * 86_400,
        description="how long files are kept at most after their session was made, however much used",
    )

    # --- the object store
    store_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/@?#]+/?$",
        description="S3 endpoint, for files, and for programs and outputs over 16 KiB",
    )
    store_bucket: str = Field(
        default="kubecoderun", min_length=3, max_length=63, description="bucket in the store"
    )
    store_region: str = Field(
        default="us-east-1", min_length=1, description="region that requests are signed for"
    )
    store_access_key: SecretStr | None = Field(
        default=None, description="access key of the store; needed with store_endpoint"
    )
    store_secret_key: SecretStr | None = Field(
        default=None, description="secret key of the store; needed with store_endpoint"
    )
    store_virtual_hosts: bool = Field(
        default=False, description="whether the bucket's name is part of the host name; otherwise of the path"
    )
    store_ca_file: Path | None = Field(
        default=None, description="CA certificates for an https store; none: the system's"
    )
    store_seconds: Seconds = Field(
        default=30.0, description="time limit of one transfer to or from the store, retries included"
    )
    install_id: Label = Field(
        default="kubecoderun", description="first part of every object key; the operator's must be equal"
    )

    def naming_key(self) -> bytes:
        """The secret that names are derived with."""
        secret = self.name_key or self.store_secret_key
        return b"" if secret is None else secret.get_secret_value().encode()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.auth is Authentication.KEYS and not (self.api_keys_file or self.takes_tokens):
            raise ValueError(
                "KCR_API_KEYS_FILE, KCR_JWT_JWKS_URL or KCR_JWT_KEYS_DIR is needed unless KCR_AUTH is none"
            )
        self.networks  # noqa: B018 - raises for what is none
        if self.relay_url is not None and self.relay_key_file is None:
            raise ValueError("KCR_RELAY_URL needs KCR_RELAY_KEY_FILE")
        if self.store_endpoint is not None and (
            self.store_access_key is None or self.store_secret_key is None
        ):
            raise ValueError("KCR_STORE_ENDPOINT needs KCR_STORE_ACCESS_KEY and KCR_STORE_SECRET_KEY")
        return self

    @property
    def takes_tokens(self) -> bool:
        """Whether there are keys that tokens can be checked with."""
        return self.jwt_jwks_url is not None or self.jwt_keys_dir is not None

    @property
    def networks(self) -> tuple[networks.Network, ...]:
        """Networks whose members need no credential. Raises ValueError."""
        if self.open_networks is None:
            return networks.LOOPBACK if self.auth is Authentication.NONE else ()
        try:
            return networks.parse(self.open_networks)
        except ValueError as error:
            raise ValueError(f"KCR_OPEN_NETWORKS: {error}") from None

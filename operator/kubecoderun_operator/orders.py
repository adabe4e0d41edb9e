"""A session as the operator sees it, and what its request comes to in its pool. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from kubecoderun_crds.files import InputReference
from kubecoderun_crds.pool import PoolLimits, PoolSpec
from kubecoderun_crds.reasons import TERMINAL_PHASES, Mode, Reason
from kubecoderun_crds.session import Request, SessionSpec
from kubecoderun_crds.toolcalls import clash, identifier
from kubecoderun_operator.inputs import Input, conflict
from kubecoderun_operator.members import seconds, version_of
from kubecoderun_sidecar.protocol import (
    InlineCode,
    InputFile,
    Limits,
    PrepareRequest,
    SessionRef,
    StoredCode,
    Tool,
)


@dataclass(frozen=True, slots=True)
class Session:
    """A session as last seen. The request is not parsed here: it may be large, and most events are about
    others."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: int
    mode: str
    created: float
    """Seconds since 1970."""
    pool: str
    phase: str
    cancel: bool
    expires_at: float | None
    completed_at: float | None
    status: Mapping[str, Any] = field(repr=False)
    spec: Mapping[str, Any] = field(repr=False)

    @property
    def terminal(self) -> bool:
        return self.phase in TERMINAL_PHASES

    @property
    def request(self) -> Mapping[str, Any]:
        """spec.request as it stands in the resource."""
        request: Mapping[str, Any] = self.spec.get("request") or {}
        return request

    @property
    def named_pod(self) -> str:
        """The uid of the pod that the status names; empty if it names none."""
        return str((self.status.get("pod") or {}).get("uid", ""))

    @property
    def in_workspace(self) -> bool:
        """Whether it is a run in a workspace, whose pod is not its own."""
        return bool(self.request.get("workspaceRef"))

    @property
    def has_tools(self) -> bool:
        """Whether its program may wait for results of tool calls."""
        return bool(self.request.get("tools"))

    def inputs(self) -> dict[str, Mapping[str, Any]]:
        """What the request says of each input, by path."""
        return {entry["path"]: entry for entry in self.request.get("inputs") or ()}


def session(raw: Mapping[str, Any]) -> Session:
    """Read a session from its resource."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    request = spec.get("request") or {}
    return Session(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        version=version_of(meta),
        mode=request.get("mode") or str(Mode.RUN),
        pool=(request.get("poolRef") or {}).get("name", ""),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        phase=status.get("phase") or "",
        cancel=bool(spec.get("cancel")),
        expires_at=seconds(spec.get("expiresAt")),
        completed_at=seconds((status.get("timings") or {}).get("completed")),
        status=status,
        spec=spec,
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """The session cannot be run as it is."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Order:
    """A request that its pool can serve."""

    session: SessionRef
    language: str
    code: str | None = field(repr=False)
    stored_bytes: int
    stored_sha256: str
    args: tuple[str, ...] = field(repr=False)
    stdin: str = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    timeout_seconds: int
    limits: PoolLimits
    references: tuple[InputReference, ...] = field(default=(), repr=False)
    """Files that the request names."""
    inputs: tuple[Input, ...] = field(default=(), repr=False)
    """The same files, once they are known to exist."""
    tenant: str | None = None
    owner: str = ""
    """UID of the workspace that owns the pod; empty if the session does so itself."""
    tools: tuple[Tool, ...] = ()
    """Tools that the program may call."""

    @property
    def stored(self) -> bool:
        """The code is in the object store."""
        return self.code is None

    @property
    def fetches(self) -> bool:
        """The sidecar needs the object store before the program can start."""
        return self.stored or bool(self.references)

    def prepare(
        self, code_url: str = "", input_urls: Sequence[str] = (), *, keep_files: bool = False
    ) -> PrepareRequest:
        """The sidecar's request. code_url, input_urls: presigned GETs for stored code and for each input.
        keep_files: new and changed files are handed back."""
        code = (
            InlineCode(self.code)
            if self.code is not None
            else StoredCode(code_url, self.stored_bytes, self.stored_sha256)
        )
        inputs = tuple(
            InputFile(file.path, url, file.bytes, file.read_only)
            for file, url in zip(self.inputs, input_urls, strict=True)
        )
        limits = Limits(
            self.timeout_seconds,
            self.limits.max_output_bytes,
            self.limits.max_files if keep_files else 0,
            self.limits.max_file_bytes,
            self.limits.max_total_file_bytes,
            self.limits.max_printed_bytes,
        )
        return PrepareRequest(
            self.session, self.language, code, self.args, self.stdin, self.env, inputs, limits, self.tools
        )


def time_limit(asked: int | None, pool: PoolSpec) -> int:
    """Seconds that a program may run: what it asks for or the pool's default, and never more than the pool
    allows."""
    return min(asked or pool.session_defaults.timeout_seconds, pool.limits.max_timeout_seconds)


def cut_note(asked: int | None, limit: int) -> str:
    """What to tell somebody who got less time than was asked for; otherwise empty."""
    if (asked or 0) <= limit:
        return ""
    return f"timeoutSeconds {asked} was cut to {limit}, the most that the pool allows"


def order(seen: Session, pool: PoolSpec) -> Order | Refusal:
    """Check a request against its pool."""
    try:
        request = SessionSpec.model_validate(seen.spec).request
    except ValidationError as error:
        # Only places and kinds of errors: the values are the user's.
        places = ", ".join(".".join(map(str, entry["loc"])) for entry in error.errors()[:5])
        return Refusal(Reason.INVALID_REQUEST, f"the spec is not valid at {places}")
    refusal = _refusal(seen, request, pool)
    if refusal is not None or request.language is None:
        return refusal or Refusal(Reason.INVALID_REQUEST, "language is missing")
    return Order(
        session=SessionRef(seen.namespace, seen.name, seen.uid),
        language=request.language,
        code=request.code,
        stored_bytes=request.code_ref.bytes_ if request.code_ref else 0,
        stored_sha256=request.code_ref.sha256 if request.code_ref else "",
        args=tuple(request.args),
        stdin=request.stdin,
        env={entry.name: entry.value for entry in request.env},
        timeout_seconds=time_limit(request.timeout_seconds, pool),
        limits=pool.limits,
        references=tuple(request.inputs),
        tenant=request.tenant,
        tools=tuple(Tool(name, identifier(name, request.language)) for name in request.tools or ()),
    )


def _refusal(seen: Session, request: Request, pool: PoolSpec) -> Refusal | None:
    if (request.code is None) == (request.code_ref is None):
        return Refusal(Reason.INVALID_REQUEST, "give exactly one of code and codeRef")
    if request.language is not None and request.language not in pool.runtime.languages:
        offered = ", ".join(pool.runtime.languages)
        return Refusal(
            Reason.LANGUAGE_NOT_IN_POOL, f"the pool {seen.pool} offers {offered}, not {request.language}"
        )
    wrong = conflict([reference.path for reference in request.inputs])
    if not wrong and request.tools and request.language is not None:
        wrong = clash(request.tools, request.language)
    return Refusal(Reason.INVALID_REQUEST, wrong) if wrong else None

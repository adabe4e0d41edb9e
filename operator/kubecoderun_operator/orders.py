"""A session as the operator sees it, and what its request comes to in its pool. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import TERMINAL_PHASES, Reason
from kubecoderun_crds.session import SessionSpec
from kubecoderun_operator.members import seconds, version_of
from kubecoderun_sidecar.protocol import InlineCode, Limits, PrepareRequest, SessionRef, StoredCode


@dataclass(frozen=True, slots=True)
class Session:
    """A session as last seen. The request is not parsed here: it may be large, and most events are about
    others."""

    namespace: str
    name: str
    uid: str
    generation: int
    version: int
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


def session(raw: Mapping[str, Any]) -> Session:
    """Read a session from its resource."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    return Session(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        version=version_of(meta),
        created=seconds(meta.get("creationTimestamp")) or 0.0,
        pool=((spec.get("request") or {}).get("poolRef") or {}).get("name", ""),
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
    output_bytes: int

    @property
    def stored(self) -> bool:
        """The code is in the object store."""
        return self.code is None

    def prepare(self, code_url: str = "") -> PrepareRequest:
        """The sidecar's request; code_url is a presigned GET, needed if the code is stored."""
        code = (
            InlineCode(self.code)
            if self.code is not None
            else StoredCode(code_url, self.stored_bytes, self.stored_sha256)
        )
        limits = Limits(self.timeout_seconds, self.output_bytes)
        return PrepareRequest(
            self.session, self.language, code, self.args, self.stdin, self.env, limits=limits
        )


def order(seen: Session, pool: PoolSpec) -> Order | Refusal:
    """Check a request against its pool."""
    try:
        request = SessionSpec.model_validate(seen.spec).request
    except ValidationError as error:
        # Only places and kinds of errors: the values are the user's.
        places = ", ".join(".".join(map(str, entry["loc"])) for entry in error.errors()[:5])
        return Refusal(Reason.INVALID_REQUEST, f"the spec is not valid at {places}")
    if (request.code is None) == (request.code_ref is None):
        return Refusal(Reason.INVALID_REQUEST, "give exactly one of code and codeRef")
    if request.language not in pool.runtime.languages:
        offered = ", ".join(pool.runtime.languages)
        return Refusal(
            Reason.LANGUAGE_NOT_IN_POOL, f"the pool {seen.pool} offers {offered}, not {request.language}"
        )
    limit = request.timeout_seconds or pool.session_defaults.timeout_seconds
    if limit > pool.limits.max_timeout_seconds:
        return Refusal(
            Reason.INVALID_REQUEST,
            f"timeoutSeconds is {limit}; "
            f"the pool {seen.pool} allows at most {pool.limits.max_timeout_seconds}",
        )
    return Order(
        session=SessionRef(seen.namespace, seen.name, seen.uid),
        language=request.language,
        code=request.code,
        stored_bytes=request.code_ref.bytes_ if request.code_ref else 0,
        stored_sha256=request.code_ref.sha256 if request.code_ref else "",
        args=tuple(request.args),
        stdin=request.stdin,
        env={entry.name: entry.value for entry in request.env},
        timeout_seconds=limit,
        output_bytes=pool.limits.max_output_bytes,
    )

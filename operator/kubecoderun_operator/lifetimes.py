"""How long sessions are kept, and which of them may have objects in the store. Pure."""

from dataclasses import dataclass

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import Mode
from kubecoderun_operator.orders import Session


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that a finished session without and with files is kept."""

    plain: float
    with_files: float


def of_pool(pool: PoolSpec) -> Lifetimes:
    """What a pool says."""
    defaults = pool.session_defaults
    return Lifetimes(defaults.ttl_seconds_after_finished, defaults.files_ttl_seconds)


def expires_at(session: Session, lifetimes: Lifetimes, now: float) -> float | None:
    """When a session is to be deleted, in seconds since 1970.

    Its own spec.expiresAt decides alone. Without it the time runs from the end; None for a session that has
    not ended.
    """
    if session.expires_at is not None:
        return session.expires_at
    if not session.terminal:
        return None
    kept = lifetimes.with_files if has_files(session) else lifetimes.plain
    return (session.completed_at if session.completed_at is not None else now) + kept


def has_files(session: Session) -> bool:
    """Whether others can use files of it."""
    return session.mode == Mode.FILES or bool(session.status.get("files"))


def may_have_objects(session: Session) -> bool:
    """Whether the store may have something of the session: code, a result, files, or uploads of a run that
    goes on or was lost before anybody could report them.

    False spares a request to the store for each ordinary run; what it misses is found by the sweep.
    """
    if session.mode == Mode.WORKSPACE:
        return False
    if not session.terminal or has_files(session) or session.request.get("codeRef") or session.has_tools:
        return True
    result = session.status.get("result") or {}
    reported = "stdoutBytes" in result
    return bool(result.get("stored")) if reported else bool(session.status.get("pod"))

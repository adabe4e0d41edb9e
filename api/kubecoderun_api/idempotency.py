"""Requests with an idempotency key: sent twice, they make one run with one result.

The session's name is a keyed hash of tenant and key, so the API server itself refuses a second one, whichever
front end asks, and what was asked for stands on the session as another hash. Nothing is kept here but the
calls of this process that are open, which are joined.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kubecoderun_api import answers, wire
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.references import Reference
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES, Reason

SECRET_BYTES: Final = 18
"""Of a secret that continues a program."""
HEADER: Final = "idempotency-key"
_MAX_LENGTH: Final = 255
_NEVER_RAN: Final = frozenset(
    {
        Reason.POOL_EMPTY,
        Reason.WAIT_EXPIRED,
        Reason.CODE_UNAVAILABLE,
        Reason.INPUT_UNAVAILABLE,
        Reason.WORKSPACE_BUSY,
        Reason.WORKSPACE_ENDED,
        Reason.WORKSPACE_NOT_FOUND,
    }
)
"""Ends without a run, after which the same request may try again."""


@dataclass(frozen=True)
class Claim:
    """One request with a key."""

    session: str
    """The name that its session must have."""
    fingerprint: str
    """Hash of what was asked for."""
    continuation: str = field(default="", repr=False)
    """The secret that continues its program, if that calls tools: the same for each repetition."""


def claim(
    secret: bytes, principal: Principal, key: str, call: wire.ExecRequest, files: Sequence[Reference]
) -> Claim:
    """What this key of this caller stands for. Raises wire.BadRequest for a key that cannot be one.

    The user counts if a token names it; what a caller says about users does not.
    """
    scope = _scope(principal, key)
    asked = [
        call.language,
        hashlib.sha256(call.code).hexdigest(),
        list(call.args),
        call.timeout_seconds,
        [[one.path, one.id, one.session] for one in files],
    ]
    if call.hint is not None:
        asked.append(call.hint)
    if call.tools:
        asked.append(["tools", *call.tools])
    session = names.session_name_from(_keyed(secret, "name", scope))
    return Claim(
        session=session,
        fingerprint=_keyed(secret, "request", asked).hex()[:40],
        continuation=base64.urlsafe_b64encode(
            _keyed(secret, "continuation", session)[:SECRET_BYTES]
        ).decode(),
    )


def claim_of_results(
    secret: bytes, principal: Principal, key: str, session: str, results: Sequence[tuple[str, Any, str]]
) -> Claim:
    """The same for a request that brings results to a session, which is there already. Its own name is none
    of a session: it only joins the call that is open."""
    asked = [session, [list(one) for one in results]]
    return Claim(
        session=_keyed(secret, "results", _scope(principal, key)).hex(),
        fingerprint=_keyed(secret, "request", asked).hex()[:40],
    )


def _scope(principal: Principal, key: str) -> list[str | None]:
    if not 0 < len(key) <= _MAX_LENGTH or not key.isprintable():
        wire.refuse(f"Idempotency-Key must have 1 to {_MAX_LENGTH} printable characters")
    return [principal.tenant, principal.user if principal.vouched else None, key]


def _keyed(secret: bytes, purpose: str, value: Any) -> bytes:
    return hmac.digest(secret, json.dumps([purpose, value]).encode(), "sha256")


def has_key(resource: Mapping[str, Any]) -> bool:
    """Whether a session was made for a request with a key."""
    return names.ANNOTATION_FINGERPRINT in (resource["metadata"].get("annotations") or {})


def belongs_to(resource: Mapping[str, Any], claim: Claim) -> bool:
    """Whether a session was made for the same request."""
    annotations = resource["metadata"].get("annotations") or {}
    return bool(annotations.get(names.ANNOTATION_FINGERPRINT) == claim.fingerprint)


def has_ended(resource: Mapping[str, Any]) -> bool:
    """Whether its result is there."""
    return (resource.get("status") or {}).get("phase") in TERMINAL_PHASES


def never_ran(resource: Mapping[str, Any]) -> bool:
    """Whether it has ended without a run, so that another one is no repetition."""
    return has_ended(resource) and resource["status"].get("reason") in _NEVER_RAN


class Repeats:
    """Calls with a key that are open in this process. They end although their clients leave."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, asyncio.Task[Answer]]] = {}

    async def run(self, claim: Claim, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """The answer of the open call with that claim, else of `work`."""
        if claim.session not in self._open:
            task = asyncio.create_task(work())
            self._open[claim.session] = (claim.fingerprint, task)
            task.add_done_callback(lambda _: self._open.pop(claim.session, None))
        fingerprint, task = self._open[claim.session]
        if fingerprint != claim.fingerprint:
            return answers.key_reused()
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop waiting; the sessions go on."""
        tasks = [task for _, task in self._open.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

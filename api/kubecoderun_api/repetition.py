"""One call with an idempotency key: the first time a run, every other time the result of that run."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from kubecoderun_api import answers, idempotency, log, runs
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.idempotency import Claim
from kubecoderun_api.services import Services
from kubecoderun_api.sessions import NAME_TAKEN
from kubecoderun_api.waiters import NoResult, Pause
from kubecoderun_api.watching import backoff

Json = dict[str, Any]
_LONGEST_LOOK: Final = 5
"""Looks after which the time between two (0.8 s) does not grow any more."""


async def once(
    services: Services,
    principal: Principal,
    claim: Claim,
    first: Callable[[], Awaitable[Answer]],
    *,
    wait_seconds: float,
    pause: Pause | None = None,
) -> Answer:
    """The answer of `first`, which makes the session, or of the session that is there already. `pause` tells
    what a session waits for that waits for its client."""
    try:
        found = await services.sessions.read(claim.session, principal)
        if found is not None and idempotency.never_ran(found):
            await services.sessions.forget(found)
            found = None
        if found is None:
            answer = await first()
            if answer.reason != NAME_TAKEN:
                return answer
            found = await services.sessions.read(claim.session, principal)
        return await _again(services, principal, claim, found, wait_seconds, pause)
    except NoResult as error:
        return answers.own_fault(error.name)
    except Exception as error:
        log.event("run_failed", level=log.ERROR, error=error, session=claim.session)
        return answers.own_fault("InternalError")


async def _again(
    services: Services,
    principal: Principal,
    claim: Claim,
    found: Json | None,
    wait_seconds: float,
    pause: Pause | None,
) -> Answer:
    if found is None:
        return answers.own_fault("SessionDeleted")
    if not idempotency.belongs_to(found, claim):
        return answers.key_reused()
    status, asked = _state(found, pause)
    if status is None and asked is None:
        status, asked = await _next_state(services, principal, claim.session, wait_seconds, pause)
    if status is not None:
        answer = await runs.ended(services, found, status)
    else:
        answer = runs.paused(claim.session, asked or {})
    services.metrics.repeats.inc()
    return replace(answer, headers={**answer.headers, "idempotency-replayed": "true"})


def _state(found: Json, pause: Pause | None) -> tuple[Json | None, Json | None]:
    """The status of a session that has ended, or else what it waits for."""
    if idempotency.has_ended(found):
        return found["status"], None
    return None, pause(found) if pause is not None else None


async def _next_state(
    services: Services, principal: Principal, session: str, wait_seconds: float, pause: Pause | None
) -> tuple[Json | None, Json | None]:
    """The same of a session that another call has made, when it has ended or waits. Raises NoResult.

    It is looked at every now and then: the watch tells of this process's own sessions only.
    """
    sessions = services.sessions
    looks = 0
    try:
        async with asyncio.timeout(wait_seconds):
            while not sessions.stopping:
                resource = await sessions.read(session, principal)
                if resource is None:
                    raise NoResult("SessionDeleted")
                status, asked = _state(resource, pause)
                if status is not None or asked is not None:
                    return status, asked
                looks += 1
                await asyncio.sleep(backoff(min(looks, _LONGEST_LOOK)))
    except TimeoutError:
        raise NoResult("NoAnswer") from None
    raise NoResult("ShuttingDown")

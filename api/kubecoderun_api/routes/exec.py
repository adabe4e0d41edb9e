"""POST /exec: one program, one answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import (
    answers,
    idempotency,
    log,
    openapi,
    references,
    repetition,
    runs,
    schemas,
    wire,
    workspaces,
)
from kubecoderun_api.admission import TooMany
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.connection import SESSION_HEADER, ExecResponse
from kubecoderun_api.idempotency import Claim
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.pools import Pool, excess_wait
from kubecoderun_api.profiles import Profile
from kubecoderun_api.references import Reference
from kubecoderun_api.routes.intake import authorised_body
from kubecoderun_api.services import Services
from kubecoderun_api.settings import OnDisconnect
from kubecoderun_crds import names

router = APIRouter()
PATHS: Final = ("/exec",)


@router.post(
    "/exec",
    response_model=schemas.ExecAnswer,
    responses=openapi.errors(400, 401, 403, 408, 409, 413, 429, 503, 504)
    | {202: openapi.model(schemas.Accepted, "handed in, with Prefer: respond-async")},
    openapi_extra=openapi.json_body(schemas.ExecCall),
)
async def execute(request: Request) -> Response:
    """Run the program in the body and answer with its output."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    body, principal = await authorised_body(request, services)
    call = wire.parse_exec(body)
    call.hint = workspaces.hint_of(body, context.profile) if services.settings.stateful else None
    files = references.parse(body.pop("files", None))
    pool = pool_with_state(services, call, context)
    key = key_of(request, services)
    claim = None if key is None else idempotency.claim(key.secret, principal, key.text, call, files)
    if claim is None and call.hint is None:  # in a workspace that is there already, a run needs no other pod
        full = full_queue(services, context, pool, call.language)
        if full is not None:
            return full
    if claim is None and _wants_no_answer(request):
        return await _submit(services, context, principal, call, files, pool)
    return _respond(services, context, principal, call, files, pool, claim)


@dataclass(frozen=True)
class Key:
    """An idempotency key that was sent."""

    text: str
    secret: bytes
    """What makes names out of keys."""


def key_of(request: Request, services: Services) -> Key | None:
    """The key of a request, if it has one. Raises BadRequest where there is no secret for it."""
    text, secret = request.headers.get(idempotency.HEADER), services.settings.idempotency_secret
    if text is None:
        return None
    if secret is None:
        why = "Idempotency keys are not served here: KCR_IDEMPOTENCY_SECRET is not set."
        wire.refuse(why, error="idempotency_unavailable")
    return Key(text, secret.get_secret_value().encode())


async def _submit(
    services: Services,
    context: RequestContext,
    principal: Principal,
    call: wire.ExecRequest,
    files: tuple[Reference, ...],
    pool: Pool,
) -> Response:
    """Make the session and say its name; the rest is between operator and whoever asks later."""
    session = names.session_name()
    context.facts.update(session=session, language=call.language, pool=pool.name)
    answer = await within_limits(
        services,
        principal,
        call.language,
        lambda: runs.submit(services, principal, session, call, files, pool),
    )
    context.facts["reason"] = answer.reason
    return JSONResponse(answer.body, answer.status, answer.headers | {SESSION_HEADER.decode(): session})


def _wants_no_answer(request: Request) -> bool:
    """RFC 7240: the client prefers not to wait."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _respond(
    services: Services,
    context: RequestContext,
    principal: Principal,
    call: wire.ExecRequest,
    files: tuple[Reference, ...],
    pool: Pool,
    claim: Claim | None,
) -> Response:
    session = names.session_name() if claim is None else claim.session
    context.facts.update(session=session, language=call.language, pool=pool.name)
    if files:
        context.facts["inputs"] = len(files)

    async def first() -> Answer:
        full = queue_is_full(services, pool, call.language) if claim and call.hint is None else None
        if full is not None:
            return full
        fingerprint = claim.fingerprint if claim else ""
        return await within_limits(
            services,
            principal,
            call.language,
            lambda: runs.run(services, principal, session, call, files, pool, fingerprint=fingerprint),
        )

    async def run() -> Answer:
        if claim is None:
            answer = await first()
        else:
            longest = runs.longest_wait(services, call, pool)
            answer = await services.repeats.run(
                claim,
                lambda: repetition.once(services, principal, claim, first, wait_seconds=longest),
            )
        context.facts["reason"] = answer.reason
        return answer

    return response_of(services, context, session, run())


async def within_limits(
    services: Services, principal: Principal, language: str, work: Callable[[], Awaitable[Answer]]
) -> Answer:
    """What `work` answers, as one of the tenant's runs; 429 if it has no room for it."""
    try:
        async with services.admission.run(principal.tenant):
            return await work()
    except TooMany as error:
        services.metrics.runs.labels(language, "TenantLimit").inc()
        return answers.busy("TenantLimit", error.retry_after_seconds, error.text)


def response_of(
    services: Services, context: RequestContext, session: str, work: Coroutine[Any, Any, Answer]
) -> Response:
    """The response that waits for a run's answer, with heartbeats, and sees to it when its client leaves."""

    async def on_left(task: asyncio.Task[Answer]) -> None:
        action = services.settings.on_disconnect
        seconds = context.exchange.left_after or 0.0
        log.event("client_left", session=session, seconds=round(seconds, 3), action=action.value)
        services.metrics.disconnects.labels(action.value).inc()
        if action is OnDisconnect.CANCEL:
            task.cancel()
        else:
            services.unseen.add(task)
            task.add_done_callback(services.unseen.discard)

    return ExecResponse(
        work,
        session=session,
        requested_at=context.started,
        policy=services.policy,
        exchange=context.exchange,
        on_late=services.metrics.late.inc,
        on_left=on_left,
    )


def full_queue(services: Services, context: RequestContext, pool: Pool, language: str) -> Response | None:
    """429 if the pool's queue is longer than its sessions may wait."""
    full = queue_is_full(services, pool, language)
    if full is None:
        return None
    context.facts["reason"] = full.reason
    return JSONResponse(full.body, full.status, full.headers)


def queue_is_full(services: Services, pool: Pool, language: str) -> Answer | None:
    """The answer for that case."""
    excess = excess_wait(pool, services.settings.pod_refill_seconds)
    if excess is None:
        return None
    full = answers.busy("QueueFull", min(excess, 3600))
    services.metrics.runs.labels(language, full.reason).inc()
    return full


def pool_with_state(services: Services, call: wire.ExecRequest, context: RequestContext) -> Pool:
    """The pool for a call, which loses its hint if no pool has workspaces for its language."""
    pool = pool_for(services, call.language)
    if call.hint is None:
        return pool
    steady = services.pools.choose_for_workspace(call.language)
    if steady is not None:
        context.profile = Profile.STATEFUL
        return steady
    call.hint = None
    if context.profile is Profile.STATEFUL:
        wire.refuse(
            f"No pool keeps state between runs of {call.language}.", error="stateful_workspace_unsupported"
        )
    return pool


def pool_for(services: Services, language: str) -> Pool:
    """The pool that serves a language. Raises BadRequest if there is none, or the process is not ready."""
    if not services.pools.known or services.sessions.stopping:
        wire.refuse("The service is starting up or shutting down.", error="service_unavailable", status=503)
    pool = services.pools.choose(language)
    if pool is None:
        offered = ", ".join(services.pools.languages()) or "none"
        wire.refuse(f"No pool runs {language}. Languages available here: {offered}.", error=wire.UNSUPPORTED)
    return pool

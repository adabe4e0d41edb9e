"""POST /exec: one program, one answer."""

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import answers, log, openapi, references, runs, schemas, wire, workspaces
from kubecoderun_api.answers import Answer
from kubecoderun_api.connection import ExecResponse
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
    responses=openapi.errors(400, 401, 408, 413, 429, 503, 504),
    openapi_extra=openapi.json_body(schemas.ExecCall),
)
async def execute(request: Request) -> Response:
    """Run the program in the body and answer with its output."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    body = await authorised_body(request, services)
    call = wire.parse_exec(body)
    call.hint = workspaces.hint_of(body, context.profile) if services.settings.stateful else None
    files = references.parse(body.pop("files", None))
    pool = _pool_for(services, call, context)
    # In a workspace that is there already, a run needs no other pod.
    full = None if call.hint else full_queue(services, context, pool, call.language)
    if full is not None:
        return full
    return _respond(services, context, call, files, pool)


def _respond(
    services: Services,
    context: RequestContext,
    call: wire.ExecRequest,
    files: tuple[Reference, ...],
    pool: Pool,
) -> Response:
    session = names.session_name()
    context.facts.update(session=session, language=call.language, pool=pool.name)
    if files:
        context.facts["inputs"] = len(files)

    async def run() -> Answer:
        answer = await runs.run(services, session, call, files, pool)
        context.facts["reason"] = answer.reason
        return answer

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
        run(),
        session=session,
        requested_at=context.started,
        policy=services.policy,
        exchange=context.exchange,
        on_late=services.metrics.late.inc,
        on_left=on_left,
    )


def full_queue(services: Services, context: RequestContext, pool: Pool, language: str) -> Response | None:
    """429 if the pool's queue is longer than its sessions may wait."""
    excess = excess_wait(pool, services.settings.pod_refill_seconds)
    if excess is None:
        return None
    full = answers.busy("QueueFull", min(excess, 3600))
    context.facts["reason"] = full.reason
    services.metrics.runs.labels(language, full.reason).inc()
    return JSONResponse(full.body, full.status, full.headers)


def _pool_for(services: Services, call: wire.ExecRequest, context: RequestContext) -> Pool:
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

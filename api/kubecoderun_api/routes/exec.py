"""POST /exec: one program, one answer."""

import asyncio
from typing import Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from kubecoderun_api import answers, log, runs, wire
from kubecoderun_api.answers import Answer
from kubecoderun_api.connection import ExecResponse
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.pools import Pool, excess_wait
from kubecoderun_api.routes.intake import authorised_body
from kubecoderun_api.services import Services
from kubecoderun_api.settings import OnDisconnect
from kubecoderun_crds import names

router = APIRouter()
PATHS: Final = ("/exec",)


@router.post("/exec")
async def execute(request: Request) -> Response:
    """Run the program in the body and answer with its output."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    try:
        call = wire.parse_exec(await authorised_body(request, services))
        pool = _pool_for(services, call.language)
    except wire.BadRequest as refusal:
        context.facts["refused"] = refusal.body.get("code", refusal.body["error"])
        return JSONResponse(refusal.body, refusal.status)
    except ClientDisconnect:
        context.exchange.left_after = asyncio.get_running_loop().time() - context.started
        return Response(status_code=400)
    excess = excess_wait(pool, services.settings.pod_refill_seconds)
    if excess is not None:
        full = answers.busy("QueueFull", min(excess, 3600))
        context.facts["reason"] = full.reason
        services.metrics.runs.labels(call.language, full.reason).inc()
        return JSONResponse(full.body, full.status, full.headers)
    return _respond(services, context, call, pool)


def _respond(services: Services, context: RequestContext, call: wire.ExecRequest, pool: Pool) -> Response:
    session = names.session_name()
    context.facts.update(session=session, language=call.language, pool=pool.name)

    async def run() -> Answer:
        answer = await runs.run(services, session, call, pool)
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


def _pool_for(services: Services, language: str) -> Pool:
    if not services.pools.known or services.sessions.stopping:
        wire.refuse("The service is starting up or shutting down.", error="service_unavailable", status=503)
    pool = services.pools.choose(language)
    if pool is None:
        offered = ", ".join(services.pools.languages()) or "none"
        wire.refuse(f"No pool runs {language}. Languages available here: {offered}.", error=wire.UNSUPPORTED)
    return pool

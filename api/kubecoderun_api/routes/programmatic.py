"""POST /exec/programmatic: a program that calls its client's tools; and its continuation and cancellation."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import (
    continuations,
    idempotency,
    openapi,
    references,
    schemas,
    toolcalls,
    wire,
    workspaces,
)
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.routes.exec import (
    full_queue,
    key_of,
    pool_with_state,
    queue_is_full,
    response_of,
    within_limits,
)
from kubecoderun_api.routes.intake import authorised_body
from kubecoderun_api.services import Services
from kubecoderun_crds import names

router = APIRouter()
PATHS: Final = ("/exec/programmatic", "/exec/programmatic/cancel")
Json = dict[str, Any]


@router.post(
    "/exec/programmatic",
    response_model=schemas.ProgrammaticAnswer,
    responses=openapi.errors(400, 401, 404, 408, 409, 413, 429, 503, 504),
    openapi_extra=openapi.json_body(schemas.ProgrammaticCall),
)
async def programmatic(request: Request) -> Response:
    """Start a program, or bring it the results of its tool calls."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    body, principal = await authorised_body(request, services)
    label = _label(request, principal)
    if label is not None and label in services.calls:
        if idempotency.HEADER not in request.headers:
            wire.refuse("A call with this request id is in progress.", error="duplicate_request", status=409)
        label = None  # the first one can be cancelled by it, and with that this one
    if "continuation_token" in body:
        return await _continue(request, services, principal, context, body, label)
    return _start(request, services, principal, context, body, label)


def _start(
    request: Request,
    services: Services,
    principal: Principal,
    context: RequestContext,
    body: Json,
    label: str | None,
) -> Response:
    if request.headers.get(toolcalls.WORKSPACE_HEADER):
        wire.refuse(
            "Workspaces on a machine of the user's own are not offered here.",
            error="stateful_workspace_unsupported",
        )
    call = toolcalls.parse_start(body)
    call.hint = workspaces.hint_of(body, context.profile) if services.settings.stateful else None
    files = references.parse(body.pop("files", None))
    pool = pool_with_state(services, call, context)
    key = key_of(request, services)
    claim = None if key is None else idempotency.claim(key.secret, principal, key.text, call, files)
    if claim is None and call.hint is None:
        full = full_queue(services, context, pool, call.language)
        if full is not None:
            return full
    session = names.session_name() if claim is None else claim.session
    context.facts.update(session=session, language=call.language, pool=pool.name, tools=len(call.tools))

    async def admitted(run: Callable[[], Awaitable[Answer]]) -> Answer:
        full = queue_is_full(services, pool, call.language) if claim and call.hint is None else None
        return full or await within_limits(services, principal, call.language, run)

    work = continuations.start(services, principal, session, call, files, pool, label, claim, admitted)
    return _respond(services, context, session, label, work, keyed=claim is not None)


async def _continue(
    request: Request,
    services: Services,
    principal: Principal,
    context: RequestContext,
    body: Json,
    label: str | None,
) -> Response:
    continuation = toolcalls.parse_continuation(body)
    key = key_of(request, services)
    session = continuation.session
    body.clear()  # the results are in the continuation; one copy of them is enough
    context.facts.update(session=session, results=len(continuation.results))
    if services.sessions.stopping:
        wire.refuse("The service is shutting down.", error="shutting_down", status=503)
    resource = await services.sessions.read(session, principal)
    if resource is None or not toolcalls.may_continue(resource, continuation.secret):
        raise continuations.too_late()
    if toolcalls.is_too_late(resource.get("status") or {}):
        raise continuations.too_late()
    if key is None and services.sessions.waits_for(session):
        wire.refuse(
            "The program is being continued by another call.", error="continuation_in_flight", status=409
        )
    resume = functools.partial(continuations.resume, services, continuation, resource, label)
    if key is None:
        return _respond(services, context, session, label, resume(), keyed=idempotency.has_key(resource))
    results = [(one.call, one.value, one.error) for one in continuation.results]
    claim = idempotency.claim_of_results(key.secret, principal, key.text, session, results)
    work = services.repeats.run(claim, resume)
    return _respond(services, context, session, label, work, keyed=True)


def _respond(
    services: Services,
    context: RequestContext,
    session: str,
    label: str | None,
    work: Coroutine[Any, Any, Answer],
    *,
    keyed: bool,
) -> Response:
    """The response to a call. One that is `keyed` may be asked for again: its program goes on when its client
    leaves, and ends when it is cancelled."""

    async def run() -> Answer:
        task = asyncio.current_task()
        if label is not None and task is not None:
            services.calls[label] = task
        try:
            answer = await work
        except asyncio.CancelledError:
            if task is None or context.exchange.left_after is not None or services.sessions.stopping:
                raise
            # Cancelled by a request of its own, while its client is still there.
            if keyed:
                services.sessions.take_back(session)
            answer = toolcalls.cancelled(session)
        finally:
            if label is not None:
                services.calls.pop(label, None)
        context.facts["reason"] = answer.reason
        return answer

    return response_of(services, context, session, run())


@router.post(
    "/exec/programmatic/cancel",
    response_model=schemas.CancelAnswer,
    responses={
        202: {"model": schemas.CancelAnswer, "description": "it has been asked to end"},
        **openapi.errors(400, 401, 404, 408, 413, 503),
    },
    openapi_extra=openapi.json_body(schemas.CancelCall),
)
async def cancel(request: Request) -> Response:
    """End the program of a call, by the id that the client gave to that call."""
    services: Services = request.app.state.services
    body, principal = await authorised_body(request, services)
    label = toolcalls.request_label(toolcalls.parse_request_id(body.get("request_id")), principal.tenant)
    found = await continuations.cancel(services, label)
    if found is None:
        raise continuations.too_late()
    if found:
        return JSONResponse({"status": "cancellation_requested"}, 202)
    return JSONResponse({"status": "already_completed"})


def _label(request: Request, principal: Principal) -> str | None:
    given = request.headers.get(toolcalls.REQUEST_ID_HEADER)
    return (
        None
        if given is None
        else toolcalls.request_label(toolcalls.parse_request_id(given), principal.tenant)
    )

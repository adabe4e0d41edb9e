"""Runs that have been handed in: how far they are, what they write, and their end."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import answers, openapi, schemas, wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.cluster import ClusterError
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.progress import ENDED, Progress
from kubecoderun_api.routes.files import SessionId, admit
from kubecoderun_api.services import Services
from kubecoderun_api.waiters import NoResult
from kubecoderun_api.watchers import EventStream
from kubecoderun_crds.reasons import TERMINAL_PHASES, Mode

router = APIRouter()
PATHS: Final = ("/exec/{session}", "/exec/{session}/events")
Json = dict[str, Any]


@router.get(
    "/exec/{session}/events",
    response_model=None,
    responses=openapi.errors(400, 401, 404, 429, 503)
    | {
        200: openapi.events(),
        204: {"description": "the last event has been told before"},
    },
)
async def events(request: Request, session: SessionId) -> Response:
    """Output and phase of a run as they come, and in the end its result: server-sent events."""
    services, principal = await admit(request, session)
    cursor = request.headers.get("last-event-id", "").strip()
    if cursor == ENDED:
        return Response(status_code=204)  # tells an EventSource not to come again
    told = Progress(cursor)
    if services.watchers.open >= services.settings.watchers_at_once:
        busy = answers.busy("WatchersFull", 5, "Too many runs are being watched right now.")
        return JSONResponse(busy.body, busy.status, busy.headers)
    found = await _run(services, principal, session)
    return EventStream(
        services.watchers.follow(found, told, principal),
        services.watchers,
        heartbeat_seconds=services.settings.heartbeat_every_seconds,
    )


@router.get(
    "/exec/{session}",
    response_model=schemas.ExecAnswer,
    responses=openapi.errors(400, 401, 404, 429, 503)
    | {202: openapi.model(schemas.Unfinished, "it has not ended")},
)
async def result(request: Request, session: SessionId) -> Response:
    """The answer to a run as /exec gives it, or 202 while there is none yet."""
    services, principal = await admit(request, session)
    found = await _run(services, principal, session)
    phase = (found.get("status") or {}).get("phase") or "Pending"
    if phase not in TERMINAL_PHASES:
        return JSONResponse({"session_id": session, "phase": phase}, 202)
    status, body = await services.watchers.body(found)
    return JSONResponse(body, status)


@router.delete(
    "/exec/{session}",
    status_code=202,
    response_model=schemas.Cancelling,
    responses=openapi.errors(400, 401, 404, 503),
)
async def cancel(request: Request, session: SessionId) -> Response:
    """End a run. One that has ended keeps its result."""
    services, principal = await admit(request, session)
    await _run(services, principal, session)
    try:
        await services.cluster.cancel_session(session)
    except ClusterError as error:
        if error.status == 404:
            raise _not_found() from None
        raise NoResult("NotChanged") from None
    context: RequestContext = request.scope[CONTEXT]
    context.facts["cancelled"] = True
    return JSONResponse({"session_id": session, "message": "The run is being cancelled."}, 202)


async def _run(services: Services, principal: Principal, session: str) -> Json:
    """The session, if it runs something."""
    found = await services.sessions.read(session, principal)
    if found is None or found["spec"]["request"].get("mode", Mode.RUN) != Mode.RUN:
        raise _not_found()
    return found


def _not_found() -> wire.BadRequest:
    text = "There is no such run, or not any more."
    return wire.BadRequest(404, {"error": "session_not_found", "message": text})

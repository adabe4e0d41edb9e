"""POST /upload: files in, one session that holds them."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from kubecoderun_api import wire
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.routes.intake import DISCARD_SECONDS, Incoming, authorise
from kubecoderun_api.services import Services
from kubecoderun_crds import names

router = APIRouter()
PATHS: Final = ("/upload",)
_LAST_DISCARD_SECONDS: Final = 1.0
"""The same when the process is about to end."""


@router.post("/upload")
async def upload(request: Request) -> Response:
    """Store the files of a form and answer with their ids."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    incoming = Incoming(request)
    outcome = "failed"
    try:
        principal = await authorise(request, services)
        session = names.session_name()
        content_type = request.headers.get("content-type", "")
        held = await services.uploads.take(session, principal, content_type, incoming)
        outcome = "stored"
    except ClientDisconnect:
        outcome = "left"
        raise
    except Exception as error:
        if isinstance(error, wire.BadRequest) and error.status < 500:
            outcome = "refused"
        seconds = _LAST_DISCARD_SECONDS if services.sessions.stopping else DISCARD_SECONDS
        await incoming.discard(services.settings.max_upload_bytes, seconds)
        raise
    finally:
        services.metrics.uploads.labels(outcome).inc()
    context.facts.update(session=session, files=len(held.files), bytes=held.size)
    return JSONResponse(held.as_answer())

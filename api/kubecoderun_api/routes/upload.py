"""POST /upload and /upload/batch: files in, one session that holds them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from kubecoderun_api import openapi, schemas, wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.routes.intake import DISCARD_SECONDS, Incoming, authorise
from kubecoderun_api.services import Services
from kubecoderun_api.uploads import BatchHeld, Held
from kubecoderun_crds import names

router = APIRouter()
PATHS: Final = ("/upload", "/upload/batch")
_OUTCOMES: Final = {"success": "stored", "partial_success": "partial", "error": "refused"}
_LAST_DISCARD_SECONDS: Final = 1.0
"""The same when the process is about to end."""


@router.post(
    "/upload",
    response_model=schemas.UploadAnswer,
    responses=openapi.errors(400, 401, 413, 503, 504),
    openapi_extra=openapi.form_body(),
)
async def upload(request: Request) -> Response:
    """Store the files of a form, all or none, and answer with their ids."""
    services: Services = request.app.state.services
    held = await _receive(request, services.uploads.take)
    return JSONResponse(held.as_answer())


@router.post(
    "/upload/batch",
    response_model=schemas.BatchAnswer,
    responses=openapi.errors(401, 503, 504)
    | {400: {"model": schemas.Error | schemas.BatchAnswer, "description": "a bad form, or no file is kept"}},
    openapi_extra=openapi.form_body(),
)
async def upload_batch(request: Request) -> Response:
    """Store those files of a form that can be kept, and answer what became of each."""
    services: Services = request.app.state.services
    held = await _receive(request, services.uploads.take_batch)
    return JSONResponse(held.as_answer(), 200 if held.session else 400)


_Taken = TypeVar("_Taken", Held, BatchHeld)


async def _receive(
    request: Request, take: Callable[[str, Principal, str, AsyncIterator[bytes]], Awaitable[_Taken]]
) -> _Taken:
    """One upload from the headers to the answer; the rest of a body that is refused is read and dropped."""
    services: Services = request.app.state.services
    context: RequestContext = request.scope[CONTEXT]
    incoming = Incoming(request)
    outcome = "failed"
    try:
        principal = await authorise(request, services)
        content_type = request.headers.get("content-type", "")
        held = await take(names.session_name(), principal, content_type, incoming)
        outcome = _OUTCOMES[held.outcome]
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
    context.facts.update(session=held.session, files=held.kept, bytes=held.size)
    return held

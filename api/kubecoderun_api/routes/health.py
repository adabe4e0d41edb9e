"""Probes and metrics; none of them needs a key."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from kubecoderun_api import schemas
from kubecoderun_api.metrics import CONTENT_TYPE
from kubecoderun_api.services import Services

router = APIRouter()
PATHS: Final = ("/health", "/healthz", "/readyz", "/metrics")
_OPEN: Final[dict[str, Any]] = {"security": []}
_UNREADY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": schemas.Error, "description": "not ready; the message says why"}
}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_class=PlainTextResponse, openapi_extra=_OPEN)
async def alive() -> Response:
    """200 as long as the process serves requests at all."""
    return PlainTextResponse("OK")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_class=PlainTextResponse, openapi_extra=_OPEN, responses=_UNREADY)
async def ready(request: Request) -> Response:
    """200 when runs can be accepted, else 503 with the reasons."""
    services: Services = request.app.state.services
    reasons = services.unready()
    if reasons:
        return JSONResponse({"error": "not_ready", "message": ", ".join(reasons)}, 503)
    return PlainTextResponse("OK")


@router.head("/health", include_in_schema=False)
@router.get("/health", response_class=PlainTextResponse, openapi_extra=_OPEN, responses=_UNREADY)
async def health(request: Request) -> Response:
    """What the official service has under this name; the same as /readyz."""
    return await ready(request)


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=PlainTextResponse, openapi_extra=_OPEN)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    services: Services = request.app.state.services
    return Response(services.metrics.text(), media_type=CONTENT_TYPE)

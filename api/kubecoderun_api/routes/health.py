"""Probes and metrics; none of them needs a key."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from kubecoderun_api.metrics import CONTENT_TYPE
from kubecoderun_api.services import Services

router = APIRouter()
PATHS: Final = ("/health", "/healthz", "/readyz", "/metrics")
_READ: Final = ["GET", "HEAD"]


@router.api_route("/healthz", methods=_READ)
async def alive() -> Response:
    """200 as long as the process serves requests at all."""
    return PlainTextResponse("OK")


@router.api_route("/readyz", methods=_READ)
async def ready(request: Request) -> Response:
    """200 when runs can be accepted, else 503 with the reasons."""
    services: Services = request.app.state.services
    reasons = services.unready()
    if reasons:
        return JSONResponse({"error": "not_ready", "message": ", ".join(reasons)}, 503)
    return PlainTextResponse("OK")


@router.api_route("/health", methods=_READ)
async def health(request: Request) -> Response:
    """What the official service has under this name; the same as /readyz."""
    return await ready(request)


@router.api_route("/metrics", methods=_READ)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    services: Services = request.app.state.services
    return Response(services.metrics.text(), media_type=CONTENT_TYPE)

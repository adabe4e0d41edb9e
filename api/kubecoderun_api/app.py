"""Puts the ASGI application together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from kubecoderun_api import cluster, log
from kubecoderun_api.middleware import FrontDoor
from kubecoderun_api.routes import exec, health
from kubecoderun_api.services import Services
from kubecoderun_api.settings import Settings

_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own would write the texts of exceptions; metrics and log are ours."""


def create_app(
    settings: Settings,
    load_configuration: cluster.LoadConfiguration = cluster.load_configuration,
) -> tuple[ASGIApp, Services]:
    """The application and the services behind it, which its lifespan opens and closes."""
    services = Services(settings, load_configuration)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await services.open()
            yield
        except Exception as error:
            log.event("failed", level=log.ERROR, error=error)
            raise
        finally:
            await services.close()

    inner = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    inner.state.services = services
    inner.include_router(exec.router)
    inner.include_router(health.router)
    inner.add_exception_handler(HTTPException, _no_such_thing)
    inner.add_exception_handler(Exception, _internal_error)
    routes = frozenset((*exec.PATHS, *health.PATHS))
    return FrontDoor(inner, services.policy, services.metrics, routes), services


async def _no_such_thing(_: Request, error: Exception) -> Response:
    """The router's own errors (404, 405) in our shape."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    texts = {
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This address does not answer to that method."),
    }
    code, message = texts.get(status, ("http_error", f"HTTP status {status}."))
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return JSONResponse({"error": code, "message": message}, status, headers)


async def _internal_error(_: Request, __: Exception) -> Response:
    """A fault of ours; the middleware logs it."""
    return JSONResponse(
        {"error": "internal_error", "message": "The request failed for an internal reason."}, 500
    )

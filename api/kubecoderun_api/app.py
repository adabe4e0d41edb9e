"""Puts the ASGI application together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from kubecoderun_api import answers, cluster, log, openapi, wire
from kubecoderun_api.middleware import CONTEXT, FrontDoor, RequestContext
from kubecoderun_api.routes import absent, exec, files, health, programmatic, progress, upload, users
from kubecoderun_api.services import Services
from kubecoderun_api.settings import Settings
from kubecoderun_api.transfer import StoreError
from kubecoderun_api.waiters import NoResult

_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own would write the texts of exceptions; metrics and log are ours."""

_DOCS: Final = ("/docs", "/openapi.json")


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
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    inner.state.services = services
    inner.include_router(exec.router)
    inner.include_router(programmatic.router)
    inner.include_router(upload.router)
    inner.include_router(files.router)
    inner.include_router(progress.router)
    inner.include_router(users.router)
    inner.include_router(absent.router)
    inner.include_router(health.router)
    openapi.describe(inner)
    inner.add_exception_handler(HTTPException, _no_such_thing)
    inner.add_exception_handler(wire.BadRequest, _refused)
    inner.add_exception_handler(NoResult, _failed)
    inner.add_exception_handler(StoreError, _failed)
    inner.add_exception_handler(ClientDisconnect, _left)
    inner.add_exception_handler(Exception, _internal_error)
    routes = frozenset(
        (
            *exec.PATHS,
            *programmatic.PATHS,
            *progress.PATHS,
            *upload.PATHS,
            *files.PATHS,
            *users.PATHS,
            *absent.PATHS,
            *health.PATHS,
            *_DOCS,
        )
    )
    return FrontDoor(inner, services.policy, services.metrics, routes, stateful=settings.stateful), services


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


async def _refused(request: Request, error: Exception) -> Response:
    """A request that is answered with an error of our choice."""
    assert isinstance(error, wire.BadRequest)
    _context(request).facts["refused"] = error.body.get("code", error.body["error"])
    return JSONResponse(error.body, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    """Cluster or store could not do what a request needs."""
    fault = answers.own_fault(error.name if isinstance(error, NoResult) else "StoreFailed")
    _context(request).facts["reason"] = fault.reason
    return JSONResponse(fault.body, fault.status)


async def _left(request: Request, _: Exception) -> Response:
    """Nobody is there to read an answer."""
    context = _context(request)
    context.exchange.left_after = asyncio.get_running_loop().time() - context.started
    return Response(status_code=400)


def _context(request: Request) -> RequestContext:
    context: RequestContext = request.scope[CONTEXT]
    return context


async def _internal_error(_: Request, __: Exception) -> Response:
    """A fault of ours; the middleware logs it."""
    return JSONResponse(
        {"error": "internal_error", "message": "The request failed for an internal reason."}, 500
    )

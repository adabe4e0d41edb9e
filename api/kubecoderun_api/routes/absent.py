"""Addresses of the official service's newest parts that KubeCodeRun does not have, each with a definite
answer.

Clients ask for some of them to find out what there is. What the answer says is that trying again is useless.
"""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import wire
from kubecoderun_api.routes.intake import authorise

router = APIRouter(include_in_schema=False)
PATHS: Final = ("/workspace-tools/execute", "/hosted-apps", "/hosted-apps/{app}", "/sandbox/npm-unit")


@router.post("/workspace-tools/execute")
async def workspace_tools(request: Request) -> Response:
    """Tools on somebody's own machine."""
    return await _absent(request, 404, wire.UNSUPPORTED, "There are no attached workers here.")


@router.post("/hosted-apps")
@router.get("/hosted-apps/{app}")
@router.delete("/hosted-apps/{app}")
async def hosted_apps(request: Request) -> Response:
    """Long-running web applications."""
    return await _absent(request, 404, "hosted_apps_disabled", "There are no hosted applications here.")


@router.post("/sandbox/npm-unit")
async def npm_unit(request: Request) -> Response:
    """Indexing of npm packages."""
    return await _absent(request, 503, "disabled", "npm packages are not indexed here.")


async def _absent(request: Request, status: int, error: str, message: str) -> Response:
    await authorise(request, request.app.state.services)
    return JSONResponse({"error": error, "message": message}, status)

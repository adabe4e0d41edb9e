"""DELETE /users/{user}: everything of one user goes."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import openapi, schemas, wire
from kubecoderun_api.auth.principal import MAX_USER_LENGTH
from kubecoderun_api.routes.intake import authorise
from kubecoderun_api.services import Services

router = APIRouter()
PATHS: Final = ("/users/{user}",)


@router.delete("/users/{user}", response_model=schemas.Erased, responses=openapi.errors(400, 401, 403, 503))
async def erase(request: Request, user: str) -> Response:
    """Delete all sessions of a user, running ones too, and their files."""
    services: Services = request.app.state.services
    principal = await authorise(request, services)
    user = user.strip()
    if not user or len(user) > MAX_USER_LENGTH:
        wire.refuse(f"A user's id has 1 to {MAX_USER_LENGTH} characters.")
    if not (principal.admin or (principal.vouched and principal.user == user)):
        text = "Only an admin of the tenant, or with a token the users themselves, may do this."
        wire.refuse(text, error="Forbidden", status=403)
    erased = await services.erasure.erase(principal, user)
    return JSONResponse(
        {
            "message": "User deleted successfully",
            "sessions": erased.sessions,
            "objects": erased.objects,
            "complete": erased.complete,
        }
    )

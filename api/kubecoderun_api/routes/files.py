"""What is known of files, their content, and their deletion."""

import re
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import session_files, wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.downloads import Download, headers_of, wanted_range
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.routes.intake import authorise
from kubecoderun_api.services import Services
from kubecoderun_api.session_files import NOTHING, SessionFile, SessionFiles

router = APIRouter()
PATHS: Final = (
    "/files/{session}",
    "/files/{session}/{file}",
    "/sessions/{session}/objects/{file}",
    "/download/{session}/{file}",
)
_READ: Final = ["GET", "HEAD"]
_ID: Final = re.compile(r"[A-Za-z0-9_-]{21}")
"""What clients take for an id; ours are of fewer characters."""


@router.get("/files/{session}")
async def list_files(request: Request, session: str) -> Response:
    """All files of a session, as much as `detail` asks for; none of one that does not exist."""
    services, principal = await _admit(request, session)
    detail = request.query_params.get("detail", session_files.DETAILS[0])
    if detail not in session_files.DETAILS:
        wire.refuse(f"detail must be one of {', '.join(session_files.DETAILS)}")
    files = await _files(services, principal, session)
    services.lifetimes.told_about(session, files, files.live.values())
    return JSONResponse([session_files.entry(file, detail) for file in files.live.values()])


@router.api_route("/sessions/{session}/objects/{file}", methods=_READ)
async def describe(request: Request, session: str, file: str) -> Response:
    """What is known of one file."""
    services, principal = await _admit(request, session, file)
    files = await _files(services, principal, session)
    found = _find(files, file)
    services.lifetimes.told_about(session, files, [found])
    return JSONResponse(session_files.description(found))


@router.head("/download/{session}/{file}")
async def measure(request: Request, session: str, file: str) -> Response:
    """The headers of the content of a file."""
    services, principal = await _admit(request, session, file)
    found = _find(await _files(services, principal, session), file)
    size = await services.store.file_size(session, file)
    if size is None:
        raise _not_found()
    return Response(headers=headers_of(found) | {"content-length": str(size)})


@router.get("/download/{session}/{file}")
async def download(request: Request, session: str, file: str) -> Response:
    """The content of a file, or the part of it that a Range asks for."""
    services, principal = await _admit(request, session, file)
    context: RequestContext = request.scope[CONTEXT]
    found = _find(await _files(services, principal, session), file)
    reader = await services.store.read_file(session, file, wanted_range(found, request.headers))
    if reader.status < 300:
        services.metrics.downloads.labels("sent").inc()
        return Download(
            found,
            reader,
            services.metrics,
            context.exchange,
            requested_at=context.started,
            stall_seconds=services.settings.download_stall_seconds,
        )
    reader.close()
    if reader.status == 416:
        services.metrics.downloads.labels("refused").inc()
        body = {"error": "range_not_satisfiable", "message": "The file has no such part."}
        return JSONResponse(body, 416, {"content-range": f"bytes */{found.size}"})
    services.metrics.downloads.labels("lost").inc()
    context.facts["lost"] = True  # the session says it has the file
    raise _not_found()


@router.delete("/files/{session}/{file}")
async def delete(request: Request, session: str, file: str) -> Response:
    """Delete one file, for everybody and for good."""
    services, principal = await _admit(request, session, file)
    if not await services.removals.remove(session, file, principal):
        raise _not_found()
    return JSONResponse({"message": "File deleted successfully", "session_id": session, "fileId": file})


async def _admit(request: Request, *ids: str) -> tuple[Services, Principal]:
    """Check who calls, and the ids, which go into the log line."""
    services: Services = request.app.state.services
    principal = await authorise(request, services)
    if not all(map(_ID.fullmatch, ids)):
        wire.refuse("An id has 21 letters, digits, dashes or underscores.", error="Bad request")
    context: RequestContext = request.scope[CONTEXT]
    context.facts.update(zip(("session", "file"), ids, strict=False))
    return services, principal


async def _files(services: Services, principal: Principal, session: str) -> SessionFiles:
    resource = await services.sessions.read(session, principal)
    return NOTHING if resource is None else session_files.read(resource, datetime.now(UTC))


def _find(files: SessionFiles, file: str) -> SessionFile:
    found = files.live.get(file)
    if found is None:
        raise _not_found()
    return found


def _not_found() -> wire.BadRequest:
    text = "The session has no such file, or not any more."
    return wire.BadRequest(404, {"error": "File not found", "message": text})

"""What is known of files, their content, and their deletion."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from kubecoderun_api import openapi, schemas, scopes, session_files, wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.downloads import Download, headers_of, wanted_range
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.routes.intake import authorise
from kubecoderun_api.scopes import Scope
from kubecoderun_api.services import Services
from kubecoderun_api.session_files import NOTHING, SessionFile, SessionFiles

router = APIRouter()
PATHS: Final = (
    "/files/{session}",
    "/files/{session}/{file}",
    "/sessions/{session}/objects/{file}",
    "/download/{session}/{file}",
)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{21}")
"""What clients take for an id; ours are of fewer characters."""
# What these declare is for /openapi.json; the routes check it themselves, with errors of our own shape.
_AS_ID: Final = Path(json_schema_extra={"pattern": f"^{_ID.pattern}$"})
_DETAIL: Final = Query(json_schema_extra={"enum": list(session_files.DETAILS)})
SessionId = Annotated[str, _AS_ID]
FileId = Annotated[str, _AS_ID]


@router.get(
    "/files/{session}",
    response_model=None,
    responses=openapi.errors(400, 401, 503)
    | {200: openapi.listing(schemas.FileSummary, schemas.FileDetails, schemas.NormalFile)},
)
async def list_files(
    request: Request, session: SessionId, detail: Annotated[str, _DETAIL] = session_files.DETAILS[0]
) -> Response:
    """All files of a session, as much as `detail` asks for; none of one that does not exist."""
    services, principal = await admit(request, session)
    scope = said(request)
    if detail not in session_files.DETAILS:
        wire.refuse(f"detail must be one of {', '.join(session_files.DETAILS)}")
    files = await _files(services, principal, session, scope)
    services.lifetimes.told_about(session, files, files.live.values())
    return JSONResponse([session_files.entry(file, detail, files.scope) for file in files.live.values()])


@router.head("/sessions/{session}/objects/{file}", include_in_schema=False)
@router.get(
    "/sessions/{session}/objects/{file}",
    response_model=schemas.FileDescription,
    responses=openapi.errors(400, 401, 404, 503),
)
async def describe(request: Request, session: SessionId, file: FileId) -> Response:
    """What is known of one file."""
    services, principal = await admit(request, session, file)
    files = await _files(services, principal, session, said(request))
    found = _find(files, file)
    services.lifetimes.told_about(session, files, [found])
    return JSONResponse(session_files.description(found, files.scope))


@router.head("/download/{session}/{file}", include_in_schema=False)
async def measure(request: Request, session: SessionId, file: FileId) -> Response:
    """The headers of the content of a file."""
    services, principal = await admit(request, session, file)
    found = _find(await _files(services, principal, session, said(request)), file)
    size = await services.store.file_size(session, file)
    if size is None:
        raise _not_found()
    return Response(headers=headers_of(found) | {"content-length": str(size)})


@router.get(
    "/download/{session}/{file}",
    response_model=None,
    responses=openapi.errors(400, 401, 404, 416, 503)
    | {200: openapi.content("the content", "*/*"), 206: openapi.content("a part of it", "*/*")},
)
async def download(request: Request, session: SessionId, file: FileId) -> Response:
    """The content of a file, or the part of it that a Range asks for."""
    services, principal = await admit(request, session, file)
    context: RequestContext = request.scope[CONTEXT]
    found = _find(await _files(services, principal, session, said(request)), file)
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


@router.delete(
    "/files/{session}/{file}",
    response_model=schemas.Deleted,
    responses=openapi.errors(400, 401, 404, 503),
)
async def delete(request: Request, session: SessionId, file: FileId) -> Response:
    """Delete one file, for everybody and for good."""
    services, principal = await admit(request, session, file)
    if not await services.removals.remove(session, file, principal, said(request)):
        raise _not_found()
    return JSONResponse({"message": "File deleted successfully", "session_id": session, "fileId": file})


async def admit(request: Request, *ids: str) -> tuple[Services, Principal]:
    """Check who calls, and the ids, which go into the log line."""
    services: Services = request.app.state.services
    principal = await authorise(request, services)
    if not all(map(_ID.fullmatch, ids)):
        wire.refuse("An id has 21 letters, digits, dashes or underscores.", error="Bad request")
    context: RequestContext = request.scope[CONTEXT]
    context.facts.update(zip(("session", "file"), ids, strict=False))
    return services, principal


def said(request: Request) -> Scope | None:
    """What the caller says the files belong to. Raises wire.BadRequest."""
    query = request.query_params
    return scopes.parse(query.get("kind"), query.get("id"), query.get("version"))


async def _files(services: Services, principal: Principal, session: str, scope: Scope | None) -> SessionFiles:
    """The files of a session that belong to that scope, as far as both are known."""
    resource = await services.sessions.read(session, principal)
    if resource is None:
        return NOTHING
    files = session_files.read(resource, datetime.now(UTC))
    return services.lifetimes.as_used(files) if scopes.admits(files.scope, scope) else NOTHING


def _find(files: SessionFiles, file: str) -> SessionFile:
    found = files.live.get(file)
    if found is None:
        raise _not_found()
    return found


def _not_found() -> wire.BadRequest:
    text = "The session has no such file, or not any more."
    return wire.BadRequest(404, {"error": "File not found", "message": text})

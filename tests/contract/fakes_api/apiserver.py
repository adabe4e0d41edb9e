"""An API server that knows two kinds and just enough of lists, watches, selectors and patches.

Tests play the operator: they wait for a session with `created`, and end it with `finish`. They break things
with the fields under "faults".
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from contract.fakes_api.serving import serve
from kubecoderun_crds import names

Json = dict[str, Any]
PATH = f"/apis/{names.API_VERSION}/namespaces/kubecoderun"


def pool(name: str = "python", *languages: str, available: bool = True, **spec: Any) -> Json:
    """An ExecutionPool as the API server would give it."""
    status = {"conditions": [{"type": "Available", "status": str(available), "reason": "x", "message": ""}]}
    runtime = {"image": "example.org/python:1", "languages": list(languages) or ["py"]}
    return {"metadata": {"name": name}, "spec": {"runtime": runtime, **spec}, "status": status}


def succeeded(stdout: str = "", **more: Any) -> Json:
    """The status of a program that ended well; keyword arguments replace parts of it."""
    return {
        "phase": "Succeeded",
        "reason": "Succeeded",
        "result": {
            "exitCode": 0,
            "stdout": stdout,
            "stdoutBytes": len(stdout.encode()),
            "stdoutTruncated": False,
            "stderr": "",
            "stderrBytes": 0,
            "stderrTruncated": False,
            "stored": False,
        },
        "usage": {"wallSeconds": 0.0123, "cpuSeconds": 0.01, "maxRssBytes": 1000},
        **more,
    }


def ended(reason: str, **more: Any) -> Json:
    """The status of a session that ended otherwise, without a result unless one is given."""
    phases = {"TimeLimit": "TimedOut", "Cancelled": "Cancelled"}
    return {"phase": phases.get(reason, "Failed"), "reason": reason, **more}


def held(name: str, *files: Json, **spec: Any) -> Json:
    """A session of mode Files."""
    return {
        "metadata": {"name": name, "creationTimestamp": now()},
        "spec": {"request": {"mode": "Files", "files": list(files)}, **spec},
        "status": {"phase": "Held", "reason": "FilesHeld", "timings": {"completed": now()}},
    }


def ran(name: str, *files: Json, **spec: Any) -> Json:
    """A session of a run that left files."""
    return {
        "metadata": {"name": name, "creationTimestamp": now()},
        "spec": {"request": {"poolRef": {"name": "python"}, "language": "py", "code": "x"}, **spec},
        "status": succeeded(files=list(files), timings={"completed": now()}),
    }


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeApiServer:
    """Its state, what was asked of it, and what it is told to do wrong."""

    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    """How often each verb was used: list, watch, create, get, patch, delete; followed by the plural."""
    patches: list[Any] = field(default_factory=list)
    """Every patch as it came."""
    selectors: list[str] = field(default_factory=list)
    answer: Callable[[Json], Json | None] = lambda session: None
    """Called for every created session: the status with which to end it at once, or None."""
    url: str = ""

    # faults
    post_statuses: list[int] = field(default_factory=list)
    """Statuses to answer the next POSTs with, without creating anything; 0 cuts the connection."""
    swallow_posts: int = 0
    """How many of the next POSTs are carried out but never answered."""
    get_statuses: list[int] = field(default_factory=list)
    patch_statuses: list[int] = field(default_factory=list)
    delete_statuses: list[int] = field(default_factory=list)
    before_patch: Callable[[], None] = lambda: None
    """Called before a patch is applied: what somebody else does in between."""
    before_delete: Callable[[], None] = lambda: None
    """The same before a deletion."""
    watch_statuses: list[int] = field(default_factory=list)
    """Statuses to answer the next watches of sessions with."""
    deaf: bool = False
    """Whether watches are accepted but tell nothing."""

    _version: int = 100
    _oldest: int = 0
    _events: list[tuple[int, str, str, Json]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _streams: set[asyncio.Task[Any]] = field(default_factory=set)

    # --- what tests do ------------------------------------------------------------------------------

    def put(self, plural: str, resource: Json) -> None:
        """Create or change an object."""
        key = (plural, resource["metadata"]["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self._record(kind, plural, resource)
        self.objects[key] = resource

    def put_pool(self, resource: Json) -> None:
        self.put(names.POOL_PLURAL, resource)

    def delete(self, plural: str, name: str) -> None:
        self._record("DELETED", plural, self.objects.pop((plural, name)))

    def sessions(self) -> list[Json]:
        return [value for (plural, _), value in self.objects.items() if plural == names.SESSION_PLURAL]

    async def created(self, count: int = 1) -> Json:
        """Wait for that many sessions; the last one."""
        await self.until(lambda: len(self.sessions()) >= count)
        return self.sessions()[-1]

    async def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something that follows from requests to this server."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - the condition may be anything
                await asyncio.sleep(0.005)

    def finish(self, name: str, status: Json) -> None:
        """Write a status, as the operator would."""
        session = self.objects[names.SESSION_PLURAL, name]
        self.put(names.SESSION_PLURAL, {**session, "status": status})

    def break_watches(self) -> None:
        """Cut every open watch in the middle."""
        for stream in set(self._streams):
            stream.cancel()

    def forget_history(self) -> None:
        """Versions up to now are too old from now on (410), as after a compaction."""
        self._version += 1
        self._oldest = self._version
        self._events.clear()

    # --- what the front end does --------------------------------------------------------------------

    def _record(self, kind: str, plural: str, resource: Json) -> None:
        self._version += 1
        resource["metadata"]["resourceVersion"] = str(self._version)
        self._events.append((self._version, kind, plural, json.loads(json.dumps(resource))))
        self._changed.set()
        self._changed = asyncio.Event()

    async def read_collection(self, request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        selector = request.query.get("labelSelector", "")
        self.selectors.append(selector)
        if request.query.get("watch"):
            self.requests[f"watch {plural}"] += 1
            return await self._watch(request, plural, selector)
        self.requests[f"list {plural}"] += 1
        items = [o for (p, _), o in self.objects.items() if p == plural and _matches(o, selector)]
        only_metadata = "PartialObjectMetadataList" in request.headers.get("Accept", "")
        # as the real one does it
        found = None if only_metadata and not items else items
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": found})

    async def _watch(self, request: web.Request, plural: str, selector: str) -> web.StreamResponse:
        if self.watch_statuses and plural == names.SESSION_PLURAL:
            return _status(self.watch_statuses.pop(0))
        version = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                await self._stream(response, plural, selector, version)
        except TimeoutError:
            await response.write_eof()
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams.discard(task)
        return response

    async def _stream(self, response: web.StreamResponse, plural: str, selector: str, version: int) -> None:
        if version < self._oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}}
        await response.write(json.dumps(bookmark).encode() + b"\n")
        visible: dict[str, Json] = {}
        while True:
            changed = self._changed
            for moment, kind, of, resource in list(self._events):
                if moment > version and of == plural and not self.deaf:
                    version = moment
                    name = resource["metadata"]["name"]
                    before = visible.pop(name, None)
                    if _matches(resource, selector):
                        visible[name] = resource
                        event = {"type": kind, "object": resource}
                        if before is None and kind == "MODIFIED":
                            event["type"] = "ADDED"
                    elif before is not None:
                        # As the API server tells of an object whose labels do not match any more.
                        version_now = {**before["metadata"], "resourceVersion": str(moment)}
                        event = {"type": "DELETED", "object": {**before, "metadata": version_now}}
                    else:
                        continue
                    await response.write(json.dumps(event).encode() + b"\n")
            await changed.wait()

    async def create(self, request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        self.requests[f"create {plural}"] += 1
        if self.post_statuses:
            status = self.post_statuses.pop(0)
            if status == 0 and request.transport is not None:
                request.transport.abort()
            return _status(status or 500)
        resource = await request.json()
        name = resource["metadata"]["name"]
        if (plural, name) in self.objects:
            return _status(409, "AlreadyExists")
        uid = f"uid-{name}-{self.requests[f'create {plural}']}"
        resource["metadata"] |= {"uid": uid, "generation": 1, "creationTimestamp": now()}
        self.put(plural, resource)
        status = self.answer(resource)
        if status is not None:
            self.finish(name, status)
        if self.swallow_posts > 0:
            self.swallow_posts -= 1
            await asyncio.sleep(3600)
        return web.json_response(resource, status=201)

    async def read(self, request: web.Request) -> web.StreamResponse:
        plural, name = request.match_info["plural"], request.match_info["name"]
        self.requests[f"get {plural}"] += 1
        if self.get_statuses:
            return _status(self.get_statuses.pop(0))
        found = self.objects.get((plural, name))
        return _status(404, "NotFound") if found is None else web.json_response(found)

    async def patch(self, request: web.Request) -> web.StreamResponse:
        plural, name = request.match_info["plural"], request.match_info["name"]
        self.requests[f"patch {plural}"] += 1
        change = await request.json()
        self.patches.append(change)
        if self.patch_statuses:
            return _status(self.patch_statuses.pop(0))
        self.before_patch()
        found = self.objects.get((plural, name))
        if found is None:
            return _status(404, "NotFound")
        resource = json.loads(json.dumps(found))
        if request.content_type == "application/json-patch+json":
            if not _apply(resource, change):
                return _status(422, "Invalid")
        else:
            assert request.content_type == "application/merge-patch+json"
            _merge(resource, change)
        if not _allowed(found, resource):
            return _status(422, "Invalid")
        self.put(plural, resource)
        return web.json_response(resource)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        plural, name = request.match_info["plural"], request.match_info["name"]
        self.requests[f"delete {plural}"] += 1
        if self.delete_statuses:
            return _status(self.delete_statuses.pop(0))
        self.before_delete()
        found = self.objects.get((plural, name))
        if found is None:
            return _status(404, "NotFound")
        wanted = (await request.json()).get("preconditions", {}) if request.can_read_body else {}
        if wanted.get("uid", found["metadata"].get("uid")) != found["metadata"].get("uid"):
            return _status(409, "Conflict")
        self.delete(plural, name)
        return web.json_response({"kind": "Status", "status": "Success"})


def _merge(target: Json, change: Json) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def _apply(target: Json, operations: list[Json]) -> bool:
    """JSON patch with `test` and `add`; whether it could be applied."""
    for operation in operations:
        *path, last = operation["path"].split("/")[1:]
        place: Any = target
        for key in path:
            place = place[key]
        if operation["op"] == "test":
            if place.get(last) != operation["value"]:
                return False
        elif last == "-":
            place.append(operation["value"])
        else:
            place[last] = operation["value"]
    return True


def _allowed(before: Json, after: Json) -> bool:
    """The rules of the resource that patches of the front end could break."""
    old, new = before["spec"], after["spec"]
    removed = new.get("removedFiles", [])
    return (
        old.get("request") == new.get("request")
        and len(set(removed)) == len(removed)
        and set(old.get("removedFiles", [])) <= set(removed)
        and old.get("expiresAt", "") <= new.get("expiresAt", "")
        and all(new.get("toolResults", {}).get(id) == had for id, had in old.get("toolResults", {}).items())
    )


def _status(code: int, reason: str = "Fault") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason}, status=code)


def _matches(resource: Json, selector: str) -> bool:
    labels = resource["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        if part.startswith("!"):
            if part[1:] in labels:
                return False
        elif "=" not in part:
            if part not in labels:
                return False
        elif labels.get(part.partition("=")[0]) != part.partition("=")[2]:
            return False
    return True


@asynccontextmanager
async def api_server() -> AsyncIterator[FakeApiServer]:
    """A running API server with one pool for Python."""
    server = FakeApiServer()
    server.put_pool(pool())
    app = web.Application(client_max_size=2**24)
    app.router.add_get(PATH + "/{plural}", server.read_collection)
    app.router.add_post(PATH + "/{plural}", server.create)
    app.router.add_get(PATH + "/{plural}/{name}", server.read)
    app.router.add_patch(PATH + "/{plural}/{name}", server.patch)
    app.router.add_delete(PATH + "/{plural}/{name}", server.remove)
    async with serve(app) as url:
        server.url = url
        yield server

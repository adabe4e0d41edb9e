"""The API server's HTTP: discovery, CRUD, lists in pages, watches with selectors, and faults on demand."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from contract.fakes.store import Event, Json, RefusedError, Store, merged, patched
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES
from kubecoderun_crds.session import SessionStatus

_PATHS = re.compile(
    r"/(?:api|apis/[^/]+)/[^/]+/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<subresource>[a-z]+))?"
)


@dataclass(frozen=True)
class Request:
    """One request as an audit log would have it."""

    verb: str
    resource: str
    name: str
    code: int
    dry_run: bool = False
    body: Any = None

    @property
    def is_write(self) -> bool:
        return self.verb not in ("get", "list", "watch") and not self.dry_run


@dataclass
class Fault:
    """Refuses or delays requests of a verb and resource, so many times."""

    verb: str
    resource: str
    times: int
    status: int = 500
    headers: tuple[tuple[str, str], ...] = ()
    reason: str = "InternalError"
    after: bool = False
    """Carry the request out all the same: only the answer is lost."""


FAILURE = Event(0, "ERROR", {"kind": "Status", "code": 500, "reason": "InternalError"}, None)
"""In the queue of a watch: it ends with this error."""


class ApiServer:
    """Serves a Store on a port of the loopback interface."""

    def __init__(self) -> None:
        self.store = Store()
        self.store.check = _check
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.url = ""
        self.watch_delay: Callable[[str], float] = lambda _resource: 0.0
        """Seconds by which events of a resource come late."""
        self.unseen: set[str] = set()
        """Resources whose events get lost: watches stay open and say nothing of them."""
        self.delete_pod: Callable[[Json, int], None] | None = None
        """What a node does about a pod that is to end; without one, pods are gone at once."""
        self.kinds_served = True
        self.held: dict[tuple[str, str], asyncio.Event] = {}
        """Requests of a verb and resource wait, before they are carried out, until the event is set."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ApiServer"]:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            for collection in self.store.collections.values():
                for watcher in collection.watchers:
                    watcher.put_nowait(None)
            await runner.cleanup()

    def writes(self, *, since: int = 0, leases: bool = False) -> list[Request]:
        """Writes that were carried out, from an index of the log on."""
        done = [entry for entry in self.log[since:] if entry.is_write and entry.code < 300]
        return done if leases else [entry for entry in done if entry.resource != "leases"]

    def fail_watches(self, resource: str) -> None:
        """Tell an internal error in all watches of a resource."""
        for watcher in self.store.collections[resource].watchers:
            watcher.put_nowait(FAILURE)

    # --- requests ---------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith(("/api", "/apis")) and (found := self._discovery(request.path)):
            return web.json_response(found)
        match = _PATHS.fullmatch(request.path)
        if match is None or match["resource"] not in self.store.collections:
            return _refusal(RefusedError(404, "NotFound", "the server could not find the requested resource"))
        namespace, resource = match["namespace"], match["resource"]
        name, subresource = match["name"] or "", match["subresource"] or ""
        verb = _verb(request, name)
        if verb == "watch":
            return await self._watch(request, resource, namespace)
        body = json.loads(await request.read() or b"null")
        dry_run = request.query.get("dryRun") == "All"
        label = f"{resource}/{subresource}" if subresource else resource
        if verb == "create":
            name = body["metadata"]["name"]
        if held := self.held.get((verb, label)):
            await held.wait()
        fault = self._fault(verb, label)
        status, found = 200, {}
        try:
            if fault is not None and not fault.after:
                raise RefusedError(fault.status, fault.reason, "injected", dict(fault.headers))
            found = self._carry_out(request, verb, resource, namespace, name, subresource, body, dry_run)
            status = 201 if verb == "create" else 200
            if fault is not None:
                raise RefusedError(fault.status, fault.reason, "injected", dict(fault.headers))
        except RefusedError as refusal:
            self.log.append(Request(verb, label, name, refusal.status, dry_run, body))
            return _refusal(refusal)
        self.log.append(Request(verb, label, name, status, dry_run, body))
        return web.Response(status=status, body=json.dumps(found).encode(), content_type="application/json")

    def _carry_out(
        self,
        request: web.Request,
        verb: str,
        resource: str,
        namespace: str,
        name: str,
        subresource: str,
        body: Any,
        dry_run: bool,
    ) -> Json:
        store = self.store
        match verb:
            case "get":
                return store.get(resource, namespace, name)
            case "list":
                return self._list(request, resource, namespace)
            case "create":
                return store.create(resource, namespace, body, dry_run=dry_run)
            case "update":
                return store.replace(resource, body)
            case "patch" if request.content_type == "application/apply-patch+yaml":
                return self._apply(resource, namespace, name, body)
            case "patch":
                edit = _editor(request.content_type, body)
                return store.change(resource, namespace, name, edit, subresource)
            case "delete":
                return self._delete(resource, namespace, name, body or {})
        raise RefusedError(405, "MethodNotAllowed", verb)

    def _apply(self, resource: str, namespace: str, name: str, body: Json) -> Json:
        """As server-side apply by the only manager there is: what it does not say any more is gone."""
        if (namespace, name) not in self.store.collections[resource].objects:
            return self.store.create(resource, namespace, body)

        def replaced(found: Json) -> Json:
            kept = {**found["metadata"], **body["metadata"]}
            return {**body, "metadata": kept}

        return self.store.change(resource, namespace, name, replaced)

    def _delete(self, resource: str, namespace: str, name: str, body: Json) -> Json:
        found = self.store.get(resource, namespace, name)
        grace = int(body.get("gracePeriodSeconds", 30))
        if resource != "pods" or self.delete_pod is None or grace == 0:
            return self.store.delete(resource, namespace, name, body.get("preconditions"))
        self.store.demand(found, body.get("preconditions") or {})
        self.delete_pod(found, grace)
        return found

    def _list(self, request: web.Request, resource: str, namespace: str) -> Json:
        chosen = [
            entry
            for (place, _), entry in sorted(self.store.collections[resource].objects.items())
            if place == namespace and _selects(request, entry)
        ]
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(chosen) + 1
        page = chosen[start : start + limit]
        more = str(start + limit) if start + limit < len(chosen) else ""
        if "PartialObjectMetadataList" in request.headers.get("Accept", ""):
            page = [{"metadata": entry["metadata"]} for entry in page]
        meta = {"resourceVersion": str(self.store.version), "continue": more}
        # Of an empty list the real one says null where only metadata is wanted.
        found = page or (None if "PartialObjectMetadataList" in request.headers.get("Accept", "") else [])
        return {"kind": "List", "apiVersion": "v1", "metadata": meta, "items": found}

    async def _watch(self, request: web.Request, resource: str, namespace: str) -> web.StreamResponse:
        collection = self.store.collections[resource]
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        since = int(request.query.get("resourceVersion") or self.store.version)
        if since < collection.forgotten:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        for event in collection.events:
            if event.version > since:
                queue.put_nowait(event)
        collection.watchers.add(queue)
        try:
            while (news := await queue.get()) is not None:
                if news is FAILURE:
                    error = {"type": news.kind, "object": news.object}
                    await response.write(json.dumps(error).encode() + b"\n")
                    break
                if resource in self.unseen:
                    continue
                if delay := self.watch_delay(resource):
                    await asyncio.sleep(delay)
                line = _seen_by(request, news, namespace)
                if line is not None:
                    await response.write(line)
        except (ConnectionResetError, asyncio.CancelledError):
            pass
        finally:
            collection.watchers.discard(queue)
        return response

    def _fault(self, verb: str, resource: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.verb in (verb, "*") and fault.resource in (resource, "*"):
                fault.times -= 1
                return fault
        return None

    def _discovery(self, path: str) -> Json | None:
        ours = f"/apis/{names.API_VERSION}"
        version = {"groupVersion": names.API_VERSION, "version": names.VERSION}
        group = {"name": names.GROUP, "versions": [version], "preferredVersion": version}
        kinds = [(names.POOL_PLURAL, names.POOL_KIND), (names.SESSION_PLURAL, names.SESSION_KIND)]
        answers: dict[str, Json] = {
            "/api": {"versions": ["v1"]},
            "/apis": {"groups": [group] if self.kinds_served else []},
            "/api/v1": {"resources": [_kind("pods", "Pod"), _kind("namespaces", "Namespace", False)]},
            ours: {"resources": [_kind(*kind) for kind in kinds] if self.kinds_served else []},
        }
        return answers.get(path)


def _kind(plural: str, kind: str, namespaced: bool = True) -> Json:
    verbs = ["get", "list", "watch", "create", "patch", "delete"]
    return {"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs}


def _verb(request: web.Request, name: str) -> str:
    if request.method == "GET":
        return "watch" if request.query.get("watch") == "true" else ("get" if name else "list")
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]


def _editor(content_type: str, body: Any) -> Callable[[Json], Json]:
    if content_type == "application/json-patch+json":
        return lambda document: patched(document, body)
    return lambda document: merged(document, body)


def _refusal(refusal: RefusedError) -> web.Response:
    body = {"kind": "Status", "code": refusal.status, "reason": refusal.reason, "message": refusal.message}
    return web.json_response(body, status=refusal.status, headers=refusal.headers)


def _seen_by(request: web.Request, event: Event, namespace: str) -> bytes | None:
    """The event as a watch with these selectors shows it: objects appear and vanish as they match or not."""
    if event.object["metadata"]["namespace"] != namespace:
        return None
    before = event.before is not None and _selects(request, event.before)
    after = event.kind != "DELETED" and _selects(request, event.object)
    if not before and not after:
        return None
    kind = "DELETED" if not after else ("MODIFIED" if before else "ADDED")
    shown = event.object
    if kind == "DELETED" and event.kind != "DELETED" and event.before is not None:
        # An object that leaves the selection is shown as it was, with the new version.
        shown = {**event.before, "metadata": dict(event.before["metadata"])}
        shown["metadata"]["resourceVersion"] = str(event.version)
    return json.dumps({"type": kind, "object": shown}).encode() + b"\n"


def _selects(request: web.Request, entry: Json) -> bool:
    labels = entry["metadata"].get("labels") or {}
    for term in filter(None, request.query.get("labelSelector", "").split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    for term in filter(None, request.query.get("fieldSelector", "").split(",")):
        path, negated, value = term.partition("!=")
        if not negated:
            path, _, value = term.partition("=")
        found: Any = entry
        for part in path.split("."):
            found = (found or {}).get(part)
        if ((found or "") == value) == bool(negated):
            return False
    return True


def _check(resource: str, before: Json, after: Json) -> None:
    """The rules of the session CRD that the operator relies on."""
    if resource != names.SESSION_PLURAL:
        return
    old, new = before.get("status") or {}, after.get("status") or {}
    SessionStatus.model_validate(new)
    if old.get("phase") in TERMINAL_PHASES and new.get("phase") != old["phase"]:
        raise RefusedError(422, "Invalid", "an ended session keeps its phase")
    if new.get("phase") in TERMINAL_PHASES and not (new.get("timings") or {}).get("completed"):
        raise RefusedError(422, "Invalid", "an ended session has timings.completed")
    for field in ("epoch", "attempts", "observedGeneration"):
        if new.get(field, -1) < old.get(field, -1):
            raise RefusedError(422, "Invalid", f"status.{field} never falls")
    pods = [status.get("pod", {}).get("uid") for status in (old, new)]
    if all(pods) and pods[0] != pods[1] and new.get("attempts", 0) <= old.get("attempts", 0):
        raise RefusedError(422, "Invalid", "another pod needs another attempt")

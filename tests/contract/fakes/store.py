"""Objects with uids, versions, generations and a history of events, as the API server keeps them. No HTTP."""

import asyncio
import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


class RefusedError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message
        self.headers = headers or {}


@dataclass
class Event:
    """One change of one object, with the object before it."""

    version: int
    kind: str
    object: Json
    before: Json | None


@dataclass
class Collection:
    """All objects of one resource, and what happened to them."""

    resource: str
    has_status: bool
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    watchers: set[asyncio.Queue[Event | None]] = field(default_factory=set)
    forgotten: int = 0
    """Watches from this version or an older one are answered with 410."""


class Store:
    """Collections that share one version counter."""

    def __init__(self) -> None:
        self.version = 1000
        self.collections = {
            name: Collection(name, has_status)
            for name, has_status in [
                ("pods", True),
                ("executionpools", True),
                ("executionsessions", True),
                ("leases", False),
                ("events", False),
                ("networkpolicies", False),
            ]
        }
        self.admit: Callable[[str, Json], None] = lambda _resource, _object: None
        """Raises RefusedError for a new object that is not let in."""
        self.check: Callable[[str, Json, Json], None] = lambda _resource, _before, _after: None
        """Raises RefusedError for a change that is not let through."""

    def get(self, resource: str, namespace: str, name: str) -> Json:
        found = self.collections[resource].objects.get((namespace, name))
        if found is None:
            raise RefusedError(404, "NotFound", f'{resource} "{name}" not found')
        return found

    def all(self, resource: str) -> list[Json]:
        return list(self.collections[resource].objects.values())

    def create(self, resource: str, namespace: str, given: Json, *, dry_run: bool = False) -> Json:
        made = copy.deepcopy(given)
        meta = made.setdefault("metadata", {})
        key = (namespace, meta["name"])
        if key in self.collections[resource].objects:
            raise RefusedError(409, "AlreadyExists", f'{resource} "{meta["name"]}" already exists')
        meta.update(namespace=namespace, uid=str(uuid.uuid4()), generation=1, creationTimestamp=now())
        if self.collections[resource].has_status and resource != "pods":
            made.pop("status", None)
        self.admit(resource, made)
        if not dry_run:
            self._put(resource, made, "ADDED", None)
        return made

    def replace(self, resource: str, given: Json) -> Json:
        meta = given["metadata"]
        before = self.get(resource, meta["namespace"], meta["name"])
        if meta.get("resourceVersion") != before["metadata"]["resourceVersion"]:
            raise RefusedError(409, "Conflict", "the object has been modified")
        return self._put(resource, copy.deepcopy(given), "MODIFIED", before)

    def change(
        self, resource: str, namespace: str, name: str, edit: Callable[[Json], Json], subresource: str = ""
    ) -> Json:
        """Apply an edit to a copy; only the status, or everything but the status, is taken over."""
        before = self.get(resource, namespace, name)
        edited = edit(copy.deepcopy(before))
        after = copy.deepcopy(before)
        if subresource == "status":
            after.pop("status", None)
            if "status" in edited:
                after["status"] = edited["status"]
        else:
            kept = before.get("status")
            after = edited
            if self.collections[resource].has_status and resource != "pods":
                after.pop("status", None)
                if kept is not None:
                    after["status"] = kept
            if after.get("spec") != before.get("spec"):
                after["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
        if after == before:
            return before
        self.check(resource, before, after)
        return self._put(resource, after, "MODIFIED", before)

    def delete(self, resource: str, namespace: str, name: str, preconditions: Json | None = None) -> Json:
        """Remove at once, and with it everything that it owns."""
        before = self.get(resource, namespace, name)
        self.demand(before, preconditions or {})
        del self.collections[resource].objects[namespace, name]
        after = copy.deepcopy(before)
        self._record(resource, after, "DELETED", before)
        for kind in ("pods", "networkpolicies"):
            for owned in self.all(kind):
                owners = {owner["uid"] for owner in owned["metadata"].get("ownerReferences", ())}
                if before["metadata"]["uid"] in owners:
                    self.delete(kind, owned["metadata"]["namespace"], owned["metadata"]["name"])
        return before

    @staticmethod
    def demand(object: Json, preconditions: Json) -> None:
        for name in ("uid", "resourceVersion"):
            if name in preconditions and object["metadata"][name] != preconditions[name]:
                raise RefusedError(409, "Conflict", f"the {name} in the precondition does not match")

    def _put(self, resource: str, made: Json, kind: str, before: Json | None) -> Json:
        meta = made["metadata"]
        self.collections[resource].objects[meta["namespace"], meta["name"]] = made
        self._record(resource, made, kind, before)
        return made

    def _record(self, resource: str, object: Json, kind: str, before: Json | None) -> None:
        self.version += 1
        object["metadata"]["resourceVersion"] = str(self.version)
        collection = self.collections[resource]
        event = Event(self.version, kind, copy.deepcopy(object), copy.deepcopy(before))
        collection.events.append(event)
        for watcher in collection.watchers:
            watcher.put_nowait(event)

    # --- faults -----------------------------------------------------------------------------------

    def forget_history(self, resource: str, *, quietly: Callable[[], None] | None = None) -> None:
        """End all watches, and answer 410 to those that want to go on from before this moment.

        quietly: changes that no watch will ever show.
        """
        collection = self.collections[resource]
        watchers, collection.watchers = collection.watchers, set()
        if quietly is not None:
            quietly()
        self.version += 1
        collection.forgotten = self.version
        for watcher in watchers:
            watcher.put_nowait(None)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def patched(document: Json, operations: list[Json]) -> Json:
    """JSON patch: test, add, replace and remove. A failed test is a 422."""
    for operation in operations:
        path = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        parent: Any = document
        for part in path[:-1]:
            if part not in parent:
                raise RefusedError(422, "Invalid", f"path {operation['path']} is missing")
            parent = parent[part]
        last, name = path[-1], operation["op"]
        if name == "test" and parent.get(last) != operation["value"]:
            raise RefusedError(422, "Invalid", f"testing value {operation['path']} failed")
        if name in ("replace", "remove") and last not in parent:
            raise RefusedError(422, "Invalid", f"path {operation['path']} is missing")
        if name in ("add", "replace"):
            parent[last] = operation["value"]
        elif name == "remove":
            del parent[last]
    return document


def merged(document: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result

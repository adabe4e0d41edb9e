"""Every request to the API server (beside kopf's watches) is sent from here, as raw JSON.

Before each attempt of a write the lease is checked: an operator that may no longer lead writes nothing.
Attempts have a time limit shorter than what the lease outlives its last renewal, so a write cannot arrive
late either.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES
from kubecoderun_operator import metrics
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.pods import JsonObject, JsonPatch

UNFINISHED: Final = ",".join(f"status.phase!={phase}" for phase in sorted(TERMINAL_PHASES))
"""Field selector of sessions that have not ended."""
_PAGE_SIZE: Final = 200
_RETRIED: Final = frozenset({401, 408, 429, 500, 502, 503, 504})
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"
_FIELD_MANAGER: Final = {"fieldManager": names.OPERATOR_FIELD_MANAGER}
_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}


class ApiError(Exception):
    """The API server's answer to a request it does not carry out."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        """In the API server's own words."""
        self.retry_after = retry_after
        """Seconds it asks to wait before the next attempt."""


class ApiUnreachableError(Exception):
    """No answer within the patience. A write may have happened or not."""


class NotLeadingError(Exception):
    """The lease does not cover this moment: nothing may be written."""


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Seconds for one attempt of a write or a lease, of a read, and for all attempts together."""

    attempt: float
    patience: float
    read: float = 10.0


@dataclass(slots=True)
class _Call:
    verb: str
    resource: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    content_type: str = _JSON
    accept: str = _JSON
    hurried: bool = False
    """Limited like a write, whatever it is."""
    done: Callable[[], bool] = lambda: False
    """Whether a failed attempt is known to have had its effect."""
    outright: bool = False
    """Names no version of its object: a conflict is between others, on the API server's side, and passes."""


class Cluster:
    """A keep-alive HTTP client of one API server."""

    def __init__(self, connection: Connection, limits: ApiLimits, check_lease: Callable[[], None]) -> None:
        """check_lease raises NotLeadingError if this process may not write now."""
        self._connection = connection
        self._limits = limits
        self._check_lease = check_lease
        self._session = connection.session({"User-Agent": names.OPERATOR_FIELD_MANAGER})

    async def close(self) -> None:
        await self._session.close()

    # --- sessions ---------------------------------------------------------------------------------

    async def session(self, namespace: str, name: str) -> JsonObject:
        """One session. ApiError 404 if there is none."""
        return await self._send(
            _Call("get", names.SESSION_PLURAL, _ours(namespace, names.SESSION_PLURAL, name))
        )

    def unfinished_sessions(self, namespace: str) -> AsyncIterator[JsonObject]:
        """All sessions that have not ended."""
        return self._list(
            _Call("list", names.SESSION_PLURAL, _ours(namespace, names.SESSION_PLURAL)),
            {"fieldSelector": UNFINISHED},
        )

    def session_metadata(self, namespace: str) -> AsyncIterator[JsonObject]:
        """Names, uids and times of all sessions, without their contents."""
        call = _Call(
            "list", names.SESSION_PLURAL, _ours(namespace, names.SESSION_PLURAL), accept=_METADATA_ONLY
        )
        return self._list(call, {})

    async def write_session_status(
        self, namespace: str, name: str, uid: str, status: JsonObject
    ) -> JsonObject:
        """Replace the status of the session with this uid; repeated until answered or the lease is lost.

        ApiError 404 or 422 if there is no such session, or if it does not take this status.
        """
        patch: JsonPatch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = f"{_ours(namespace, names.SESSION_PLURAL, name)}/status"
        call = _Call(
            "patch", "executionsessions/status", path, _FIELD_MANAGER, patch, _JSON_PATCH, outright=True
        )
        return await self._send(call, write=True, patience=float("inf"))

    async def delete_session(self, namespace: str, name: str, uid: str, version: str | None) -> None:
        """Delete a session, if it is still this one and, given a resourceVersion, unchanged (409
        otherwise)."""
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        body = {"preconditions": preconditions, "propagationPolicy": "Background"}
        path = _ours(namespace, names.SESSION_PLURAL, name)
        await self._send(_Call("delete", names.SESSION_PLURAL, path, body=body), write=True)

    # --- pools ------------------------------------------------------------------------------------

    async def pool(self, namespace: str, name: str) -> JsonObject:
        """One pool. ApiError 404 if there is none."""
        return await self._send(_Call("get", names.POOL_PLURAL, _ours(namespace, names.POOL_PLURAL, name)))

    def pools(self, namespace: str) -> AsyncIterator[JsonObject]:
        """All pools."""
        return self._list(_Call("list", names.POOL_PLURAL, _ours(namespace, names.POOL_PLURAL)), {})

    async def write_pool_status(self, namespace: str, name: str, uid: str, status: JsonObject) -> JsonObject:
        """Replace the status of the pool with this uid."""
        patch: JsonPatch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        path = f"{_ours(namespace, names.POOL_PLURAL, name)}/status"
        call = _Call(
            "patch", "executionpools/status", path, _FIELD_MANAGER, patch, _JSON_PATCH, outright=True
        )
        return await self._send(call, write=True)

    # --- pods -------------------------------------------------------------------------------------

    async def pod(self, namespace: str, name: str) -> JsonObject:
        """One pod. ApiError 404 if there is none."""
        return await self._send(_Call("get", "pods", _pods(namespace, name)))

    def pods(self, namespace: str) -> AsyncIterator[JsonObject]:
        """All pods of pools."""
        return self._list(_Call("list", "pods", _pods(namespace)), {"labelSelector": names.LABEL_POOL})

    def pod_metadata(self, namespace: str) -> AsyncIterator[JsonObject]:
        """Names, uids, labels and owners of all pods of pools."""
        call = _Call("list", "pods", _pods(namespace), accept=_METADATA_ONLY)
        return self._list(call, {"labelSelector": names.LABEL_POOL})

    async def create_pod(
        self, manifest: JsonObject, *, dry_run: bool = False, seen: Callable[[], bool] = lambda: False
    ) -> JsonObject:
        """Create a pod, or ask whether the API server would. ApiError 409 if the name is taken.

        seen: whether the pod is known to have been created after all; then a failed attempt is not repeated,
        and the answer is empty. By now the pod may have been used and deleted, and its name free again.
        """
        query = {**_FIELD_MANAGER, "dryRun": "All"} if dry_run else _FIELD_MANAGER
        path = _pods(manifest["metadata"]["namespace"])
        call = _Call("create", "pods", path, query, manifest, outright=True, done=seen)
        return await self._send(call, write=True)

    async def patch_pod(self, namespace: str, name: str, patch: JsonPatch) -> JsonObject:
        """Change a pod. ApiError 422 if a test in the patch fails."""
        call = _Call(
            "patch", "pods", _pods(namespace, name), _FIELD_MANAGER, patch, _JSON_PATCH, outright=True
        )
        return await self._send(call, write=True)

    async def delete_pod(
        self, namespace: str, name: str, uid: str, grace_seconds: int, version: str | None = None
    ) -> None:
        """Delete the pod with this uid; with a resourceVersion only if it is unchanged (ApiError 409
        otherwise).

        A pod that is gone, or is not this one any more, is no error.
        """
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        body = {"preconditions": preconditions, "gracePeriodSeconds": grace_seconds}
        try:
            await self._send(_Call("delete", "pods", _pods(namespace, name), body=body), write=True)
        except ApiError as error:
            # 409: a precondition does not hold.
            if error.status != 404 and (error.status != 409 or version is not None):
                raise

    # --- events -----------------------------------------------------------------------------------

    async def create_event(self, body: JsonObject) -> JsonObject:
        """Create an Event. ApiError 409 if the name is taken."""
        path = f"/api/v1/namespaces/{body['metadata']['namespace']}/events"
        return await self._send(_Call("create", "events", path, _FIELD_MANAGER, body), write=True)

    async def patch_event(self, namespace: str, name: str, changes: JsonObject) -> JsonObject:
        """Change fields of an Event. ApiError 404 if it has been forgotten."""
        path = f"/api/v1/namespaces/{namespace}/events/{name}"
        call = _Call("patch", "events", path, _FIELD_MANAGER, changes, _MERGE_PATCH)
        return await self._send(call, write=True)

    # --- network policies -------------------------------------------------------------------------

    async def network_policy(self, namespace: str, name: str) -> JsonObject:
        """One NetworkPolicy. ApiError 404 if there is none."""
        return await self._send(_Call("get", "networkpolicies", _policies(namespace, name)))

    def network_policies(self, namespace: str) -> AsyncIterator[JsonObject]:
        """All NetworkPolicies of pools."""
        call = _Call("list", "networkpolicies", _policies(namespace))
        return self._list(call, {"labelSelector": names.LABEL_POOL_UID})

    async def apply_network_policy(self, body: JsonObject) -> JsonObject:
        """Make a NetworkPolicy, or change it, so that it says this."""
        meta = body["metadata"]
        path = _policies(meta["namespace"], meta["name"])
        query = {**_FIELD_MANAGER, "force": "true"}
        call = _Call("patch", "networkpolicies", path, query, body, _APPLY, outright=True)
        return await self._send(call, write=True)

    async def delete_network_policy(self, namespace: str, name: str, uid: str) -> None:
        """Delete the NetworkPolicy with this uid. ApiError 404 or 409 if there is none."""
        body = {"preconditions": {"uid": uid}}
        await self._send(
            _Call("delete", "networkpolicies", _policies(namespace, name), body=body), write=True
        )

    # --- lease ------------------------------------------------------------------------------------

    async def lease(self, namespace: str, name: str) -> JsonObject:
        """The lease. ApiError 404 if there is none. Not repeated, like the two below."""
        return await self._send(_Call("get", "leases", _leases(namespace, name), hurried=True), patience=0)

    async def create_lease(self, body: JsonObject) -> JsonObject:
        """ApiError 409 if somebody else was faster."""
        path = _leases(body["metadata"]["namespace"])
        return await self._send(
            _Call("create", "leases", path, _FIELD_MANAGER, body, hurried=True), patience=0
        )

    async def replace_lease(self, body: JsonObject) -> JsonObject:
        """ApiError 409 if it has changed since body was read."""
        path = _leases(body["metadata"]["namespace"], body["metadata"]["name"])
        return await self._send(
            _Call("update", "leases", path, _FIELD_MANAGER, body, hurried=True), patience=0
        )

    async def serves_our_kinds(self) -> bool:
        """Whether both custom resources are established: they then stand in the API server's discovery."""
        try:
            found = await self._send(_Call("get", "discovery", f"/apis/{names.API_VERSION}"), patience=0)
        except ApiError as error:
            if error.status in (404, 503):
                return False
            raise
        listed = {entry["name"] for entry in found.get("resources", ())}
        return {names.POOL_PLURAL, names.SESSION_PLURAL} <= listed

    # --- inside -----------------------------------------------------------------------------------

    async def _list(self, call: _Call, query: Mapping[str, str]) -> AsyncIterator[JsonObject]:
        """All objects, page by page. Starts again if a page's token expires, so an object may come twice."""
        token = ""
        while True:
            call.query = {**query, "limit": str(_PAGE_SIZE), **({"continue": token} if token else {})}
            try:
                page = await self._send(call)
            except ApiError as error:
                if error.status != 410 or not token:
                    raise
                token = ""
                continue
            for item in page.get("items") or ():
                yield item
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def _send(self, call: _Call, *, write: bool = False, patience: float | None = None) -> JsonObject:
        """Send until there is an answer that repeating would not change, or the patience is over."""
        give_up = time.monotonic() + (self._limits.patience if patience is None else patience)
        pause = _FIRST_PAUSE
        while True:
            if write:
                self._check_lease()
            failure: ApiError | ApiUnreachableError
            retry_after = 0.0
            try:
                return await self._attempt(
                    call, self._limits.attempt if write or call.hurried else self._limits.read
                )
            except ApiError as error:
                passing = call.outright and error.status == 409 and error.reason == "Conflict"
                if error.status not in _RETRIED and not passing:
                    raise
                failure, retry_after = error, error.retry_after
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                metrics.API_REQUESTS.labels(call.verb, call.resource, "0").inc()
                failure = ApiUnreachableError(f"{call.verb} {call.resource}: {type(error).__name__}")
            wait = max(retry_after, pause * random.uniform(0.8, 1.2))
            if time.monotonic() + wait >= give_up:
                raise failure
            await asyncio.sleep(wait)
            if call.done():
                return {}
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _headers(self, accept: str) -> dict[str, str]:
        authorization = await self._connection.authorization()
        return {"Accept": accept, **({"Authorization": authorization} if authorization else {})}

    async def _attempt(self, call: _Call, seconds: float) -> JsonObject:
        headers = await self._headers(call.accept)
        data = None
        if call.body is not None:
            headers["Content-Type"] = call.content_type
            data = json.dumps(call.body, separators=(",", ":")).encode()
        began = time.monotonic()
        async with self._session.request(
            _METHODS[call.verb],
            self._connection.server + call.path,
            params=call.query,
            data=data,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            raw = await response.read()
        metrics.API_REQUESTS.labels(call.verb, call.resource, str(response.status)).inc()
        metrics.API_SECONDS.labels(call.verb, call.resource).observe(time.monotonic() - began)
        if response.status >= 300:
            raise _error(response.status, raw, response.headers.get("Retry-After", ""))
        answer: JsonObject = json.loads(raw)
        return answer


def _ours(namespace: str, plural: str, name: str = "") -> str:
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def _pods(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


def _policies(namespace: str, name: str = "") -> str:
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    return path + (f"/{name}" if name else "")


def _leases(namespace: str, name: str = "") -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases" + (f"/{name}" if name else "")


def _error(status: int, raw: bytes, retry_after: str) -> ApiError:
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    said = body if isinstance(body, dict) else {}
    message = said.get("message") or raw[:200].decode("utf-8", "replace")
    wait = float(retry_after) if retry_after.isdecimal() else 0.0
    return ApiError(status, said.get("reason") or "", message, wait)

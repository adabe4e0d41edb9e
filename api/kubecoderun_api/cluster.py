"""The only module that talks to the API server.

Configuration, credentials and TLS are the official client's (`kubernetes.aio`); the calls themselves are raw
JSON over one aiohttp session, because the generated methods cost more than the API server's own work.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from kubecoderun_crds import names

Json = dict[str, Any]
_WATCH_BUFFER: Final = 4 * 1024 * 1024
"""Bytes; a watch event is one line, and a session with its output is one event."""
_RETRIABLE: Final = frozenset({408, 429, 500, 502, 503, 504})
_ONLY_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_KEEP_ALIVE_SECONDS: Final = 75.0
_SILENT_SECONDS: Final = 90.0
"""A watch that says nothing for so long hangs: the API server sends a bookmark about once a minute."""
_CONNECTIONS: Final = 64
"""More calls at once wait for a free connection; opening one costs more than most calls."""


class ClusterError(Exception):
    """A call that failed. `status` is the HTTP status, 0 if there was no answer."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        """Reason of the API server's Status object, or the type of a connection error. Holds no user data."""
        self.retry_after = retry_after
        """Seconds that the API server asks to wait."""

    @property
    def retriable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status == 0 or self.status in _RETRIABLE


LoadConfiguration = Callable[[], Awaitable[Configuration]]


async def load_configuration() -> Configuration:
    """Where the API server is and how to authenticate: KUBECONFIG if set, else the pod's service account."""
    configuration = Configuration()
    if os.environ.get("KUBECONFIG"):
        await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.environ["KUBECONFIG"], client_configuration=configuration
        )
    else:
        kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    return configuration


class Cluster:
    """Calls for sessions and pools of one namespace. All raise `ClusterError`."""

    def __init__(self, load: LoadConfiguration, namespace: str, attempt_seconds: float) -> None:
        """`attempt_seconds` bounds every call but a watch; `load` says where the API server is."""
        self._load = load
        self._configuration = Configuration()
        self._path = f"/apis/{names.API_VERSION}/namespaces/{namespace}/"
        self._limit = aiohttp.ClientTimeout(total=attempt_seconds)
        self._watch_limit = aiohttp.ClientTimeout(
            total=None, connect=attempt_seconds, sock_read=_SILENT_SECONDS
        )
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Load the configuration and make the connection pool."""
        self._configuration = await self._load()
        ssl_context = RESTClientObject(self._configuration).ssl_context
        connector = aiohttp.TCPConnector(
            ssl=ssl_context,
            limit=_CONNECTIONS,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            socket_factory=_watchful_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            read_bufsize=_WATCH_BUFFER,
            headers={"User-Agent": names.API_FIELD_MANAGER, "Accept": "application/json"},
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def create_session(self, body: bytes) -> None:
        """POST an ExecutionSession, given as JSON. 409 means that the name is taken."""
        path = f"{names.SESSION_PLURAL}?fieldManager={names.API_FIELD_MANAGER}"
        await self._call("POST", path, body=body, parse=False)

    async def get_session(self, name: str) -> Json:
        """One ExecutionSession. 404 means that there is none."""
        return await self._call("GET", f"{names.SESSION_PLURAL}/{quote(name, safe='')}")

    async def cancel_session(self, name: str) -> None:
        """Set spec.cancel."""
        await self.merge_session(name, {"spec": {"cancel": True}})

    async def delete_session(self, name: str, uid: str = "") -> None:
        """DELETE an ExecutionSession, only the one with that uid if it is given.

        404 means that there is none, 409 that it is another one.
        """
        body = json.dumps({"preconditions": {"uid": uid}}).encode() if uid else None
        await self._call("DELETE", f"{names.SESSION_PLURAL}/{quote(name, safe='')}", body=body, parse=False)

    async def merge_session(self, name: str, change: Json) -> None:
        """Apply a merge patch to an ExecutionSession."""
        await self._patch(name, change, "application/merge-patch+json")

    async def change_session(self, name: str, change: Json) -> Json:
        """Apply a merge patch to an ExecutionSession; returns it as it stands then."""
        return await self._patch(name, change, "application/merge-patch+json", parse=True)

    async def patch_session(self, name: str, operations: list[Json]) -> None:
        """Apply a JSON patch to an ExecutionSession. 422 means that a test in it failed, or a rule."""
        await self._patch(name, operations, "application/json-patch+json")

    async def _patch(
        self, name: str, change: Json | list[Json], content: str, *, parse: bool = False
    ) -> Json:
        path = f"{names.SESSION_PLURAL}/{quote(name, safe='')}?fieldManager={names.API_FIELD_MANAGER}"
        body = json.dumps(change).encode()
        return await self._call("PATCH", path, body=body, content=content, parse=parse)

    async def list_metadata(self, plural: str, *, selector: str = "", page: str = "") -> Json:
        """As `list_page`, but of each object only its metadata."""
        return await self.list_page(plural, selector=selector, page=page, accept=_ONLY_METADATA)

    async def list_page(
        self, plural: str, *, selector: str = "", page: str = "", accept: str = "application/json"
    ) -> Json:
        """One page (at most 500) of a list; `page` is the `continue` of the page before."""
        query = "?limit=500"
        if selector:
            query += f"&labelSelector={quote(selector, safe='')}"
        if page:
            query += f"&continue={quote(page, safe='')}"
        answer = await self._call("GET", plural + query, accept=accept)
        # An empty list of metadata comes as null.
        return answer | {"items": answer.get("items") or []}

    @asynccontextmanager
    async def watch(
        self, plural: str, *, version: str, seconds: int, selector: str = ""
    ) -> AsyncIterator[AsyncIterator[Json]]:
        """Events after that resource version, until the API server ends the stream after `seconds`.

        ERROR events raise ClusterError with the status they carry (410: the version is too old).
        """
        query = f"?watch=1&allowWatchBookmarks=true&resourceVersion={quote(version)}&timeoutSeconds={seconds}"
        if selector:
            query += f"&labelSelector={quote(selector, safe='')}"
        try:
            async with self._http.get(
                self._url(plural + query),
                headers=await self._headers(),
                timeout=self._watch_limit,
                **self._peer(),
            ) as response:
                await _raise_for(response)
                yield _events(response)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ClusterError(0, type(error).__name__) from error

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("open() has not been awaited")
        return self._session

    def _url(self, path: str) -> URL:
        return URL(self._configuration.host + self._path + path, encoded=True)

    def _peer(self) -> dict[str, Any]:
        """Rarely needed ways to the API server that a kubeconfig can ask for."""
        peer = {"server_hostname": self._configuration.tls_server_name, "proxy": self._configuration.proxy}
        return {name: value for name, value in peer.items() if value}

    async def _headers(self) -> dict[str, str]:
        """Credentials; the official client reads a service account's token again every minute."""
        settings: Mapping[str, Any] = await self._configuration.auth_settings()
        return {str(item["key"]): str(item["value"]) for item in settings.values() if item["in"] == "header"}

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        parse: bool = True,
    ) -> Json:
        headers = await self._headers()
        headers["Accept"] = accept
        if body is not None:
            headers["Content-Type"] = content
        try:
            async with self._http.request(
                method, self._url(path), data=body, headers=headers, timeout=self._limit, **self._peer()
            ) as response:
                await _raise_for(response)
                raw = await response.read()
                return json.loads(raw) if parse else {}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ClusterError(0, type(error).__name__) from error


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    async for line in response.content:
        event = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            raise ClusterError(int(status.get("code") or 500), str(status.get("reason") or "WatchError"))
        yield event


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    try:
        reason = str(json.loads(await response.read())["reason"])
    except (ValueError, KeyError, TypeError):
        reason = "NoStatusObject"
    retry_after = response.headers.get("Retry-After", "")
    raise ClusterError(response.status, reason, float(retry_after) if retry_after.isdigit() else None)


def _watchful_socket(address: Any) -> socket.socket:
    """A TCP socket that notices within half a minute that the other side has vanished without a word.

    A watch is silent for minutes, so nothing else would tell.
    """
    family, kind, protocol = address[0], address[1], address[2]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return sock

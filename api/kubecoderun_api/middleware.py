"""What every request passes: one spelling of the path, one log line, the closing of connections."""

import json
import re
from asyncio import get_running_loop
from collections.abc import Collection
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubecoderun_api import log
from kubecoderun_api.connection import CLOSE, JSON_TYPE, BrokenOff, Exchange, HangUpPolicy
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.profiles import HEADER, Profile, Refusal, expected

_SLASHES: Final = re.compile(r"/{2,}")
CONTEXT: Final = "kubecoderun"
"""Key of the `RequestContext` in an ASGI scope."""


def normal_path(path: str) -> str:
    """The path as it is routed: single slashes, no slash at the end, without a leading /v1."""
    path = _SLASHES.sub("/", path)
    if path == "/v1" or path.startswith("/v1/"):
        path = path[3:]
    return path.rstrip("/") or "/"


def route_of(path: str, routes: Collection[str]) -> str | None:
    """The route that a normal path belongs to; a part of a route in braces stands for any part of a path."""
    if path in routes:
        return path
    parts = path.split("/")
    for route in routes:
        wanted = route.split("/")
        if len(wanted) == len(parts) and all(
            part == want or (want.startswith("{") and part) for part, want in zip(parts, wanted, strict=True)
        ):
            return route
    return None


class RequestContext:
    """Facts about one request that its route adds for the log line."""

    def __init__(self, started: float) -> None:
        self.started = started
        """When the request's headers had been read, in the event loop's time."""
        self.exchange = Exchange()
        self.facts: dict[str, Any] = {}
        self.profile: Profile | None = None
        """The profile that the client asserts, or that its run has."""


class FrontDoor:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        policy: HangUpPolicy,
        metrics: Metrics,
        routes: frozenset[str],
        *,
        stateful: bool = True,
    ) -> None:
        """`routes` are the paths that get their own metric label, with names in braces for what varies.
        `stateful`: whether that profile is served."""
        self._stateful = stateful
        self.app = app
        """What is behind the door."""
        self._policy = policy
        self._metrics = metrics
        self._routes = routes
        self._families = {route.split("/")[1] for route in routes if "{" in route}
        """First parts of paths of which the rest is not logged: clients may put anything there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = normal_path(scope["path"])
        context = RequestContext(get_running_loop().time())
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": "", CONTEXT: context}
        status, complete = 0, False

        async def send_outward(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(HEADER, str(context.profile or Profile.DEFAULT).encode())]
                if self._policy.closes(path, status):
                    more.append(CLOSE)
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        found = expected(scope["headers"], stateful=self._stateful)
        try:
            if isinstance(found, Refusal):
                await _send_json(send_outward, found.status, found.body)
                return
            context.profile = found
            await self.app(inner, receive, send_outward)
        except BrokenOff:
            raise  # the server closes the connection, so that the client sees a broken answer
        except Exception as error:
            log.event("request_failed", level=log.ERROR, error=error, path=self._shown(path))
            if not status:
                await _send_internal_error(send_outward)
            elif not complete:
                raise  # as above
        finally:
            self._record(scope["method"], path, status, context)

    def _record(self, method: str, path: str, status: int, context: RequestContext) -> None:
        """Metrics and the one log line of a request. 499 stands for a client that left without an answer."""
        seconds = get_running_loop().time() - context.started
        if context.exchange.left_after is not None:
            status = 499
        route = route_of(path, self._routes) or "other"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        facts = context.facts
        if context.exchange.late:
            facts["late"] = True
        level = log.DEBUG if route in _QUIET and status == 200 else log.INFO
        log.event(
            "request",
            level=level,
            method=method,
            path=self._shown(path),
            status=status,
            ms=round(seconds * 1000, 1),
            **facts,
        )

    def _shown(self, path: str) -> str:
        """The path as it may stand in the log."""
        route = route_of(path, self._routes)
        if route is not None:
            return route
        first = path.split("/")[1]
        return f"/{first}/..." if first in self._families else path[:200]


_QUIET: Final = frozenset({"/healthz", "/readyz", "/health", "/metrics"})


async def _send_internal_error(send: Send) -> None:
    message = "The request failed for an internal reason."
    await _send_json(send, 500, {"error": "internal_error", "message": message})


async def _send_json(send: Send, status: int, answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    headers = [JSON_TYPE, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

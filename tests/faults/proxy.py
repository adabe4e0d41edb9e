"""A reverse proxy in front of an API server that lets requests and watch events suffer what a plan says.

It listens on plain HTTP on a loopback port and speaks HTTP or HTTPS to the API server. Each side has its own
connections, so a fault here never breaks a connection that another client uses.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
from aiohttp import web
from yarl import URL

from faults.plan import EventFault, Plan, RequestFault, Stroke

_LINE_BUFFER: Final = 8 << 20
"""Bytes; an event is one line."""
_NOT_PASSED_ON: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive"}
)
_Lines = asyncio.Queue[tuple[bytes | None, float]]
"""Events of a watch with the time of their arrival; None at the end."""
_REASONS: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class FaultProxy:
    """One proxy; `url` is where it listens. `plan` may be replaced at any moment."""

    def __init__(
        self, upstream: str, *, tls: ssl.SSLContext | None = None, token: str = "", plan: Plan | None = None
    ) -> None:
        """token: sent as a bearer token with requests that bring no Authorization of their own."""
        self.plan = plan or Plan()
        self.url = ""
        self.requests = 0
        """How many requests have come, watches included."""
        self.writes: list[tuple[float, str, str]] = []
        """Writes that the API server has carried out through here: when (monotonic), method and path."""
        self._upstream = upstream.rstrip("/")
        self._tls = tls
        self._token = token
        self._passing = asyncio.Event()
        self._passing.set()
        self._streams: set[asyncio.Transport] = set()
        self._client: aiohttp.ClientSession | None = None

    # --- by hand ----------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Let nothing through in either direction until `thaw`; connections stay as they are."""
        self._passing.clear()

    def thaw(self) -> None:
        """Let everything through that has waited."""
        self._passing.set()

    def cut(self) -> None:
        """Break the connections of all watches."""
        for transport in list(self._streams):
            transport.abort()

    # --- life -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultProxy"]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A request whose client has gone is not sent on: a dead process writes nothing.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)
        self._client = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, read_bufsize=_LINE_BUFFER
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.thaw()
            self.cut()
            await runner.cleanup()
            await self._client.close()

    # --- requests ---------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        agent = request.headers.get("User-Agent", "")
        body = await request.read()
        await self._passing.wait()
        stroke = self.plan.for_request(request.method, request.path, agent)
        if stroke is not None and (early := await self._before(request, stroke)) is not None:
            return early
        try:
            async with self._forward(request, body) as response:
                if response.status == 200 and request.query.get("watch") in ("1", "true"):
                    return await self._stream(request, response, agent)
                content = await response.read()
                if request.method != "GET" and response.status < 300:
                    self.writes.append((time.monotonic(), request.method, request.path))
        except aiohttp.ClientError:
            return _abort(request)
        await self._passing.wait()
        if stroke is not None and (other := await self._after(request, stroke)) is not None:
            return other
        return web.Response(status=response.status, body=content, headers=_passed_on(response.headers))

    def _forward(self, request: web.Request, body: bytes) -> Any:
        assert self._client is not None
        headers = {**_passed_on(request.headers), "Accept-Encoding": "identity"}
        if self._token:
            headers.setdefault("Authorization", f"Bearer {self._token}")
        return self._client.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            data=body or None,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            allow_redirects=False,
        )

    async def _before(self, request: web.Request, stroke: Stroke) -> web.StreamResponse | None:
        match stroke.fault:
            case RequestFault.DELAY:
                await asyncio.sleep(stroke.seconds)
            case RequestFault.REFUSE:
                return _refusal(stroke)
            case RequestFault.RESET:
                return _abort(request)
        return None

    async def _after(self, request: web.Request, stroke: Stroke) -> web.StreamResponse | None:
        match stroke.fault:
            case RequestFault.LOSE:
                await asyncio.sleep(stroke.seconds)
                return _abort(request)
            case RequestFault.DECEIVE:
                return _refusal(stroke)
        return None

    # --- watches ----------------------------------------------------------------------------------

    async def _stream(
        self, request: web.Request, upstream: aiohttp.ClientResponse, agent: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        lines: _Lines = asyncio.Queue()
        reading = asyncio.create_task(_read_lines(upstream, lines))
        assert request.transport is not None
        transport = request.transport
        self._streams.add(transport)
        try:
            if not await self._deliver(request, response, lines, agent):
                transport.abort()
        except (ConnectionResetError, aiohttp.ClientError):
            pass
        finally:
            self._streams.discard(transport)
            reading.cancel()
            with suppress(asyncio.CancelledError, aiohttp.ClientError):
                await reading
        return response

    async def _deliver(
        self,
        request: web.Request,
        response: web.StreamResponse,
        lines: _Lines,
        agent: str,
    ) -> bool:
        """Pass events on until the watch ends; False if the connection is to break."""
        loop = asyncio.get_running_loop()
        kept, kept_until = b"", 0.0
        while True:
            try:
                wait = max(0.0, kept_until - loop.time()) if kept else None
                line, arrived = await asyncio.wait_for(lines.get(), wait)
            except TimeoutError:
                await self._write(response, kept)
                kept = b""
                continue
            if line is None:
                await self._write(response, kept)
                return True
            event = _type(line)
            # Bookmarks carry nothing but a version; without them a client knows no better than with old ones.
            known = event in ("ADDED", "MODIFIED", "DELETED")
            stroke = self.plan.for_event(request.path, agent, event) if known else None
            match stroke.fault if stroke is not None else None:
                case None:
                    await self._write(response, line)
                case EventFault.DROP:
                    continue
                case EventFault.REPEAT:
                    await self._write(response, line + line)
                case EventFault.CUT:
                    return False
                case EventFault.GONE:
                    await self._write(response, _error_event(410))
                    return True
                case EventFault.ERROR:
                    await self._write(response, _error_event(500))
                    return True
                case EventFault.SWAP if stroke is not None and not kept:
                    kept, kept_until = line, loop.time() + stroke.seconds
                    continue
                case EventFault.DELAY if stroke is not None:
                    # Counted from its arrival: what waits behind it is not late twice.
                    await asyncio.sleep(max(0.0, arrived + stroke.seconds - loop.time()))
                    await self._write(response, line)
                case EventFault.FREEZE if stroke is not None:
                    await asyncio.sleep(stroke.seconds)
                    await self._write(response, line)
                case _:
                    await self._write(response, line)
            if kept:
                await self._write(response, kept)
                kept = b""

    async def _write(self, response: web.StreamResponse, lines: bytes) -> None:
        await self._passing.wait()
        if lines:
            await response.write(lines)


async def _read_lines(upstream: aiohttp.ClientResponse, lines: _Lines) -> None:
    loop = asyncio.get_running_loop()
    try:
        async for line in upstream.content:
            lines.put_nowait((line, loop.time()))
    except aiohttp.ClientError:
        pass
    finally:
        lines.put_nowait((None, loop.time()))


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON}


def _abort(request: web.Request) -> web.Response:
    """Break the client's connection; the response is for aiohttp alone."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": _REASONS.get(code, "Unknown"),
        "message": "injected by the fault proxy",
        "code": code,
    }


def _refusal(stroke: Stroke) -> web.Response:
    wait = stroke.rule.retry_after
    headers = {} if wait is None else {"Retry-After": str(wait)}
    return web.json_response(_status(stroke.rule.status), status=stroke.rule.status, headers=headers)


def _error_event(code: int) -> bytes:
    return json.dumps({"type": "ERROR", "object": _status(code)}).encode() + b"\n"


def _type(line: bytes) -> str:
    """The type of an event, from its first bytes: a whole session need not be parsed for it."""
    head = line[:40].replace(b" ", b"")
    for name in (b"ADDED", b"MODIFIED", b"DELETED", b"BOOKMARK", b"ERROR"):
        if head.startswith(b'{"type":"' + name):
            return name.decode()
    return ""

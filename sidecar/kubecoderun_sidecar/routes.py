"""The paths of HTTP protocol 1: signature, epoch, operation, answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from kubecoderun_sidecar import metrics
from kubecoderun_sidecar.answers import Finished, Refusal, event_line
from kubecoderun_sidecar.fields import ProtocolError
from kubecoderun_sidecar.glance import OutputRequest
from kubecoderun_sidecar.pod import Pod, RefusedError
from kubecoderun_sidecar.protocol import (
    PATH_CANCEL,
    PATH_HEALTH,
    PATH_METRICS,
    PATH_OUTPUT,
    PATH_PREPARE,
    PATH_READY,
    PATH_RESERVE,
    PATH_RESULTS,
    PATH_RETIRE,
    PATH_START,
    PATH_STATE,
    Caller,
    CancelRequest,
    PrepareRequest,
    ResultsRequest,
    SignatureError,
    StartRequest,
    Verifier,
)
from kubecoderun_sidecar.server import Connection, HangUpError, Request

log = logging.getLogger(__name__)

_NDJSON = b"application/x-ndjson"

READY_SECONDS = 2.0
"""How long a readiness probe waits for a runtime that is still getting warm: less than the probe's limit.

The kubelet asks once a second. An answer as soon as the runtime is warm makes the pod Ready up to a second
earlier, and spares the Events about failed probes."""

Operation = Callable[[Caller, Request, Connection], Awaitable[None]]


class Routes:
    """Serves one pod to the operator and to the kubelet's probes."""

    def __init__(self, pod: Pod, verifier: Verifier) -> None:
        self._pod = pod
        self._verifier = verifier
        self.quiet = asyncio.Event()
        """Set while nobody reads a start stream."""
        self.quiet.set()
        self._streams = 0
        self._operations: dict[str, tuple[str, Operation]] = {
            PATH_STATE: ("GET", self._state),
            PATH_PREPARE: ("POST", self._prepare),
            PATH_START: ("POST", self._start),
            PATH_OUTPUT: ("POST", self._output),
            PATH_CANCEL: ("POST", self._cancel),
            PATH_RESULTS: ("POST", self._results),
            PATH_RETIRE: ("POST", self._retire),
            PATH_RESERVE: ("POST", self._reserve),
        }

    async def handle(self, request: Request, connection: Connection) -> None:
        """Answer one request, exactly once."""
        try:
            await self._dispatch(request, connection)
        except RefusedError as error:
            await connection.reply(error.status, error.refusal.to_json())
        except SignatureError as error:
            metrics.REFUSED.inc()
            await connection.reply(401, Refusal("unauthorized", str(error)).to_json(), close=True)
        except ProtocolError as error:
            await connection.reply(400, Refusal("bad_request", str(error)).to_json())
        except (HangUpError, OSError):
            raise
        except Exception:
            log.exception("%s failed unexpectedly", request.path)
            await connection.reply(500, Refusal("internal", "see the sidecar's log").to_json(), close=True)

    async def _dispatch(self, request: Request, connection: Connection) -> None:
        unsigned = (PATH_HEALTH, PATH_READY, PATH_METRICS)
        known_path = request.path in unsigned or request.path in self._operations
        metrics.REQUESTS.inc(request.path if known_path else "other")
        if request.path == PATH_METRICS and request.method == "GET":
            await connection.send(metrics.render(), metrics.CONTENT_TYPE, last=True)
            return
        if request.path == PATH_HEALTH and request.method == "GET":
            await connection.reply(200, b'{"status":"alive"}')
            return
        if request.path == PATH_READY and request.method == "GET":
            ready = await self._pod.ready(READY_SECONDS)
            await connection.reply(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')
            return
        known = self._operations.get(request.path)
        if known is None:
            raise RefusedError(404, Refusal("not_found", "no such path"))
        method, operation = known
        if request.method != method:
            raise RefusedError(405, Refusal("method_not_allowed", f"use {method}"))
        caller = self._verifier.verify(
            request.method, request.path, request.headers, request.body, time.time()
        )
        connection.trusted = True
        self._pod.admit(caller)
        await operation(caller, request, connection)

    async def _state(self, _caller: Caller, _request: Request, connection: Connection) -> None:
        await connection.reply(200, self._pod.state().to_json())

    async def _prepare(self, caller: Caller, request: Request, connection: Connection) -> None:
        order = PrepareRequest.parse(request.body)
        await self._pod.prepare(caller, order)
        await connection.reply(200, b'{"state":"prepared"}')
        log.info("prepared for session %s/%s", order.session.namespace, order.session.name)

    async def _start(self, caller: Caller, request: Request, connection: Connection) -> None:
        run = self._pod.start(caller, StartRequest.parse(request.body))
        self._streams += 1
        self.quiet.clear()
        try:
            async with aclosing(run.events()) as groups:
                async for group in groups:
                    lines = b"".join(map(event_line, group))
                    await connection.send(lines, _NDJSON, last=isinstance(group[-1], Finished))
        except (HangUpError, OSError):
            log.info("the reader of a run left before its end")
            raise
        finally:
            self._streams -= 1
            if not self._streams:
                self.quiet.set()

    async def _output(self, caller: Caller, request: Request, connection: Connection) -> None:
        found = await self._pod.output(caller, OutputRequest.parse(request.body))
        await connection.reply(200, found.to_json())

    async def _reserve(self, caller: Caller, _request: Request, connection: Connection) -> None:
        self._pod.reserve(caller)
        await connection.reply(200, b'{"state":"reserved"}')

    async def _cancel(self, caller: Caller, request: Request, connection: Connection) -> None:
        self._pod.cancel(caller, CancelRequest.parse(request.body))
        await connection.reply(202, b'{"state":"cancelling"}')

    async def _results(self, caller: Caller, request: Request, connection: Connection) -> None:
        await self._pod.results(caller, ResultsRequest.parse(request.body))
        await connection.reply(200, b'{"state":"taken"}')

    async def _retire(self, caller: Caller, _request: Request, connection: Connection) -> None:
        self._pod.retire(caller)
        await connection.reply(200, b'{"state":"retired"}')

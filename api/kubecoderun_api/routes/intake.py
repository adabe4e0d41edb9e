"""Takes in the body of a POST: bounded in size and time, from somebody who may use the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Never

from fastapi import Request
from starlette.requests import ClientDisconnect

from kubecoderun_api import wire
from kubecoderun_api.auth import Verdict, body_credentials, header_credentials
from kubecoderun_api.services import Services

Json = dict[str, Any]
DISCARD_SECONDS: Final = 5.0
"""How long the rest of a body that is refused is read, so that the client comes to reading the answer."""
_PARSE_ANYWAY_BYTES: Final = 1024 * 1024
"""Bodies up to this size are parsed before their sender is known."""

_UNAUTHORISED: Final = {
    Verdict.MISSING: (401, {"error": "Authentication is required", "message": "Send an API key."}),
    Verdict.WRONG: (401, {"error": "Invalid API key", "message": "The API key is not known."}),
    Verdict.AMBIGUOUS: (
        400,
        {"error": "Ambiguous authentication", "message": "The request carries different credentials."},
    ),
}


async def authorised_body(request: Request, services: Services) -> Json:
    """The JSON object a known sender has sent. Raises BadRequest, or ClientDisconnect if the sender left."""
    settings = services.settings
    try:
        async with asyncio.timeout(settings.body_seconds):
            raw = await _read(request, settings.max_body_bytes)
    except TimeoutError:
        wire.refuse("The body did not arrive in time.", error="request_timeout", status=408)
    found = header_credentials(request.scope["headers"])
    keys = services.keys
    if not found and len(raw) > _PARSE_ANYWAY_BYTES and not keys.may_be_in(raw):
        _judge(services, Verdict.MISSING)
    try:
        body = wire.parse_json(raw)
    except wire.BadRequest:
        _judge(services, keys.judge(found))  # strangers do not learn what is wrong with their JSON
        raise
    _judge(services, keys.judge(found | body_credentials(body)))
    return body


def authorise(request: Request, services: Services) -> None:
    """Raise BadRequest unless the headers have a known key: for requests that can carry one nowhere else."""
    _judge(services, services.keys.judge(header_credentials(request.scope["headers"])))


def _judge(services: Services, verdict: Verdict) -> None:
    if verdict is not Verdict.ACCEPTED:
        services.metrics.refused.labels(verdict.value).inc()
        raise wire.BadRequest(*_UNAUTHORISED[verdict])


async def _read(request: Request, limit: int) -> bytearray:
    """The whole body; 413 above the limit, with and without a Content-Length."""
    incoming = Incoming(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        await incoming.discard(limit)
        _refuse_size(limit)
    body = bytearray()
    async for chunk in incoming:
        body += chunk
        if len(body) > limit:
            body.clear()
            await incoming.discard(limit)
            _refuse_size(limit)
    return body


class Incoming:
    """The body of a request, chunk by chunk. Raises ClientDisconnect if the sender has left."""

    def __init__(self, request: Request) -> None:
        self._chunks = request.stream()
        self._waits_for_us = "expect" in request.headers
        """Whether the client sends nothing before it gets our word, which is given when we begin to read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._waits_for_us = False
        return await anext(self._chunks)

    async def discard(self, most: int, seconds: float = DISCARD_SECONDS) -> None:
        """Read on without keeping anything: closing earlier would reset the connection under the client."""
        if self._waits_for_us:
            return
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(seconds):
                async for chunk in self:
                    most -= len(chunk)
                    if most < 0:
                        return


def _refuse_size(limit: int) -> Never:
    wire.refuse(f"The body is over {limit} bytes.", error="request_too_large", status=413)

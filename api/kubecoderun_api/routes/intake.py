"""Takes in the body of a POST: bounded in size and time, from somebody who may use the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, Never

from fastapi import Request
from starlette.requests import ClientDisconnect

from kubecoderun_api import wire
from kubecoderun_api.auth.credentials import body_credentials, header_credentials
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.auth.verdict import Unauthorised, Verdict
from kubecoderun_api.middleware import CONTEXT, RequestContext
from kubecoderun_api.services import Services

Json = dict[str, Any]
DISCARD_SECONDS: Final = 5.0
"""How long the rest of a body that is refused is read, so that the client comes to reading the answer."""
_PARSE_ANYWAY_BYTES: Final = 1024 * 1024
"""Bodies up to this size are parsed before their sender is known."""


async def authorised_body(request: Request, services: Services) -> tuple[Json, Principal]:
    """The JSON object a known sender has sent, and who that is.

    Raises BadRequest, or ClientDisconnect if the sender left.
    """
    settings = services.settings
    try:
        async with asyncio.timeout(settings.body_seconds):
            raw = await _read(request, settings.max_body_bytes)
    except TimeoutError:
        wire.refuse("The body did not arrive in time.", error="request_timeout", status=408)
    found = header_credentials(request.scope["headers"])
    if len(raw) > _PARSE_ANYWAY_BYTES and not await _may_parse(request, services, found, raw):
        services.metrics.refused.labels(Verdict.MISSING.value).inc()
        raise Unauthorised(Verdict.MISSING)
    try:
        body = wire.parse_json(raw)
    except wire.BadRequest:
        await _identify(request, services, found)  # strangers do not learn what is wrong with their JSON
        raise
    principal = await _identify(request, services, found | body_credentials(body))
    return body, principal.on_behalf_of(request.headers.get("user-id") or body.get("user_id"))


async def authorise(request: Request, services: Services) -> Principal:
    """Who has sent a request that can carry a credential in its headers only. Raises BadRequest."""
    principal = await _identify(request, services, header_credentials(request.scope["headers"]))
    return principal.on_behalf_of(request.headers.get("user-id"))


async def _may_parse(request: Request, services: Services, found: set[str], raw: bytes | bytearray) -> bool:
    """Whether a big body is worth parsing: its sender shows a credential, or needs none."""
    who = services.authenticator
    return bool(found) or not who.needs_credential(_peer(request)) or await who.may_be_in(raw)


async def _identify(request: Request, services: Services, found: set[str]) -> Principal:
    try:
        principal = await services.authenticator.identify(found, _peer(request))
    except Unauthorised as error:
        services.metrics.refused.labels(error.verdict.value).inc()
        raise
    facts = {"tenant": principal.tenant, "key": principal.label}
    context: RequestContext = request.scope[CONTEXT]
    context.facts.update({name: value for name, value in facts.items() if value})
    return principal


def _peer(request: Request) -> str | None:
    """The address at the other end of the socket."""
    return None if request.client is None else request.client.host


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

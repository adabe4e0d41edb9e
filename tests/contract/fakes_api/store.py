"""An object store that takes PUT and GET of any presigned URL and remembers them."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from contract.fakes_api.serving import serve


@dataclass
class FakeStore:
    """Objects by `/bucket/key`; the statuses are answered to the next requests instead of doing them."""

    objects: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    async def put(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.queries.append(dict(request.query))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        self.objects[request.path] = body
        return web.Response()

    async def get(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        if self.statuses:
            return web.Response(status=self.statuses.pop(0))
        found = self.objects.get(request.path)
        return web.Response(status=404) if found is None else web.Response(body=found)


@asynccontextmanager
async def object_store(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeStore]:
    """A running store."""
    store = FakeStore()
    app = web.Application(client_max_size=2**27)
    app.router.add_put("/{key:.*}", store.put)
    app.router.add_get("/{key:.*}", store.get)
    async with serve(app, tls) as url:
        store.url = url
        yield store

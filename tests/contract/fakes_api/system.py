"""The real front end under the real HTTP server, between a fake API server and a fake store."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from kubernetes.aio.client.configuration import Configuration

from contract.fakes_api.apiserver import FakeApiServer, api_server
from contract.fakes_api.client import Connection, Reply
from contract.fakes_api.store import FakeStore, object_store
from kubecoderun_api.app import create_app
from kubecoderun_api.services import Services
from kubecoderun_api.settings import Settings

KEY = "correct-horse"
Json = dict[str, Any]


@dataclass
class System:
    """Everything that runs, and shortcuts to use it."""

    api: FakeApiServer
    store: FakeStore
    services: Services
    port: int
    keys_file: Path

    def connection(self) -> Connection:
        return Connection("127.0.0.1", self.port)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Json = b"",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Reply:
        """One request on a connection of its own."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.connection() as connection:
            await connection.send(method, path, data, headers, **options)
            return await connection.reply(method)

    async def exec(self, code: str = "print(1)", *, path: str = "/exec", **fields: Any) -> Reply:
        """POST a program with a good key."""
        return await self.request("POST", path, {"lang": "py", "code": code, **fields}, {"X-API-Key": KEY})

    def start_exec(self, code: str = "print(1)", **fields: Any) -> asyncio.Task[Reply]:
        return asyncio.create_task(self.exec(code, **fields))

    def metric(self, name: str, **labels: str) -> float:
        """Value of one sample, 0 if there is none yet."""
        return self.services.metrics.registry.get_sample_value(f"kubecoderun_api_{name}", labels) or 0.0


@asynccontextmanager
async def running(*, ready: bool = True, **settings: Any) -> AsyncIterator[System]:
    """A system with these settings (names without KCR_); waits until it is ready unless told otherwise."""
    async with api_server() as api, object_store() as store:
        with TemporaryDirectory() as folder:
            keys_file = Path(folder) / "api-keys"
            keys_file.write_text(f"{KEY}\n")
            made = Settings(
                **{
                    "api_keys_file": keys_file,
                    "store_endpoint": store.url,
                    "store_access_key": "access",
                    "store_secret_key": "secret-of-the-store",
                    **settings,
                }
            )
            async with _serving(made, api) as (services, port):
                system = System(api, store, services, port, keys_file)
                if ready:
                    await api.until(lambda: not services.unready())
                yield system


@asynccontextmanager
async def beside(system: System, **settings: Any) -> AsyncIterator[System]:
    """Another front end before the same API server and store, with the same keys."""
    given = {
        "api_keys_file": system.keys_file,
        "store_endpoint": system.store.url,
        "store_access_key": "access",
        "store_secret_key": "secret-of-the-store",
    }
    async with _serving(Settings(**given | settings), system.api) as (services, port):
        await system.api.until(lambda: not services.unready())
        yield System(system.api, system.store, services, port, system.keys_file)


@asynccontextmanager
async def another(system: System, **settings: Any) -> AsyncIterator[System]:
    """A second front end before the same API server and store."""
    made = system.services.settings.model_copy(update={"replica_uid": "another", **settings})
    async with _serving(made, system.api) as (services, port):
        second = System(system.api, system.store, services, port, system.keys_file)
        await system.api.until(lambda: not services.unready())
        yield second


@asynccontextmanager
async def _serving(settings: Settings, api: FakeApiServer) -> AsyncIterator[tuple[Services, int]]:
    async def configuration() -> Configuration:
        return Configuration(host=api.url)

    app, services = create_app(settings, configuration)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            await asyncio.sleep(0.005)
            if serving.done():
                serving.result()
        yield services, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.force_exit = False
        server.should_exit = True
        await serving

"""Runs the front end: `python -m kubecoderun_api`, configured by KCR_* variables."""

import asyncio
import gc
import socket
import sys
from typing import Final

import uvicorn
from pydantic import ValidationError

from kubecoderun_api import log
from kubecoderun_api.app import create_app
from kubecoderun_api.services import Services
from kubecoderun_api.settings import Settings

_LAST_WRITES_SECONDS: Final = 5
"""For answers that are being sent when the time for open calls is over."""


class FrontEndServer(uvicorn.Server):
    """Ends in order: first not ready, then no new connections, then errors for calls that are still open."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn after a signal, while the listening sockets are still open."""
        settings = self._services.settings
        self._services.draining = True
        log.event("stopping", open_connections=len(self.server_state.connections))
        await asyncio.sleep(settings.drain_seconds)
        asyncio.get_running_loop().call_later(settings.shutdown_seconds, self._services.stop)
        await super().shutdown(sockets)


def make_server(settings: Settings) -> FrontEndServer:
    """The server for these settings."""
    app, services = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) + _LAST_WRITES_SECONDS,
    )
    return FrontEndServer(config, services)


def main() -> int:
    """Serve until a signal. Returns the exit code: 2 for settings that make no sense."""
    try:
        settings = Settings()
    except ValidationError as error:
        log.configure("INFO")
        for problem in error.errors(include_input=False, include_url=False):
            name = "KCR_" + "_".join(map(str, problem["loc"])).upper() if problem["loc"] else "settings"
            log.event("bad_setting", level=log.ERROR, setting=name, problem=problem["msg"])
        return 2
    log.configure(settings.log_level)
    server = make_server(settings)
    gc.collect()
    gc.freeze()  # what lives for ever need not be looked at by every collection
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())

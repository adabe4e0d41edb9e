"""Runs the sidecar: `python -m kubecoderun_sidecar`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from contextlib import suppress

from kubecoderun_sidecar.listener import RuntimeListener
from kubecoderun_sidecar.pod import Pod
from kubecoderun_sidecar.protocol import Verifier
from kubecoderun_sidecar.rehearsal import rehearse
from kubecoderun_sidecar.routes import Routes
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.server import Server
from kubecoderun_sidecar.settings import Settings, SettingsError
from kubecoderun_sidecar.transfer import Store

log = logging.getLogger(__name__)

_LAST_WORDS_SECONDS = 2.0
"""After a run has ended in the grace period: how long its readers may take to get the result."""


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then until a run in progress has ended or the grace period is over."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    link = RuntimeLink()
    pod = Pod(link, Store(settings.store_ca))
    verifier = Verifier(settings.public_keys, settings.pod_uid)
    routes = Routes(pod, verifier)
    server = Server(routes.handle)
    listener = RuntimeListener(link, settings.channel, settings.runtime_uid)
    await listener.open()
    try:
        port = await server.open(settings.host, settings.port)
        log.info("listening on port %d", port)
        rehearse(verifier, time.time())
        # All modules are loaded: what exists now lives as long as the process, so it need not be looked at.
        gc.collect()
        gc.freeze()
        await stop.wait()
        await _finish(pod, routes, settings.grace_seconds)
    finally:
        listener.close()
        server.close()


async def _finish(pod: Pod, routes: Routes, grace_seconds: float) -> None:
    """Let a run in progress end, and its readers hear of it."""
    run = pod.running
    if run is not None:
        log.info("stopping after the run in progress, at most %g s", grace_seconds)
        try:
            async with asyncio.timeout(grace_seconds):
                await run.finished()
        except TimeoutError:
            log.warning("the grace period is over before the run")
            return
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await routes.quiet.wait()


def main() -> int:
    """Exit status 0 after a stop, 1 when listening fails, 2 for unusable settings."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"kubecoderun-sidecar: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        log.error("cannot serve: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""python -m kubecoderun_operator: settings from the environment, logs to standard output, ends on SIGTERM.

What an outage of the API server may bring about (a lost lease, a watch that fails) makes the process begin
again from nothing, in place: to the kubelet an exit would be a crash, and it waits up to five minutes before
it starts a container again that has crashed a few times.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import uvloop

from kubecoderun_operator import log, signing
from kubecoderun_operator.app import App, WatchFailedError
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, NotLeadingError
from kubecoderun_operator.connection import connect
from kubecoderun_operator.health import Health
from kubecoderun_operator.log import about
from kubecoderun_operator.settings import Settings

logger = logging.getLogger("kubecoderun_operator")

_PASSING: Final = (NotLeadingError, WatchFailedError, ApiError, ApiUnreachableError)
_BEGIN_AGAIN: Final = -1
"""Instead of an exit code."""
_PAUSE: Final = 0.5
"""Seconds before that, so that a fault that does not pass keeps no processor busy."""


async def operate(settings: Settings) -> int:
    """Run the operator; the exit code is 0 after SIGTERM, and 1 for a fault that is not expected to pass."""
    connection = await connect(settings.kubeconfig)
    app = App(settings, connection, signing.load(settings.signing_key_file))
    health = Health(settings.http_host, settings.http_port, app.trouble, app.role)
    await health.start()
    _on_signal(app.stop)
    try:
        await app.run()
    except _PASSING as error:
        logger.error("beginning again", extra=about(cause=f"{type(error).__name__}: {error}"))
        return 0 if await _asked_to_stop(_PAUSE) else _BEGIN_AGAIN
    except Exception:
        logger.exception("the operator failed")
        return 1
    finally:
        await health.stop()
    return 0


def _on_signal(call: Callable[[], None]) -> None:
    """kopf takes the signals over when it starts."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, call)


async def _asked_to_stop(seconds: float) -> bool:
    asked = asyncio.Event()
    _on_signal(asked.set)
    with suppress(TimeoutError):
        await asyncio.wait_for(asked.wait(), seconds)
    return asked.is_set()


def main() -> None:
    """Never returns."""
    settings = Settings()
    log.configure(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(operate(settings))
        # Not after the block: its end waits for all tasks, and when one of kopf's watches fails, some of
        # those it leaves behind never end.
        logging.shutdown()
        sys.stdout.flush()
        if code == _BEGIN_AGAIN:
            os.execv(sys.executable, sys.orig_argv)
        os._exit(code)


if __name__ == "__main__":
    main()

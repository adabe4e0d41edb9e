"""python -m kubecoderun_operator: settings from the environment, logs to standard output, ends on SIGTERM."""

import asyncio
import logging
import signal
import sys

import uvloop

from kubecoderun_operator import log, signing
from kubecoderun_operator.app import App
from kubecoderun_operator.cluster import NotLeadingError
from kubecoderun_operator.connection import connect
from kubecoderun_operator.health import Health
from kubecoderun_operator.settings import Settings

logger = logging.getLogger("kubecoderun_operator")


async def operate(settings: Settings) -> int:
    """Run the operator; the exit code is 0 after SIGTERM, and 1 for what a restart may cure."""
    connection = await connect(settings.kubeconfig)
    app = App(settings, connection, signing.load(settings.signing_key_file))
    health = Health(settings.http_host, settings.http_port, app.trouble)
    await health.start()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    try:
        await app.run()
    except NotLeadingError as error:
        logger.error("not leading any more: %s", error)
        return 1
    except Exception:
        logger.exception("the operator failed")
        return 1
    finally:
        await health.stop()
    return 0


def main() -> int:
    settings = Settings()
    log.configure(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(operate(settings))


if __name__ == "__main__":
    sys.exit(main())

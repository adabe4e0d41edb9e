"""The port for the kubelet and for Prometheus: /healthz, /readyz, /metrics."""

from collections.abc import Callable

from aiohttp import web

from kubecoderun_operator import metrics


class Health:
    """Answers for one process. A standby is ready too: it does its job by waiting."""

    def __init__(self, host: str, port: int, trouble: Callable[[], str], role: Callable[[], str]) -> None:
        """trouble: empty, or what is wrong. role: what the process does, for people."""
        self._host, self._port = host, port
        self._trouble, self._role = trouble, role
        app = web.Application()
        app.router.add_get("/healthz", self._answer)
        app.router.add_get("/readyz", self._answer)
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        trouble = self._trouble()
        return web.Response(status=503 if trouble else 200, text=trouble or self._role())


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=metrics.page(), headers={"Content-Type": "text/plain; version=0.0.4"})

"""A node whose pods are real: each has a sidecar process and a runner, which is PID 1 of a namespace of its
own."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from contract.fakes_sidecar import pair, program
from faults.node import Node, PodSidecar
from kubecoderun_sidecar.protocol import Verifier


class RealPod(PodSidecar):
    """Passes requests on to the pod's own sidecar."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.port = 0
        self.ending: asyncio.Future[None] | None = None
        self._processes = AsyncExitStack()

    async def begin(self, public_key: str) -> None:
        """Start both processes, and wait until the pod is warm."""
        folder = Path(self._processes.enter_context(tempfile.TemporaryDirectory(prefix="kcr-pod-")))
        settings = {"KCR_POD_UID": self.pod_uid, "KCR_PUBLIC_KEYS": public_key}
        sidecar = await self._processes.enter_async_context(program.program(folder, **settings))
        await self._processes.enter_async_context(pair.runner(folder, sidecar.channel))
        (await sidecar.ready()).close()
        self.port = sidecar.port

    def die(self) -> None:
        """Both processes end."""
        if not self.unreachable:
            super().die()
            self.ending = asyncio.ensure_future(self._processes.aclose())

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.calls.append(request.path.rpartition("/")[2])
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method,
                f"http://127.0.0.1:{self.port}{request.path}",
                data=body,
                headers={name: value for name, value in request.headers.items() if name.startswith("KCR-")},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer,
        ):
            response = web.StreamResponse(status=answer.status)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


class RealNode(Node):
    """Its pods can run programs."""

    def _make(self, name: str, uid: str) -> PodSidecar:
        return RealPod(uid, Verifier([self._public_key], uid), name=name)

    async def _warm_up(self, sidecar: PodSidecar) -> None:
        assert isinstance(sidecar, RealPod)
        await sidecar.begin(self._public_key)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Node"]:
        async with super().serving() as node:
            yield node
        pods = [pod for pod in self.sidecars if isinstance(pod, RealPod)]
        await asyncio.gather(*(pod.ending for pod in pods if pod.ending is not None))

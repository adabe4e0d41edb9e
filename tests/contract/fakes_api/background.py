"""A whole system in a thread of its own, for tools that are not asynchronous."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from contract.fakes_api.system import System, running

T = TypeVar("T")


class Background:
    """A running system, and how to do something in its event loop."""

    def __init__(self, system: System, loop: asyncio.AbstractEventLoop) -> None:
        self.system = system
        self._loop = loop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.system.port}"

    def do(self, work: Callable[[System], Awaitable[T]]) -> T:
        """Run this where the system runs, and return what comes of it."""

        async def run() -> T:
            return await work(self.system)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)


@contextmanager
def in_background(**settings: Any) -> Iterator[Background]:
    """A system with these settings that serves until the block ends."""
    started = threading.Event()
    holder: list[Background] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with running(**settings) as system:
            holder.append(Background(system, loop))
            holder[0].stop = lambda: loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    if not started.wait(30):
        raise TimeoutError("the system does not start")
    try:
        yield holder[0]
    finally:
        holder[0].stop()  # type: ignore[attr-defined]
        thread.join(30)

"""Work that goes on after the request that caused it: bounded in time by itself, finished at the end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from kubecoderun_api import log


class Chores:
    """Tasks nobody waits for. Their failures are logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let it run. Whoever waits for the task must shield it."""
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self, seconds: float) -> None:
        """Give what is under way so long to end, then break it off."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            log.event("chores_broken_off", level=log.WARNING, count=len(left))
            await asyncio.wait(left)

    @staticmethod
    async def _run(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            log.event("chore_failed", level=log.ERROR, error=error)

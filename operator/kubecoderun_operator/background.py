"""Tasks that nobody waits for: kept alive, logged when they fail, and stopped together."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from kubecoderun_operator.cluster import NotLeadingError
from kubecoderun_operator.log import about

logger = logging.getLogger(__name__)


class Background:
    """A set of tasks. asyncio itself keeps only weak references to them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> asyncio.Task[Any]:
        """Start a task under a name that its failure will be logged with."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        # Without the lease nothing may be written: the task ends here, and the process soon after.
        if error is not None and not isinstance(error, NotLeadingError):
            logger.error("a background task failed", exc_info=error, extra=about(task=task.get_name()))

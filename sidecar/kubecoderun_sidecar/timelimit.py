"""The time limit of a run, which stands still while the program waits for tools, and the bounds of that
waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class TimeLimit:
    """Calls `overdue` when the program has run too long, `abandoned` when it has waited too long. All times
    are seconds."""

    def __init__(
        self,
        run: float,
        wait: float,
        all_waits: float,
        *,
        overdue: Callable[[], None],
        abandoned: Callable[[], None],
    ) -> None:
        """run: how long it may run. wait: how long it may wait for the next result; all_waits: together."""
        self._run_left = run
        self._wait = wait
        self._wait_left = all_waits
        self._overdue = overdue
        self._abandoned = abandoned
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False
        self._since = 0.0
        self._stopped = False

    def start(self) -> None:
        """The program starts."""
        self._switch(False)

    def wait(self) -> None:
        """The program begins to wait, or something has come that it waits for and it waits on."""
        if self._timer is not None:
            self._switch(True)

    def go_on(self) -> None:
        """The program waits no more."""
        if self._timer is not None:
            self._switch(False)

    def stop(self) -> None:
        """The program is ending, and nothing of this counts any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _switch(self, waiting: bool) -> None:
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is not None:
            self._timer.cancel()
            if self._waiting:
                self._wait_left -= now - self._since
            else:
                self._run_left -= now - self._since
        self._since, self._waiting = now, waiting
        if waiting:
            self._timer = loop.call_later(max(0.0, min(self._wait, self._wait_left)), self._abandoned)
        else:
            self._timer = loop.call_later(max(0.0, self._run_left), self._overdue)

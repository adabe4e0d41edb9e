"""Sessions that wait for a pod: the allocator's queue, with futures and a timer."""

import asyncio
from collections.abc import Callable

from kubecoderun_operator.allocator import Allocator
from kubecoderun_operator.members import Member


class CancelRequestedError(Exception):
    """spec.cancel was set while the session waited for a pod, or for its turn in one."""


class WaitExpiredError(Exception):
    """The session waited as long as its pool allows."""


class PoolGoneError(Exception):
    """The pool was deleted while the session waited."""


class WaitingRoom:
    """The queue of one pool. Deadlines are on the clock of the event loop."""

    def __init__(self, allocator: Allocator, expired: Callable[[], None]) -> None:
        """expired is called when sessions have left because their time was over."""
        self._allocator = allocator
        self._expired = expired
        self._waiters: dict[str, asyncio.Future[Member]] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def enter(self, session: str) -> asyncio.Future[Member]:
        """A future pod for a session that the allocator has put into its queue."""
        waiter = self._waiters.get(session)
        if waiter is None or waiter.done():
            waiter = self._waiters[session] = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(lambda done: self._left(session, done))
        self._set_alarm()
        return waiter

    def leave(self, session: str) -> None:
        """The session does not want to wait any longer."""
        self._allocator.withdraw(session)
        self._waiters.pop(session, None)

    def serve(self) -> None:
        """Give ready pods to those who wait, first come first served."""
        for session, pod in self._allocator.grants():
            waiter = self._waiters.get(session)
            if waiter is None or waiter.done():
                self._allocator.release(session)
            else:
                waiter.set_result(pod)

    def close(self) -> None:
        """Nobody will get a pod any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        for session, waiter in list(self._waiters.items()):
            self._allocator.withdraw(session)
            if not waiter.done():
                waiter.set_exception(PoolGoneError)

    def _left(self, session: str, done: asyncio.Future[Member]) -> None:
        if self._waiters.get(session) is done:
            del self._waiters[session]
        if done.cancelled():
            self._allocator.withdraw(session)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadline = self._allocator.next_deadline()
        if deadline is not None:
            self._alarm = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        for session in self._allocator.overdue(asyncio.get_running_loop().time()):
            waiter = self._waiters.get(session)
            if waiter is not None and not waiter.done():
                waiter.set_exception(WaitExpiredError)
        self._set_alarm()
        self._expired()

"""Lets runs in as the limits of their tenants allow, after a short wait if need be."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from kubecoderun_api.limits import Bucket, Go, Limits, Stop

_CLEAN_ABOVE: Final = 1000
"""Tenants that are remembered before those without any effect are forgotten."""


class TooMany(Exception):  # noqa: N818 - says what there is
    """The tenant does too much."""

    def __init__(self, retry_after_seconds: int, text: str) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds
        self.text = text


class _Tenant:
    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.open = 0
        self.queue: deque[asyncio.Future[None]] = deque()


class Admission:
    """All tenants of this process."""

    def __init__(self, limits: Limits, *, retry_after_seconds: int) -> None:
        """`retry_after_seconds` is said when too many runs are open: nobody knows when one of them ends."""
        self._limits = limits
        self._retry_after_seconds = retry_after_seconds
        self._tenants: dict[str | None, _Tenant] = {}

    @asynccontextmanager
    async def run(self, tenant: str | None) -> AsyncIterator[None]:
        """The time of one run. Raises TooMany, after at most the limits' longest wait."""
        known = self._known(tenant)
        await self._wait_for_place(known)
        try:
            await self._wait_for_token(known)
            yield
        finally:
            self._leave(known)

    def _known(self, tenant: str | None) -> _Tenant:
        now = asyncio.get_running_loop().time()
        if tenant not in self._tenants:
            if len(self._tenants) >= _CLEAN_ABOVE:
                self._tenants = {
                    name: one
                    for name, one in self._tenants.items()
                    if one.open or one.queue or not one.bucket.is_full(now)
                }
            self._tenants[tenant] = _Tenant(Bucket(self._limits, now))
        return self._tenants[tenant]

    async def _wait_for_place(self, known: _Tenant) -> None:
        """Take one of the places of runs at once; those that wait get theirs in the order they came."""
        most = self._limits.at_once
        if most <= 0 or (known.open < most and not known.queue):
            known.open += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        known.queue.append(turn)
        try:
            async with asyncio.timeout(self._limits.longest_wait):
                await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():
                return  # the place came in the same moment
            text = f"More than {most} programs of one tenant at once."
            raise TooMany(self._retry_after_seconds, text) from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(known)
            raise
        finally:
            if turn in known.queue:
                known.queue.remove(turn)

    async def _wait_for_token(self, known: _Tenant) -> None:
        verdict = known.bucket.take(asyncio.get_running_loop().time())
        if isinstance(verdict, Stop):
            text = "Too many programs of one tenant in a short time."
            raise TooMany(max(math.ceil(verdict.retry_after), 1), text)
        assert isinstance(verdict, Go)
        try:
            await asyncio.sleep(verdict.after)
        except asyncio.CancelledError:
            known.bucket.give_back()
            raise

    def _leave(self, known: _Tenant) -> None:
        """Hand the place to the next, or give it up."""
        while known.queue:
            turn = known.queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        known.open -= 1

"""Ends a request to a pod early when the pod's node, or its sidecar, turns out to be gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

from kubecoderun_operator.presence import Knock, Presence, Verdict


class SidecarUnreachableError(Exception):
    """No answer, or a connection that broke. What was asked may have been done or not."""


class NodeSilentError(SidecarUnreachableError):
    """Nothing comes from the pod, and its node takes no connections any more."""


class Vigil:
    """Ends a block with an error when the node of a pod, or its sidecar, is found to be gone. As long as
    something comes often enough it costs a timer."""

    def __init__(self, knock: Callable[[], Awaitable[Knock]], patience: float) -> None:
        self._knock = knock
        self._presence = Presence(time.monotonic(), patience)
        self._scope = asyncio.timeout(None)
        self._found = Verdict.THERE
        self._timer: asyncio.TimerHandle | None = None
        self._knocking: asyncio.Task[None] | None = None

    def hear(self) -> None:
        """Something has come from the sidecar."""
        self._presence.hear(time.monotonic())

    async def __aenter__(self) -> "Vigil":
        await self._scope.__aenter__()
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._knocking is not None:
            self._knocking.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._found is Verdict.NODE_GONE:
                raise NodeSilentError("nothing comes, and no connection is taken") from None
            raise SidecarUnreachableError("nothing comes, and nothing listens") from None

    def _arm(self) -> None:
        pause = max(0.01, self._presence.next_knock() - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(pause, self._due)

    def _due(self) -> None:
        if time.monotonic() < self._presence.next_knock():
            self._arm()
        else:
            self._knocking = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        began = time.monotonic()
        knock = await self._knock()
        ended = time.monotonic()
        self._presence.knocked(knock, began, ended)
        self._found = self._presence.verdict(ended)
        if self._found is Verdict.THERE:
            self._arm()
        else:
            self._scope.reschedule(asyncio.get_running_loop().time())

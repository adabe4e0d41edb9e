"""The hang-up policy: when to break the silence before an answer, and which connections to close.

Some LibreChat releases destroy a pooled connection after 4 to 5 silent seconds. Two cures, each sufficient
and each switchable: connections that were used for anything but a successful /exec are closed, so that /exec
always gets a fresh one; and a slow /exec sends a space every now and then, which JSON ignores.

`HangUpPolicy` decides, over plain numbers; `ExecResponse` carries it out.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubecoderun_api.answers import Answer

JSON_TYPE: Final = (b"content-type", b"application/json")
SESSION_HEADER: Final = b"kcr-session-id"
"""Names the session while it runs: with the status line of a slow answer. Then its output can be watched."""
CLOSE: Final = (b"connection", b"close")


@dataclass(frozen=True)
class HangUpPolicy:
    """Times in seconds."""

    heartbeat: bool
    heartbeat_after: float
    heartbeat_every: float
    close_connections: bool

    def next_space(self, since_request: float, since_space: float | None) -> float | None:
        """How long to wait for the answer until a space is due: 0 or less now, None never.

        `since_space` is None as long as nothing has been sent; the first space comes with the status line.
        """
        if not self.heartbeat:
            return None
        if since_space is None:
            return self.heartbeat_after - since_request
        return self.heartbeat_every - since_space

    def closes(self, path: str, status: int) -> bool:
        """Whether to close the connection after this answer; `path` as it is routed (see `normal_path`)."""
        used_for_exec = path == "/exec" or path.startswith("/exec/")
        return self.close_connections and not (used_for_exec and 200 <= status < 300)


class BrokenOff(Exception):  # noqa: N818 - says what happened
    """An answer that has begun cannot be completed; why has been logged. The connection has to be closed."""


@dataclass
class Exchange:
    """What became of one answer; read by the request log."""

    late: bool = False
    """Whether the answer was begun before the result was known."""
    left_after: float | None = None
    """Seconds from the request until the client left; None if it stayed."""


class ExecResponse(Response):
    """Waits for an answer as the policy says, and sends it."""

    def __init__(
        self,
        run: Coroutine[Any, Any, Answer],
        *,
        session: str,
        requested_at: float,
        policy: HangUpPolicy,
        exchange: Exchange,
        on_late: Callable[[], None],
        on_left: Callable[[asyncio.Task[Answer]], Awaitable[None]],
    ) -> None:
        """`requested_at` in the event loop's time; `on_left` gets the unfinished run if the client left."""
        super().__init__()
        self._run = run
        self._session = session
        self._requested_at = requested_at
        self._policy = policy
        self._exchange = exchange
        self._on_late = on_late
        self._on_left = on_left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        run = asyncio.create_task(self._run)
        left = asyncio.create_task(wait_until_left(receive))
        try:
            await self._accompany(run, left, send)
            if run.done():
                await self._finish(await run, send)
            else:
                self._exchange.left_after = asyncio.get_running_loop().time() - self._requested_at
                await self._on_left(run)
        except asyncio.CancelledError:
            run.cancel()
            raise
        finally:
            left.cancel()

    async def _accompany(self, run: asyncio.Task[Answer], left: asyncio.Task[None], send: Send) -> None:
        """Send spaces when they are due, until there is an answer or nobody to get it."""
        loop = asyncio.get_running_loop()
        last_space: float | None = None
        while True:
            now = loop.time()
            due = self._policy.next_space(
                now - self._requested_at, None if last_space is None else now - last_space
            )
            await asyncio.wait(
                {run, left},
                timeout=None if due is None else max(due, 0.0),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if run.done() or left.done():
                return
            if last_space is None:
                self._exchange.late = True
                self._on_late()
                headers = [JSON_TYPE, (SESSION_HEADER, self._session.encode())]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            last_space = loop.time()
            await send({"type": "http.response.body", "body": b" ", "more_body": True})

    async def _finish(self, answer: Answer, send: Send) -> None:
        if self._exchange.late:
            body = _compact(answer.late_body(self._session))
        else:
            body = _compact(answer.body)
            length = str(len(body)).encode()
            # a run may have been tried again under another name
            session = str(answer.body.get("session_id") or self._session)
            headers = [JSON_TYPE, (b"content-length", length), (SESSION_HEADER, session.encode())]
            headers += [(name.encode(), value.encode()) for name, value in answer.headers.items()]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _compact(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


async def wait_until_left(receive: Receive) -> None:
    """Return when the client has closed the connection. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass

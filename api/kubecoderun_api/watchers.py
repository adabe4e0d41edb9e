"""Those who watch runs in progress: follows one run for each, from wherever it is to its result."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kubecoderun_api import answers, progress
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.connection import BrokenOff, wait_until_left
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.progress import Progress
from kubecoderun_api.relay import Relay
from kubecoderun_api.results import answer_of
from kubecoderun_api.sessions import Sessions
from kubecoderun_api.storage import Store
from kubecoderun_api.waiters import NoResult
from kubecoderun_crds.reasons import TERMINAL_PHASES, Phase
from kubecoderun_crds.relay import Glance, Question

Json = dict[str, Any]
LOOK_SECONDS: Final = 10.0
"""How long the operator waits for output before it says that there is none."""
FIRST_LOOK_SECONDS: Final = 2.0
"""The same before the program is known to run, so that its phase is looked at more often."""
PACE_SECONDS: Final = 0.1
"""Between two looks at output: a program that writes much is told of in pieces."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between two looks at a session nobody can tell the output of; the last one repeats."""
_STALL_SECONDS: Final = 30.0
_SECOND: Final = 1.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Watchers:
    """Follows runs. Watching changes nothing: no resource is written, no run is held up."""

    def __init__(
        self,
        sessions: Sessions,
        store: Store,
        relay: Relay,
        metrics: Metrics,
        *,
        namespace: str,
        retry_after_seconds: int,
        leaving: Callable[[], bool],
    ) -> None:
        """`leaving`: whether this process is about to end, so that watchers should go to another one."""
        self._sessions = sessions
        self._store = store
        self._relay = relay
        self._metrics = metrics
        self._namespace = namespace
        self._retry_after_seconds = retry_after_seconds
        self._leaving = leaving
        self.open = 0
        """How many there are."""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One more watcher as long as this lasts."""
        self.open += 1
        self._metrics.watchers.inc()
        try:
            yield
        finally:
            self.open -= 1
            self._metrics.watchers.dec()

    async def follow(self, session: Json, told: Progress, principal: Principal) -> AsyncGenerator[bytes]:
        """All events from now to the end. `session`: the resource as it is now."""
        name, uid = session["metadata"]["name"], session["metadata"].get("uid", "")
        yield progress.prelude()
        pause = 0
        while not self._leaving():
            for piece in told.phase(name, _phase(session)):
                yield piece
            if _phase(session) in TERMINAL_PHASES:
                async for piece in self._end(session, told):
                    yield piece
                return
            seconds = LOOK_SECONDS if _phase(session) == Phase.RUNNING else FIRST_LOOK_SECONDS
            glance = await self._relay.look(self._question(name, uid, told, seconds))
            if glance is not None and glance.run == "running":
                pause = 0
                for piece in told.output(glance):
                    yield piece
                await asyncio.sleep(PACE_SECONDS)
                if _news(glance) and _phase(session) == Phase.RUNNING:
                    continue
            elif glance is None or glance.run == "finished":
                await asyncio.sleep(_PAUSES[min(pause, len(_PAUSES) - 1)])
                pause += 1
            try:
                found = await self._read(name, principal)
            except NoResult:
                return  # the watcher comes again, to another replica
            if found is None or found["metadata"].get("uid", "") != uid:
                yield told.failure(answers.own_fault("SessionDeleted").body)
                return
            session = found

    async def body(self, session: Json) -> tuple[int, Json]:
        """Status and body of the answer to a session that has ended."""
        answer = await self._answer(session)
        return answer[0].status, answer[0].body

    def _question(self, name: str, uid: str, told: Progress, seconds: float) -> Question:
        stdout, stderr = (told.streams[stream].known for stream in progress.STREAMS)
        return Question(self._namespace, name, uid, stdout, stderr, seconds)

    async def _read(self, name: str, principal: Principal) -> Json | None:
        """The session. A cluster that cannot be asked is asked again; NoResult when this process ends."""
        while True:
            try:
                return await self._sessions.read(name, principal)
            except NoResult:
                if self._leaving():
                    raise
                await asyncio.sleep(_SECOND)

    async def _answer(self, session: Json) -> tuple[answers.Answer, Json | None]:
        status, seconds = session.get("status") or {}, self._retry_after_seconds
        return await answer_of(self._store, session, status, retry_after_seconds=seconds)

    async def _end(self, session: Json, told: Progress) -> AsyncIterator[bytes]:
        answer, stored = await self._answer(session)
        status = session.get("status") or {}
        if answers.has_output(status):
            for name in progress.STREAMS:
                for piece in told.rest(name, *answers.known_beginning(status, stored, name)):
                    yield piece
        yield told.result(answer.body) if answer.status == 200 else told.failure(answer.body)


def _phase(session: Json) -> str:
    return str((session.get("status") or {}).get("phase") or "Pending")


def _news(glance: Glance) -> bool:
    return bool(glance.stdout.data or glance.stderr.data)


class EventStream(Response):
    """Sends events until there are no more, or the client has left."""

    def __init__(
        self, events: AsyncGenerator[bytes], watchers: Watchers, *, heartbeat_seconds: float
    ) -> None:
        super().__init__()
        self._events = events
        self._watchers = watchers
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        sending = asyncio.create_task(self._send(send))
        left = asyncio.create_task(wait_until_left(receive))
        try:
            with self._watchers.counted():
                await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            raise BrokenOff from None  # the client takes nothing
        finally:
            sending.cancel()
            left.cancel()
            await asyncio.wait({sending})

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        upcoming: asyncio.Task[bytes] | None = None
        try:
            while True:
                upcoming = upcoming or asyncio.ensure_future(anext(self._events))
                done, _ = await asyncio.wait({upcoming}, timeout=self._heartbeat_seconds)
                try:
                    piece = upcoming.result() if done else progress.HEARTBEAT
                except StopAsyncIteration:
                    break
                upcoming = None if done else upcoming
                async with asyncio.timeout(_STALL_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.wait({upcoming})
            await self._events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

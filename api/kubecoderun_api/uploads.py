"""Takes in uploads: the bytes go into the store, then one session is made that holds them.

Nothing stays behind if that fails, whatever the reason: the client's form, the store, the API server, the
time limit, or that the client has left.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kubecoderun_api import filenames, log, wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.chores import Chores
from kubecoderun_api.forms import Event, FileBegins, FileContent, Form, FormError
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.object_writer import ObjectWriter
from kubecoderun_api.sessions import NoResult, Sessions
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError
from kubecoderun_crds import names
from kubecoderun_crds.reasons import Mode

Json = dict[str, Any]


@dataclass
class _Arrival:
    """A file that is on its way into the store, or there."""

    id: str
    path: str
    writer: ObjectWriter


@dataclass(frozen=True)
class Held:
    """A session made by an upload."""

    session: str
    files: tuple[tuple[str, str, int], ...]
    """Id, path and bytes of each file."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for _, _, size in self.files)

    def as_answer(self) -> Json:
        """What clients of all generations read."""
        return {
            "message": "success",
            "storage_session_id": self.session,
            "session_id": self.session,
            "files": [{"fileId": file, "filename": path} for file, path, _ in self.files],
        }


class Uploads:
    """All uploads of this process."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        chores: Chores,
        metrics: Metrics,
        *,
        max_bytes: int,
        seconds: float,
        at_once: int,
        lifetime: timedelta,
    ) -> None:
        """At most `max_bytes` a file; `at_once` uploads share the memory, the others wait for their turn."""
        self._store = store
        self._sessions = sessions
        self._chores = chores
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._turns = asyncio.Semaphore(at_once)
        self._lifetime = lifetime
        self._limits: set[asyncio.Timeout] = set()
        """Of the uploads that are open."""
        self._stopping = False

    def stop(self) -> None:
        """Give up on all that are open, and take nothing new."""
        self._stopping = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    async def take(
        self, session: str, principal: Principal, content_type: str, chunks: AsyncIterator[bytes]
    ) -> Held:
        """Take in one form; `session` is the name for its session.

        Raises wire.BadRequest for a form that cannot be accepted or takes too long, StoreError, NoResult, and
        whatever `chunks` raises.
        """
        if self._stopping:
            raise NoResult("ShuttingDown")
        arrivals: list[_Arrival] = []
        held = None
        limit = asyncio.timeout(self._seconds)
        self._limits.add(limit)
        try:
            async with limit, self._turns:
                held = await self._take(session, principal, content_type, chunks, arrivals)
            return held
        except TimeoutError:
            if self._stopping:
                raise NoResult("ShuttingDown") from None
            raise wire.BadRequest(
                504, {"error": "Upload timeout", "message": "The upload took too long."}
            ) from None
        except FormError as error:
            raise wire.BadRequest(400, {"error": error.code, "message": str(error)}) from None
        finally:
            self._limits.discard(limit)
            if held is None and arrivals:
                self._chores.start(self._discard(session, arrivals))

    async def _take(
        self,
        session: str,
        principal: Principal,
        content_type: str,
        chunks: AsyncIterator[bytes],
        arrivals: list[_Arrival],
    ) -> Held:
        form = Form(content_type)
        async for chunk in chunks:
            for event in form.feed(chunk):
                await self._on_event(event, session, arrivals)
        form.finish()
        read_only = _flag(form.fields.get("read_only", ""))
        files = tuple((one.id, one.path, one.writer.size) for one in arrivals)
        await self._sessions.hold(
            session,
            {
                "mode": Mode.FILES,
                "files": [
                    {"id": file, "path": path, "bytes": size} | ({"readOnly": True} if read_only else {})
                    for file, path, size in files
                ],
            },
            _owner(principal, form.fields),
            lifetime=self._lifetime,
        )
        held = Held(session, files)
        self._metrics.upload_bytes.inc(held.size)
        return held

    async def _on_event(self, event: Event, session: str, arrivals: list[_Arrival]) -> None:
        if isinstance(event, FileBegins):
            clause = filenames.problem(event.name)
            if clause is not None:
                wire.refuse(f"The name of a file {clause}.")
            file = _new_id(session, {one.id for one in arrivals})
            arrivals.append(_Arrival(file, event.name, self._store.write_file(session, file)))
        elif isinstance(event, FileContent):
            writer = arrivals[-1].writer
            if writer.size + len(event.data) > self._max_bytes:
                text = f"A file is over {self._max_bytes} bytes."
                wire.refuse(text, error="File size limit exceeded", status=413)
            await writer.write(event.data)
        else:
            await arrivals[-1].writer.finish()

    async def _discard(self, session: str, arrivals: list[_Arrival]) -> None:
        """Take back what is in the store. What the store does not let go, the sweeper of the store finds."""
        for one in arrivals:
            try:
                await one.writer.discard()
            except StoreError as error:
                log.event(
                    "upload_not_discarded",
                    level=log.WARNING,
                    session=session,
                    object=one.id,
                    cause=str(error),
                )


def _owner(principal: Principal, fields: Mapping[str, str]) -> Principal:
    """Whose files these are: what is uploaded for an agent or a skill belongs to all who use that."""
    shared = fields.get("entity_id", "").strip() or fields.get("kind", "").strip() in ("agent", "skill")
    return principal.for_everybody() if shared else principal


def _new_id(session: str, taken: set[str]) -> str:
    while (made := names.file_id(session)) in taken:
        pass
    return made


def _flag(text: str) -> bool:
    """The value of `read_only`."""
    values = {"true": True, "1": True, "false": False, "0": False, "": False}
    value = values.get(text.strip().lower())
    if value is None:
        wire.refuse("read_only must be true or false.")
    return value

"""Takes in uploads: the bytes go into the store, then one session is made that holds them.

Nothing stays behind if that fails, whatever the reason: the client's form, the store, the API server, the
time limit, or that the client has left.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from kubecoderun_api import scopes, wire
from kubecoderun_api.arrivals import MAX_BATCH_FILES, Arrivals, Arrived, Batch
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.chores import Chores
from kubecoderun_api.forms import MAX_FILE_PARTS, Form, FormError
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.scopes import Scope
from kubecoderun_api.sessions import Sessions
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError
from kubecoderun_api.waiters import NoResult
from kubecoderun_crds.reasons import Mode

Json = dict[str, Any]


@dataclass(frozen=True)
class Held:
    """A session made by an upload."""

    session: str
    files: tuple[Arrived, ...]
    outcome: ClassVar[str] = "success"

    @property
    def kept(self) -> int:
        """How many files there are."""
        return len(self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def as_answer(self) -> Json:
        """What clients of all generations read."""
        return {
            "message": "success",
            "storage_session_id": self.session,
            "session_id": self.session,
            "files": [{"fileId": file.id, "filename": file.name} for file in self.files],
        }


@dataclass(frozen=True)
class BatchHeld:
    """What became of a batch: a session, unless no file could be kept, and the fate of each file."""

    session: str | None
    files: tuple[Arrived, ...]
    limit_reached: bool

    @property
    def kept(self) -> int:
        """How many files are kept."""
        return sum(not file.error for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of those together."""
        return sum(file.size for file in self.files if not file.error)

    @property
    def outcome(self) -> str:
        """One word for all."""
        if self.kept == len(self.files):
            return "success"
        return "partial_success" if self.kept else "error"

    def as_answer(self) -> Json:
        """What clients read: they look for their files by name."""
        answer: Json = {
            "message": self.outcome,
            "storage_session_id": self.session,
            "session_id": self.session,
            "files": [
                {"status": "error", "filename": file.name, "error": file.error}
                if file.error
                else {"status": "success", "filename": file.name, "fileId": file.id}
                for file in self.files
            ],
            "succeeded": self.kept,
            "failed": len(self.files) - self.kept,
        }
        return answer | (
            {"filesLimitReached": True, "maxFiles": MAX_BATCH_FILES} if self.limit_reached else {}
        )


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
        """Take in one form, as a whole or not at all; `session` is the name for its session.

        Raises wire.BadRequest for a form that cannot be accepted or takes too long, StoreError, NoResult, and
        whatever `chunks` raises.
        """
        arrivals = Arrivals(self._store, session, max_bytes=self._max_bytes)
        await self._run(session, principal, lambda: Form(content_type), chunks, arrivals)
        return Held(session, tuple(arrivals.files))

    async def take_batch(
        self, session: str, principal: Principal, content_type: str, chunks: AsyncIterator[bytes]
    ) -> BatchHeld:
        """Take in what can be kept of one form. Raises as `take`, but not for what is wrong with one file."""
        arrivals = Batch(self._store, session, self._chores, max_bytes=self._max_bytes)
        await self._run(
            session, principal, lambda: Form(content_type, max_files=MAX_FILE_PARTS), chunks, arrivals
        )
        if arrivals.store_failed and not arrivals.kept:
            raise StoreError("no file of a batch could be stored")
        made = session if arrivals.kept else None
        return BatchHeld(made, tuple(arrivals.files), arrivals.limit_reached)

    async def _run(
        self,
        session: str,
        principal: Principal,
        form: Callable[[], Form],
        chunks: AsyncIterator[bytes],
        arrivals: Arrivals,
    ) -> None:
        if self._stopping:
            raise NoResult("ShuttingDown")
        held = False
        limit = asyncio.timeout(self._seconds)
        self._limits.add(limit)
        try:
            async with limit, self._turns:
                await self._take(session, principal, form(), chunks, arrivals)
            held = True
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
            if not held and arrivals.files:
                self._chores.start(arrivals.discard())

    async def _take(
        self,
        session: str,
        principal: Principal,
        form: Form,
        chunks: AsyncIterator[bytes],
        arrivals: Arrivals,
    ) -> None:
        async for chunk in chunks:
            for event in form.feed(chunk):
                await arrivals.take(event)
        form.finish()
        fields = form.fields
        scope = scopes.parse(fields.get("kind"), fields.get("id"), fields.get("version"))
        read_only = _flag(fields.get("read_only", ""))
        kept = arrivals.kept
        if not kept:
            return
        await self._sessions.hold(
            session,
            {
                "mode": Mode.FILES,
                "files": [
                    {"id": file.id, "path": file.name, "bytes": file.size}
                    | ({"readOnly": True} if read_only else {})
                    for file in kept
                ],
            },
            _owner(principal, fields, scope),
            lifetime=self._lifetime,
            metadata=None if scope is None else scope.as_metadata(),
        )
        self._metrics.upload_bytes.inc(sum(file.size for file in kept))


def _owner(principal: Principal, fields: Mapping[str, str], scope: Scope | None) -> Principal:
    """Whose files these are: what is uploaded for an agent or a skill belongs to all who use that."""
    shared = fields.get("entity_id", "").strip() or (scope is not None and scope.kind != "user")
    return principal.for_everybody() if shared else principal


def _flag(text: str) -> bool:
    """The value of `read_only`."""
    values = {"true": True, "1": True, "false": False, "0": False, "": False}
    value = values.get(text.strip().lower())
    if value is None:
        wire.refuse("read_only must be true or false.")
    return value

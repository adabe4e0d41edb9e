"""The files of one form on their way into the store: all of them or none, or as many as can be had."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from kubecoderun_api import filenames, log, wire
from kubecoderun_api.chores import Chores
from kubecoderun_api.forms import Event, FileBegins, FileContent
from kubecoderun_api.object_writer import ObjectWriter
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError
from kubecoderun_crds import names

MAX_BATCH_FILES: Final = 200
"""Files that one batch stores; those after them are told to have failed."""


@dataclass(frozen=True)
class Arrived:
    """What became of one file of a form."""

    name: str
    """As the client sent it."""
    id: str = ""
    size: int = 0
    """Bytes."""
    error: str = ""
    """Why it is not kept, as a sentence; empty if it is."""


class Arrivals:
    """Takes the events of a form; the first file that cannot be kept ends it. Whoever does not want the files
    in the end calls `discard`."""

    def __init__(self, store: Store, session: str, *, max_bytes: int) -> None:
        """At most `max_bytes` a file."""
        self._store = store
        self._session = session
        self._max_bytes = max_bytes
        self._writers: list[ObjectWriter | None] = []
        self.files: list[Arrived] = []
        """In the order of the form, beside each its writer; None where nothing is in the store."""

    @property
    def kept(self) -> list[Arrived]:
        """Those that are kept."""
        return [file for file in self.files if not file.error]

    async def take(self, event: Event) -> None:
        """The next event. Raises wire.BadRequest, StoreError."""
        if isinstance(event, FileBegins):
            self.files.append(Arrived(event.name))
            self._writers.append(None)
            self._begin(event.name)
        elif isinstance(event, FileContent):
            await self._write(event.data)
        else:
            await self._writer.finish()

    def _begin(self, name: str) -> None:
        clause = filenames.problem(name)
        if clause is not None:
            wire.refuse(f"The name of a file {clause}.")
        taken = {file.id for file in self.files}
        while (file := names.file_id(self._session)) in taken:
            pass
        self._writers[-1] = self._store.write_file(self._session, file, name)
        self.files[-1] = replace(self.files[-1], id=file)

    async def _write(self, data: bytes) -> None:
        size = self.files[-1].size + len(data)
        if size > self._max_bytes:
            text = f"A file is over {self._max_bytes} bytes."
            wire.refuse(text, error="File size limit exceeded", status=413)
        await self._writer.write(data)
        self.files[-1] = replace(self.files[-1], size=size)

    @property
    def _writer(self) -> ObjectWriter:
        writer = self._writers[-1]
        if writer is None:
            raise RuntimeError("no file has been begun")
        return writer

    async def discard(self) -> None:
        """Take back all that is in the store."""
        for file, writer in zip(self.files, self._writers, strict=True):
            if writer is not None:
                await self._take_back(file, writer)

    async def _take_back(self, file: Arrived, writer: ObjectWriter) -> None:
        """What the store does not let go, the operator's look at the store finds."""
        try:
            await writer.discard()
        except StoreError as error:
            log.event(
                "upload_not_discarded",
                level=log.WARNING,
                session=self._session,
                object=file.id,
                cause=str(error),
            )


class Batch(Arrivals):
    """Goes on after a file that cannot be kept, and notes why it is not."""

    def __init__(self, store: Store, session: str, chores: Chores, *, max_bytes: int) -> None:
        super().__init__(store, session, max_bytes=max_bytes)
        self._chores = chores
        self.store_failed = False
        """Whether the store did not take one; then no more are tried, each would take as long to fail."""

    @property
    def limit_reached(self) -> bool:
        """Whether the form has more files than a batch stores."""
        return len(self.files) > MAX_BATCH_FILES

    async def take(self, event: Event) -> None:
        """The next event. Raises nothing: what fails is noted."""
        if not isinstance(event, FileBegins) and self.files[-1].error:
            return
        try:
            await super().take(event)
        except wire.BadRequest as error:
            await self._fail(str(error.body["message"]))
        except StoreError:
            self.store_failed = True
            await self._fail("The object store did not take the file.")

    def _begin(self, name: str) -> None:
        if self.limit_reached:
            wire.refuse(f"A batch has at most {MAX_BATCH_FILES} files.")
        if self.store_failed:
            raise StoreError("not tried")
        super()._begin(name)

    async def _fail(self, error: str) -> None:
        """Note why the file is not kept, and give back at once what it has taken."""
        self.files[-1] = replace(self.files[-1], error=error)
        writer, self._writers[-1] = self._writers[-1], None
        if writer is not None:
            await asyncio.shield(self._chores.start(self._take_back(self.files[-1], writer)))

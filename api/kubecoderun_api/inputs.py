"""Looks up the files that a call of /exec names: in the cluster, if need be in the store."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from kubecoderun_api import session_files
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.lifetimes import Lifetimes
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.references import Input, Reference, Resolution
from kubecoderun_api.session_files import NOTHING, SessionFiles
from kubecoderun_api.sessions import Sessions
from kubecoderun_api.storage import Store


class MissingInputs(Exception):  # noqa: N818 - says what there is
    """Some files do not exist; the program must not run without them."""

    def __init__(self, missing: Sequence[tuple[str, str]]) -> None:
        super().__init__(len(missing))
        self.missing = missing
        """Path and reason of each."""


class Inputs:
    """Turns references into inputs of a session."""

    def __init__(self, sessions: Sessions, store: Store, lifetimes: Lifetimes, metrics: Metrics) -> None:
        self._sessions = sessions
        self._store = store
        self._lifetimes = lifetimes
        self._metrics = metrics

    async def resolve(self, references: Sequence[Reference], principal: Principal) -> list[Input]:
        """The inputs, in the order of their references, as far as this principal may have them.

        Their sessions will live on.

        Raises MissingInputs unless all exist, NoResult or StoreError if that cannot be found out.
        """
        if not references:
            return []
        resolution = Resolution(references)
        read: dict[str, SessionFiles] = {}
        while True:
            sessions, prefixes = resolution.sessions_to_read(), resolution.prefixes_to_list()
            if not sessions and not prefixes:
                break
            for name, files in await asyncio.gather(*(self._read(name, principal) for name in sessions)):
                read[name] = files
                resolution.add_session(name, files)
            listed = await asyncio.gather(*map(self._store.find, prefixes))
            for prefix, objects in zip(prefixes, listed, strict=True):
                resolution.add_listing(prefix, objects)
        found, missing = resolution.inputs(), resolution.missing()
        self._count(found, len(missing))
        if missing:
            raise MissingInputs(missing)
        for session in {one.session for one in found}:
            self._lifetimes.used(session, read[session])
        return found

    async def _read(self, session: str, principal: Principal) -> tuple[str, SessionFiles]:
        resource = await self._sessions.read(session, principal)
        files = NOTHING if resource is None else session_files.read(resource, datetime.now(UTC))
        return session, files

    def _count(self, found: Sequence[Input], missing: int) -> None:
        by_prefix = sum(one.by_prefix for one in found)
        counts = {"exact": len(found) - by_prefix, "prefix": by_prefix, "missing": missing}
        for how, count in counts.items():
            self._metrics.references.labels(how).inc(count)

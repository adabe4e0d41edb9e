"""What kopf calls: each handler hands the event over and returns. No work is done in them, and nothing is
written.

kopf delivers the events of one object in order, those of different objects in any order, and after a gap
every object that is there once more, with the type None. It forgets an event whose handler fails; these
cannot.
"""

from collections.abc import Iterator
from typing import Any

import kopf

from kubecoderun_crds import names
from kubecoderun_operator.cluster import UNFINISHED
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.sessions import Desk


def handlers(connection: Connection, registry: Registry, desk: Desk) -> kopf.OperatorRegistry:
    """The handlers of one operator process."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_: Any) -> kopf.AiohttpSession:
        authorization = await connection.authorization()
        headers = {"Authorization": authorization} if authorization else {}
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session(headers))

    @kopf.on.event(names.GROUP, names.VERSION, names.SESSION_PLURAL, registry=made)
    async def session(event: kopf.RawEvent, **_: Any) -> None:
        desk.session_seen(event["type"], dict(event["object"]))

    @kopf.on.event(names.GROUP, names.VERSION, names.POOL_PLURAL, registry=made)
    async def pool(event: kopf.RawEvent, **_: Any) -> None:
        registry.pool_seen(event["type"], dict(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=made)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        registry.pod_seen(event["type"], dict(event["object"]))

    return made


def settings() -> kopf.OperatorSettings:
    """kopf's settings: nothing of its own in the cluster, server-side selectors, and no giving up."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True
    made.peering.standalone = True
    made.queueing.idle_timeout = 0.5
    made.queueing.exit_timeout = 1.0
    made.networking.error_backoffs = _Backoffs()
    made.networking.request_timeout = 10
    made.networking.connect_timeout = 3
    made.persistence.finalizer = f"{names.GROUP}/finalizer"
    made.persistence.progress_storage = kopf.StatusProgressStorage(field="status.kopf.progress")
    made.persistence.diffbase_storage = _NoDiffBase()
    made.watching.chunk_size = 500
    # Keys are tuples: kopf takes "v1/pods" without a word, and matches nothing with it.
    made.watching.label_selectors["", "v1", "pods"] = names.LABEL_POOL
    made.watching.field_selectors[names.GROUP, names.VERSION, names.SESSION_PLURAL] = UNFINISHED
    return made


class _Backoffs:
    """Fast first, then for ever: with a list that ends, kopf would end with it when the API server
    restarts."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.05, 0.1, 0.2, 0.5, 1.0)
        while True:
            yield 2.0


class _NoDiffBase(kopf.StatusDiffBaseStorage):
    """Compares nothing. kopf copies each object for a comparison that only handlers of changes would use."""

    def __init__(self) -> None:
        super().__init__(field="status.kopf.lastHandled")

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

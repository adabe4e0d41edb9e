"""What the sidecar of one run may do with the store: fetch code and inputs before it, put result and files
after it."""

from typing import Final

from kubecoderun_crds.pool import PoolLimits
from kubecoderun_crds.toolcalls import MAX_CALLS, call_id, input_object
from kubecoderun_operator.orders import Order, Session
from kubecoderun_operator.storage import Storage
from kubecoderun_sidecar.protocol import FileSlot, PrepareRequest, ResultTarget, StartRequest

_SLACK_SECONDS: Final = 30.0
"""For what happens between signing and use: connections, clocks that differ."""


def delivery(storage: Storage | None, order: Order, seconds: float) -> PrepareRequest:
    """The request that gives a run to a pod. seconds: how long the sidecar may take to fetch everything.

    Raises ValueError for an order that needs a store where there is none.
    """
    if storage is None:
        if order.fetches:
            raise ValueError("no object store is configured")
        return order.prepare()
    where, life = order.session, seconds + _SLACK_SECONDS
    code = storage.code_url(where.namespace, where.name, life) if order.stored else ""
    inputs = [storage.file_url(where.namespace, file.session, file.id, life) for file in order.inputs]
    return order.prepare(code, inputs, keep_files=True)


def collection(
    storage: Storage | None,
    session: Session,
    limits: PoolLimits,
    seconds: float,
    stored_after: float,
    run: str | None = None,
) -> StartRequest:
    """The request that starts a run. seconds: its time limit and how long storing its files may take.
    stored_after: a run that takes so many seconds gets its result stored. run: which one is meant, in a
    workspace."""
    if storage is None:
        return StartRequest(run=run)
    life = seconds + _SLACK_SECONDS
    result = storage.result_url(session.namespace, session.name, life)
    outputs = None
    if limits.max_files:
        outputs = storage.outputs(
            session.namespace,
            session.name,
            files=limits.max_files,
            file_bytes=limits.max_file_bytes,
            seconds=life,
        )
    calls = _call_slots(storage, session, life)
    return StartRequest(ResultTarget(result, after_seconds=stored_after), outputs, calls, run)


def _call_slots(storage: Storage, session: Session, seconds: float) -> tuple[FileSlot, ...]:
    """Where the sidecar puts long inputs of calls; nowhere without tools."""
    if not session.has_tools:
        return ()
    ids = [call_id(number) for number in range(1, MAX_CALLS + 1)]
    urls = storage.put_urls(session.namespace, session.name, list(map(input_object, ids)), seconds)
    return tuple(map(FileSlot, ids, urls))

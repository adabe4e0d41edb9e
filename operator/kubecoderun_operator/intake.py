"""Takes a run on: checks its request against its pool, and the files it names against their sessions."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import Reason
from kubecoderun_operator import inputs, orders
from kubecoderun_operator.binding import EndedError
from kubecoderun_operator.cluster import ApiError, Cluster
from kubecoderun_operator.inputs import Missing
from kubecoderun_operator.orders import Order, Refusal, Session
from kubecoderun_operator.outcomes import Outcome
from kubecoderun_operator.pool import PoolKeeper
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.tools import Tools

_READS_AT_ONCE: Final = 16


async def accept(session: Session, registry: Registry, tools: Tools) -> tuple[Order, PoolKeeper]:
    """What is to be done, and the pool that will do it. Raises EndedError if it cannot be done."""
    if session.cancel:
        raise EndedError(Outcome(Reason.CANCELLED))
    keeper = await registry.find(session.namespace, session.pool)
    if keeper is None:
        raise EndedError(Outcome(Reason.POOL_NOT_FOUND, f"there is no pool {session.pool}"))
    return await check(session, keeper.spec, tools), keeper


async def check(session: Session, pool: PoolSpec, tools: Tools) -> Order:
    """What is to be done in a pod of that pool. Raises EndedError if it cannot be done."""
    order = orders.order(session, pool)
    if isinstance(order, Refusal):
        raise EndedError(Outcome(order.reason, order.message))
    if order.fetches and tools.storage is None:
        raise EndedError(Outcome(Reason.STORE_UNAVAILABLE, "no object store is configured"))
    if order.references:
        order = await _with_inputs(order, tools.cluster)
    return order


async def _with_inputs(order: Order, cluster: Cluster) -> Order:
    """The order with its files found. Each session that is referred to is read once, as it stands now."""
    found = await _sessions(cluster, order.session.namespace, inputs.owners(order.references))
    resolved = inputs.resolve(order.references, found, order.tenant)
    if isinstance(resolved, Missing):
        raise EndedError(Outcome(Reason.INPUT_UNAVAILABLE, resolved.message))
    return replace(order, inputs=resolved)


async def _sessions(
    cluster: Cluster, namespace: str, names: list[str]
) -> dict[str, Mapping[str, Any] | None]:
    limit = asyncio.Semaphore(_READS_AT_ONCE)

    async def read(name: str) -> Mapping[str, Any] | None:
        async with limit:
            try:
                return await cluster.session(namespace, name)
            except ApiError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return None
                raise

    async with asyncio.TaskGroup() as group:
        reads = {name: group.create_task(read(name)) for name in names}
    return {name: task.result() for name, task in reads.items()}

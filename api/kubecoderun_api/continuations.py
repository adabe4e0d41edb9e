"""Carries out what /exec/programmatic asks for: starts programs that call tools, brings them results,
cancels."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from kubecoderun_api import answers, idempotency, log, repetition, runs, toolcalls, wire
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.cluster import ClusterError
from kubecoderun_api.idempotency import Claim
from kubecoderun_api.pools import Pool
from kubecoderun_api.references import Reference
from kubecoderun_api.services import Services
from kubecoderun_api.toolcalls import Continuation, Given
from kubecoderun_api.transfer import StoreError
from kubecoderun_api.waiters import NoResult
from kubecoderun_crds import names
from kubecoderun_crds.toolcalls import input_object, result_object

Json = dict[str, Any]
_NOT_FOUND: Final = 404


async def start(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
    label: str | None,
    claim: Claim | None,
    admitted: Callable[[Callable[[], Awaitable[Answer]]], Awaitable[Answer]],
) -> Answer:
    """Start a program; the answer is its end or the calls that it waits for. Only cancelling raises.

    With a claim, or rather its idempotency key, the same program is started once: the others are told what
    it waits for. `admitted` lets the program run when there is room."""
    secret = toolcalls.new_secret() if claim is None else claim.continuation
    metadata = {
        "annotations": {names.ANNOTATION_CONTINUATION: toolcalls.digest(secret)},
        "labels": _labels(label),
    }
    pausing = runs.Pausing(
        toolcalls.pending, metadata, timedelta(seconds=services.settings.tool_waits_seconds)
    )
    fingerprint = "" if claim is None else claim.fingerprint

    def run() -> Awaitable[Answer]:
        return runs.run(services, principal, session, call, files, pool, pausing, fingerprint)

    if claim is None:
        answer = await admitted(run)
    else:
        once = functools.partial(
            repetition.once,
            services,
            principal,
            claim,
            lambda: admitted(run),
            wait_seconds=runs.longest_wait(services, call, pool),
            pause=toolcalls.pending,
        )
        answer = await services.repeats.run(claim, once)
    return await _told(services, secret, answer)


async def resume(
    services: Services, continuation: Continuation, resource: Mapping[str, Any], label: str | None
) -> Answer:
    """Bring results; the answer is the end of the program or what it waits for next. Only cancelling
    raises."""
    session = continuation.session
    try:
        answer = await _resumed(services, continuation, resource, label)
    except wire.BadRequest as error:
        answer = Answer(error.status, error.body, "BadRequest", str(error.body.get("message", "")))
    except NoResult as error:
        answer = answers.own_fault(error.name)
    except StoreError:
        answer = answers.own_fault("StoreFailed")
    except Exception as error:
        log.event("continuation_failed", level=log.ERROR, error=error, session=session)
        answer = answers.own_fault("InternalError")
    return await _told(services, continuation.secret, answer)


async def _resumed(
    services: Services, continuation: Continuation, resource: Mapping[str, Any], label: str | None
) -> Answer:
    session, settings = continuation.session, services.settings
    status = resource.get("status") or {}
    if toolcalls.has_ended(status):
        return await runs.ended(services, resource, status)
    fresh = toolcalls.new_results(resource, continuation.results)
    added = {**fresh.inline, **await _store(services, session, fresh.stored)}
    change: Json = {"metadata": {"labels": {names.LABEL_CALL: label}}}
    if added:
        change["spec"] = {"toolResults": added}
    found = await services.sessions.resume(
        session,
        change,
        toolcalls.pending,
        wait_seconds=_longest(services, resource) + settings.wait_slack_seconds,
        keyed=idempotency.has_key(resource),
    )
    if toolcalls.PENDING in found:
        return runs.paused(session, found)
    if toolcalls.is_too_late(found):
        raise too_late()
    return await runs.ended(services, resource, found)


def too_late() -> wire.BadRequest:
    """Nobody has a session to continue."""
    return wire.BadRequest(404, {"error": "Execution not found or expired", "message": "Start it again."})


async def _store(services: Services, session: str, results: Sequence[Given]) -> Json:
    """Put long results into the store; what the session says of them."""

    async def put(entry: Given) -> tuple[str, Json]:
        reference = await services.store.put_value(
            session, result_object(entry.call), str(entry.value).encode()
        )
        return entry.call, {"valueRef": reference}

    return dict(await asyncio.gather(*map(put, results)))


async def _told(services: Services, secret: str, answer: Answer) -> Answer:
    """The answer in the words of this endpoint."""
    calls = answer.body.get(toolcalls.PENDING)
    if calls is None:
        return replace(toolcalls.final(answer), headers=answer.headers)
    session = answer.body[runs.SESSION]
    try:
        inputs = await asyncio.gather(*(_input(services, session, id, call) for id, call in calls.items()))
    except StoreError:
        return toolcalls.final(answers.own_fault("StoreFailed"))
    named = {id: (call["name"], given) for (id, call), given in zip(calls.items(), inputs, strict=True)}
    return replace(toolcalls.asking(session, secret, named), headers=answer.headers)


async def _input(services: Services, session: str, id: str, call: Mapping[str, Any]) -> Any:
    if "inputRef" not in call:
        return json.loads(call.get("input") or "{}")
    reference = call["inputRef"]
    return json.loads(await services.store.get_value(session, input_object(id), reference))


def _longest(services: Services, resource: Mapping[str, Any]) -> int:
    """Seconds that the program may run, by its pool's rules."""
    request = resource["spec"]["request"]
    pool = services.pools.named((request.get("poolRef") or {}).get("name", ""))
    asked = request.get("timeoutSeconds")
    return pool.time_limit(asked) if pool is not None else int(asked or 300)


def _labels(label: str | None) -> dict[str, str]:
    return {names.LABEL_CALL: label} if label else {}


async def cancel(services: Services, label: str) -> bool | None:
    """End the program of a call, whichever replica it waits in. True if it was asked to end, False if it has
    ended, None if there is none. Raises NoResult."""
    task = services.calls.get(label)
    if task is not None:
        task.cancel()
        return True
    try:
        page = await services.cluster.list_page(names.SESSION_PLURAL, selector=f"{names.LABEL_CALL}={label}")
        going_on = [one for one in page["items"] if not toolcalls.has_ended(one.get("status") or {})]
        for resource in going_on:
            await services.cluster.cancel_session(resource["metadata"]["name"])
    except ClusterError as error:
        if error.status != _NOT_FOUND:
            raise NoResult("NotCancelled") from None
        return False  # it has been deleted in the meantime
    return bool(going_on) if page["items"] else None

"""One run of /exec, from the understood request to the answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kubecoderun_api import answers, echoes, idempotency, log, references, results, wire, workspaces
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.inputs import MissingInputs
from kubecoderun_api.pools import Pool
from kubecoderun_api.references import Input, Reference
from kubecoderun_api.services import Services
from kubecoderun_api.transfer import StoreError
from kubecoderun_api.waiters import NoResult
from kubecoderun_api.workspaces import Place
from kubecoderun_crds import names
from kubecoderun_crds.reasons import Reason

Json = dict[str, Any]
SESSION: Final = "session"
"""Where `paused` puts the name: in a workspace the run may have become another session than it was to be."""


@dataclass(frozen=True)
class Pausing:
    """How a program that waits for its client is served."""

    pause: Callable[[Mapping[str, Any]], Json | None]
    """What a session waits for, if it waits."""
    metadata: Json
    """Labels and annotations of the session."""
    longest: timedelta
    """How long it may wait altogether."""


async def run(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
    pausing: Pausing | None = None,
    fingerprint: str = "",
) -> Answer:
    """Run a program in a new session of that name, to its end or the first pause. Every failure is an
    answer; only cancelling raises. `fingerprint` is that of a request with an idempotency key."""
    metrics = services.metrics
    metrics.open_runs.inc()
    try:
        answer = await _told(
            session,
            _answer_somewhere(services, principal, session, call, files, pool, pausing, fingerprint),
        )
    except Exception as error:
        log.event("run_failed", level=log.ERROR, error=error, session=session)
        answer = answers.own_fault("InternalError")
    finally:
        metrics.open_runs.dec()
    metrics.runs.labels(call.language, answer.reason).inc()
    return answer


async def submit(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
) -> Answer:
    """Hand a program in as a new session of that name, which nobody waits for. Every failure is an answer."""
    answer = await _told(session, _handed_in(services, principal, session, call, files, pool))
    services.metrics.runs.labels(call.language, answer.reason).inc()
    return answer


async def _handed_in(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
) -> Answer:
    inputs = await _inputs(services, principal, files)
    place = place_of(services, principal, call, pool)
    if place is not None:
        await services.workspaces.ensure(place, principal)
    request = await _request(services, session, call, inputs, pool, place)
    lifetime = timedelta(seconds=longest_wait(services, call, pool) + pool.ttl_seconds)
    await services.sessions.hold(
        session, request, principal, lifetime=lifetime, runs=True, metadata=_metadata(inputs)
    )
    return answers.accepted(session)


async def _told(session: str, work: Awaitable[Answer]) -> Answer:
    """What `work` answers, or the answer that its failure means."""
    try:
        return await work
    except MissingInputs as error:
        return answers.not_run(session, references.complaint(error.missing))
    except NoResult as error:
        return answers.own_fault(error.name)
    except StoreError:
        return answers.own_fault("UploadFailed")
    except wire.BadRequest as error:
        return answers.refused(error)


async def _answer_somewhere(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
    pausing: Pausing | None,
    fingerprint: str,
) -> Answer:
    """In a pod of its own; or in the workspace of the hint, in a new one if that ends before its turn."""
    place = place_of(services, principal, call, pool)
    if place is None:
        return await _answer(services, principal, session, call, files, pool, pausing, fingerprint)
    for _ in range(workspaces.ATTEMPTS):
        await services.workspaces.ensure(place, principal)
        answer = await _answer(services, principal, session, call, files, pool, pausing, fingerprint, place)
        if answer.reason not in workspaces.GONE:
            break
        session = await _another(services, principal, session, fingerprint)
    return answer


async def _another(services: Services, principal: Principal, session: str, fingerprint: str) -> str:
    """The name for another attempt. One that follows from an idempotency key is free when its session is
    gone, which has run nothing."""
    if not fingerprint:
        return names.session_name()
    found = await services.sessions.read(session, principal)
    if found is not None and idempotency.never_ran(found):
        await services.sessions.forget(found)
    return session


async def _answer(
    services: Services,
    principal: Principal,
    session: str,
    call: wire.ExecRequest,
    files: Sequence[Reference],
    pool: Pool,
    pausing: Pausing | None,
    fingerprint: str,
    place: Place | None = None,
) -> Answer:
    inputs = await _inputs(services, principal, files)
    longest = longest_wait(services, call, pool)
    request = await _request(services, session, call, inputs, pool, place)
    metadata = _metadata(inputs, pausing, fingerprint)
    status = await services.sessions.execute(
        session,
        request,
        principal,
        lifetime=timedelta(seconds=longest + pool.ttl_seconds)
        + (pausing.longest if pausing else timedelta()),
        wait_seconds=longest,
        pause=pausing.pause if pausing else None,
        metadata=metadata,
        keyed=bool(fingerprint),
    )
    if pausing is not None and "phase" not in status:
        return paused(session, status)
    made = {"metadata": {**metadata, "name": session}, "spec": {"request": request}}
    return await ended(services, made, status)


def _metadata(inputs: Sequence[Input], pausing: Pausing | None = None, fingerprint: str = "") -> Json:
    """Labels and annotations of the session."""
    echo = echoes.note(inputs)
    made: Json = {"labels": {}, "annotations": {} if echo is None else {names.ANNOTATION_ECHO: echo}}
    if pausing is not None:
        for kind, values in pausing.metadata.items():
            made[kind] |= values
    if fingerprint:
        made["annotations"][names.ANNOTATION_FINGERPRINT] = fingerprint
    return made


def place_of(services: Services, principal: Principal, call: wire.ExecRequest, pool: Pool) -> Place | None:
    """The workspace in which a call runs; None if it has a pod of its own."""
    return None if call.hint is None else services.workspaces.place(pool.name, call.hint, principal)


def longest_wait(services: Services, call: wire.ExecRequest, pool: Pool) -> float:
    """Seconds after which an answer is not waited for any more."""
    wait = pool.longest_wait if call.hint is None else pool.longest_turn
    return wait(call.timeout_seconds) + services.settings.wait_slack_seconds


def paused(session: str, found: Json) -> Answer:
    """The answer for a session that waits, as `Pausing.pause` tells it, and its name; for whoever can put it
    into words."""
    return Answer(200, {**found, SESSION: session}, Reason.WAITING_FOR_TOOLS)


async def ended(services: Services, session: Mapping[str, Any], status: Json) -> Answer:
    """The answer for a session that has ended with that status."""
    seconds = services.settings.retry_after_seconds
    answer, _ = await results.answer_of(services.store, session, status, retry_after_seconds=seconds)
    return answer


async def _inputs(services: Services, principal: Principal, files: Sequence[Reference]) -> list[Input]:
    try:
        return await services.inputs.resolve(files, principal)
    except StoreError:
        raise NoResult("StoreFailed") from None


async def _request(
    services: Services,
    session: str,
    call: wire.ExecRequest,
    inputs: Sequence[Input],
    pool: Pool,
    place: Place | None,
) -> Json:
    """The session's spec.request; programs that cannot stand in it are put into the store first."""
    request: Json = {"poolRef": {"name": pool.name}, "language": call.language}
    if place is not None:
        request["workspaceRef"] = {"name": place.name}
    if call.inline is not None:
        request["code"] = call.inline
    else:
        # In a workspace it may be needed again, for another one.
        code = call.take_code() if place is None else call.code
        request["codeRef"] = await services.store.put_code(session, code)
    if inputs:
        request["inputs"] = [one.as_request() for one in inputs]
    if call.args:
        request["args"] = list(call.args)
    if call.tools:
        request["tools"] = list(call.tools)
    if call.timeout_seconds is not None:
        request["timeoutSeconds"] = pool.time_limit(call.timeout_seconds)
    return request

"""Gives a reserved pod to a session: prepare in its sidecar and the session's status that names it, side by
side.

Either may fail alone. Nothing is started before both are acknowledged, so a pod that is given up here has
run nothing.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.reasons import Reason
from kubecoderun_operator import grants, pods
from kubecoderun_operator.cluster import ApiError
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Order
from kubecoderun_operator.outcomes import Outcome, timestamp
from kubecoderun_operator.sidecars import SidecarRefusedError
from kubecoderun_operator.tools import Tools
from kubecoderun_operator.vigil import SidecarUnreachableError
from kubecoderun_sidecar.protocol import PrepareRequest

_STORE_ATTEMPTS: Final = 3
_STORE_PAUSE: Final = 0.5
_STORE_PATIENCE: Final = 1.5
"""Seconds. A refusal that took longer came after the sidecar's own repetitions, and somebody waits."""


def longest_fetch_seconds(fetch_seconds: float) -> float:
    """How long the delivery of files may take in all, if one attempt may take so long."""
    return (fetch_seconds + _STORE_PAUSE) * _STORE_ATTEMPTS


class EndedError(Exception):
    """The session has its answer, without or before a run."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Bond(StrEnum):
    """How the attempt to give a pod to a session came out."""

    BOUND = "bound"
    TAKEN = "taken"
    """The session has another pod: an earlier operator was faster. This one is to be removed."""
    UNUSABLE = "unusable"
    """The sidecar cannot or will not: the pod is to be removed."""


@dataclass(slots=True)
class Binding:
    """The result: how it came out, why, and when each half was acknowledged."""

    bond: Bond
    cause: str = ""
    owner: str = ""
    """The uid of the session that has the pod, if it is another one."""
    timings: dict[str, str] = field(default_factory=dict)


class Binder:
    """Binds pods to sessions."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def bind(self, pod: Member, order: Order, note: Callable[[], Coroutine[Any, Any, None]]) -> Binding:
        """Both halves at once; note writes the status that names the pod.

        Raises EndedError if the request itself is at fault, PodTakenError and SessionGoneError from note.
        """
        noted, prepared = await _side_by_side(note(), self.prepare(pod, order))
        prepared.timings["patched"] = timestamp(noted)
        return prepared

    async def prepare(self, pod: Member, order: Order) -> Binding:
        """The sidecar's half: code and input are delivered. Raises EndedError if the request is at fault."""
        seconds = self._tools.settings.sidecar_fetch_seconds * _STORE_ATTEMPTS
        request = self._with_tool_waits(grants.delivery(self._tools.storage, order, seconds))
        began = time.monotonic()
        for attempt in range(1, _STORE_ATTEMPTS + 1):
            try:
                await self._tools.sidecars.prepare(pod, request, order.owner)
            except SidecarUnreachableError:
                if not order.fetches or not await self._fetches_still(pod, order):
                    return Binding(Bond.UNUSABLE, "unreachable")
                if attempt == _STORE_ATTEMPTS:
                    late = f"what the run needs was not fetched from the object store within {seconds:.0f} s"
                    raise EndedError(Outcome(Reason.STORE_UNAVAILABLE, late)) from None
            except SidecarRefusedError as error:
                last = attempt == _STORE_ATTEMPTS or time.monotonic() - began > _STORE_PATIENCE
                if error.error != "store_unavailable" or last:
                    return _refused(error, order)
                await asyncio.sleep(_STORE_PAUSE)
            else:
                return Binding(Bond.BOUND, timings={"prepared": timestamp(time.time())})
        raise AssertionError("the last attempt returns")

    def _with_tool_waits(self, request: PrepareRequest) -> PrepareRequest:
        if not request.tools:
            return request
        settings = self._tools.settings
        limits = replace(
            request.limits,
            tool_wait_seconds=settings.tool_wait_seconds,
            all_tool_waits_seconds=settings.all_tool_waits_seconds,
        )
        return replace(request, limits=limits)

    async def _fetches_still(self, pod: Member, order: Order) -> bool:
        """Whether the sidecar is at work for this session although it did not answer in time. Another pod
        would take as long; the next request joins the delivery."""
        try:
            owner = order.owner or order.session.uid
            state = await self._tools.sidecars.state(pod, owner)
        except (SidecarUnreachableError, SidecarRefusedError):
            return False
        return state.owner is not None and state.owner.uid == owner

    async def reserve(
        self,
        pod: Member,
        workspace_uid: str,
        note: Callable[[], Coroutine[Any, Any, None]],
        patch: pods.JsonPatch,
    ) -> Binding:
        """Give a pod to a workspace: the sidecar's half and the status that names the pod, side by side; then
        the pod's labels and deadline (`patch`), which are for its whole life.

        Raises EndedError if no pod would do, PodTakenError and SessionGoneError from note.
        """
        _, reserved = await _side_by_side(note(), self._reserve(pod, workspace_uid))
        if reserved.bond is Bond.BOUND and not await self.label(pod, workspace_uid, patch):
            return Binding(Bond.UNUSABLE, "deleted")
        reserved.timings["patched"] = timestamp(time.time())
        return reserved

    async def _reserve(self, pod: Member, workspace_uid: str) -> Binding:
        try:
            await self._tools.sidecars.reserve(pod, workspace_uid)
        except SidecarUnreachableError:
            return Binding(Bond.UNUSABLE, "unreachable")
        except SidecarRefusedError as error:
            if error.error == "workspace_unavailable":
                raise EndedError(Outcome(Reason.INVALID_REQUEST, error.refusal.message)) from None
            # A sidecar that does not know of workspaces has no such path.
            cause = "outdated" if error.status == HTTPStatus.NOT_FOUND else error.error
            return Binding(Bond.UNUSABLE, cause, _winner(error))
        return Binding(Bond.BOUND, timings={"prepared": timestamp(time.time())})

    async def label(self, pod: Member, session_uid: str, patch: pods.JsonPatch) -> bool:
        """Whether the pod carries the label now and is not being deleted."""
        try:
            found = await self._tools.cluster.patch_pod(pod.namespace, pod.name, patch)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                raise
            # An attempt whose answer was lost may have set the label; then its repetition fails the test.
            return await self._carries(pod, session_uid)
        return not found["metadata"].get("deletionTimestamp")

    async def _carries(self, pod: Member, session_uid: str) -> bool:
        try:
            found = await self._tools.cluster.pod(pod.namespace, pod.name)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        meta: dict[str, Any] = found["metadata"]
        labels = meta.get("labels") or {}
        ours = meta["uid"] == pod.uid and labels.get(names.LABEL_SESSION_UID) == session_uid
        return ours and not meta.get("deletionTimestamp")


async def _side_by_side(
    note: Coroutine[Any, Any, None], sidecar: Coroutine[Any, Any, Binding]
) -> tuple[float, Binding]:
    """When the status had been written, and how the sidecar's half came out. If one fails, both end."""
    noting, binding = asyncio.create_task(note), asyncio.create_task(sidecar)
    try:
        await noting
        return time.time(), await binding
    except BaseException:
        noting.cancel()
        binding.cancel()
        raise


def _refused(error: SidecarRefusedError, order: Order) -> Binding:
    """What a refused prepare means. Raises EndedError where no other pod would answer differently."""
    said = error.refusal.message
    match error.error:
        case "input_unavailable":
            missing = "the object store does not have its bytes"
            raise EndedError(Outcome(Reason.INPUT_UNAVAILABLE, _about_input(error, order, missing)))
        case "inputs_too_large":
            raise EndedError(Outcome(Reason.INVALID_REQUEST, said or "the inputs do not fit in the pod"))
        case "code_unavailable":
            raise EndedError(Outcome(Reason.CODE_UNAVAILABLE, said))
        case "store_unavailable":
            raise EndedError(Outcome(Reason.STORE_UNAVAILABLE, _about_input(error, order, "")))
        case "language_unavailable":
            raise EndedError(Outcome(Reason.LANGUAGE_NOT_IN_POOL, said))
        case "cancelled":
            raise EndedError(Outcome(Reason.CANCELLED))
        case "bad_request" | "too_large":
            raise EndedError(Outcome(Reason.INVALID_REQUEST, said))
    if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        # A newer sidecar's word for a request that it cannot carry out.
        raise EndedError(Outcome(Reason.INVALID_REQUEST, said or error.error))
    return Binding(Bond.UNUSABLE, error.error, _winner(error))


def _winner(error: SidecarRefusedError) -> str:
    """The uid of the session that has the pod, if a refusal tells."""
    owner = error.refusal.owner
    return owner.uid if owner is not None and owner.kind == "session" else ""


def _about_input(error: SidecarRefusedError, order: Order, otherwise: str) -> str:
    """The sidecar's words, with the path of the input that it names by its place."""
    place, said = error.refusal.input, error.refusal.message or otherwise
    known = place is not None and place < len(order.inputs)
    return f"input {order.inputs[place].path}: {said}" if known and place is not None else said

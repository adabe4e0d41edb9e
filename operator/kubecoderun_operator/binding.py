"""Gives a reserved pod to a session: prepare in its sidecar and the patch of its labels, side by side.

Either may fail alone. Nothing is started before both are acknowledged, so a pod that is given up here has
run nothing.
"""

import asyncio
import time
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.reasons import Reason
from kubecoderun_operator import pods
from kubecoderun_operator.cluster import ApiError
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Order
from kubecoderun_operator.outcomes import Outcome, timestamp
from kubecoderun_operator.sidecars import SidecarRefusedError, SidecarUnreachableError
from kubecoderun_operator.tools import Tools

_STORE_ATTEMPTS: Final = 3
_STORE_PAUSE: Final = 0.5


class EndedError(Exception):
    """The session has its answer, without or before a run."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Bond(StrEnum):
    """How the attempt to give a pod to a session came out."""

    BOUND = "bound"
    NOT_OURS = "not-ours"
    """The label could not be set: somebody else has the pod, or it is gone. It is left alone."""
    UNUSABLE = "unusable"
    """The sidecar cannot or will not: the pod is to be removed."""


@dataclass(slots=True)
class Binding:
    """The result: how it came out, why, and when each half was acknowledged."""

    bond: Bond
    cause: str = ""
    timings: dict[str, str] = field(default_factory=dict)


class Binder:
    """Binds pods to sessions."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def bind(self, pod: Member, order: Order) -> Binding:
        """Both halves at once. Raises EndedError if the request itself is at fault."""
        prepare = asyncio.create_task(self.prepare(pod, order))
        try:
            ours, patched = await self._label(pod, order), time.time()
        except BaseException:
            prepare.cancel()
            raise
        prepared = await prepare
        if not ours:
            return Binding(Bond.NOT_OURS, "patch")
        prepared.timings["patched"] = timestamp(patched)
        return prepared

    async def prepare(self, pod: Member, order: Order) -> Binding:
        """The sidecar's half: code and input are delivered. Raises EndedError if the request is at fault."""
        storage = self._tools.storage
        url = ""
        if order.stored:
            if storage is None:
                raise EndedError(Outcome(Reason.STORE_UNAVAILABLE, "no object store is configured"))
            seconds = self._tools.settings.sidecar_fetch_seconds * (_STORE_ATTEMPTS + 1)
            url = storage.code_url(order.session.namespace, order.session.name, seconds)
        request = order.prepare(url)
        for attempt in range(1, _STORE_ATTEMPTS + 1):
            try:
                await self._tools.sidecars.prepare(pod, request)
            except SidecarUnreachableError:
                return Binding(Bond.UNUSABLE, "unreachable")
            except SidecarRefusedError as error:
                if error.error == "store_unavailable" and attempt < _STORE_ATTEMPTS:
                    await asyncio.sleep(_STORE_PAUSE)
                    continue
                return _refused(error)
            return Binding(Bond.BOUND, timings={"prepared": timestamp(time.time())})
        raise AssertionError("the last attempt returns")

    async def _label(self, pod: Member, order: Order) -> bool:
        """The API server's half. Whether the pod carries the session's label and is not being deleted."""
        settings = self._tools.settings
        deadline = order.timeout_seconds + settings.pod_deadline_margin_seconds
        if order.stored:
            deadline += int(settings.sidecar_fetch_seconds) * _STORE_ATTEMPTS
        session = order.session
        patch = pods.assignment(pod, session.name, session.uid, deadline, time.time())
        try:
            found = await self._tools.cluster.patch_pod(pod.namespace, pod.name, patch)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            if error.status not in (HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY):
                raise
            # An attempt whose answer was lost may have set the label; then its repetition fails the test.
            return await self._carries(pod, session.uid)
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


def _refused(error: SidecarRefusedError) -> Binding:
    """What a refused prepare means. Raises EndedError where no other pod would answer differently."""
    said = error.refusal.message
    match error.error:
        case "code_unavailable":
            raise EndedError(Outcome(Reason.CODE_UNAVAILABLE, said))
        case "store_unavailable":
            raise EndedError(Outcome(Reason.STORE_UNAVAILABLE, said))
        case "language_unavailable":
            raise EndedError(Outcome(Reason.LANGUAGE_NOT_IN_POOL, said))
        case "cancelled":
            raise EndedError(Outcome(Reason.CANCELLED))
        case "bad_request" | "too_large":
            raise EndedError(Outcome(Reason.INVALID_REQUEST, said))
    return Binding(Bond.UNUSABLE, error.error)

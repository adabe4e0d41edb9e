"""Deletes pods. A warm pod is taken out of service by its sidecar first, so that nobody can be using it."""

import asyncio
import logging
from http import HTTPStatus
from typing import Final

from kubecoderun_crds import names
from kubecoderun_operator import metrics
from kubecoderun_operator.background import Background
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, Cluster
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.sidecars import SidecarRefusedError, Sidecars
from kubecoderun_operator.vigil import SidecarUnreachableError

logger = logging.getLogger(__name__)

_PAUSE: Final = 1.0
_TRIES: Final = 5
"""A node may write the pod's status just between the look at its label and the deletion."""


class Remover:
    """Carries deletions out in the background. A deletion that keeps failing is left to the sweeper."""

    def __init__(
        self, cluster: Cluster, sidecars: Sidecars, background: Background, grace_seconds: int
    ) -> None:
        self._cluster = cluster
        self._sidecars = sidecars
        self._background = background
        self._grace = grace_seconds
        self._under_way: set[str] = set()

    def remove(self, pod: Member, cause: str, *, retire: bool = False) -> None:
        """Delete a pod. retire: only after its sidecar has confirmed that it has no session; without that,
        only if its label says so at the moment of the deletion."""
        if pod.uid in self._under_way:
            return
        self._under_way.add(pod.uid)
        self._background.spawn(self._remove(pod, cause, retire), f"remove {pod.name}")

    def busy(self, pod: Member) -> bool:
        """Whether the pod is being deleted right now."""
        return pod.uid in self._under_way

    async def _remove(self, pod: Member, cause: str, retire: bool) -> None:
        try:
            if retire and pod.usable and not await self._retired(pod):
                if not await self._deleted_if_warm(pod):
                    return
            else:
                await self._delete(pod)
            metrics.POD_DELETES.labels(pod.namespace, pod.pool, cause).inc()
        finally:
            self._under_way.discard(pod.uid)

    async def _delete(self, pod: Member) -> None:
        while True:
            try:
                await self._cluster.delete_pod(pod.namespace, pod.name, pod.uid, self._grace)
                return
            except ApiUnreachableError as error:
                logger.warning("a pod is not deleted yet", extra=about(pod=pod.name, cause=str(error)))
                await asyncio.sleep(_PAUSE)
            except ApiError as error:
                logger.error("a pod cannot be deleted", extra=about(pod=pod.name, cause=str(error)))
                return

    async def _retired(self, pod: Member) -> bool:
        """Whether the sidecar has confirmed that nobody has the pod, or ever will. Silence says nothing."""
        try:
            await self._sidecars.retire(pod)
        except (SidecarUnreachableError, SidecarRefusedError):
            return False
        return True

    async def _deleted_if_warm(self, pod: Member) -> bool:
        """Delete the pod, unless its label says that a session has it; that would be another operator's.

        A pod that is bound although its label says warm was prepared for a session by an operator that ended
        before it could label it. Nothing was started in it, and nothing will be: the retire request has shut
        out every earlier leader.
        """
        for _ in range(_TRIES):
            version = await self._version_if_warm(pod)
            if version is None:
                return False
            try:
                await self._cluster.delete_pod(pod.namespace, pod.name, pod.uid, self._grace, version)
            except ApiError as error:
                if error.status != HTTPStatus.CONFLICT:
                    logger.error("a pod cannot be deleted", extra=about(pod=pod.name, cause=str(error)))
                    return False
            except ApiUnreachableError:
                await asyncio.sleep(_PAUSE)
            else:
                return True
        return False

    async def _version_if_warm(self, pod: Member) -> str | None:
        """The pod's resourceVersion, if its label still says that it is warm."""
        try:
            found = await self._cluster.pod(pod.namespace, pod.name)
        except (ApiError, ApiUnreachableError):
            return None
        meta = found["metadata"]
        warm = (meta.get("labels") or {}).get(names.LABEL_STATE) == names.PodState.WARM
        return str(meta["resourceVersion"]) if warm and meta["uid"] == pod.uid else None

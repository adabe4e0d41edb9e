"""The pod of a session while it runs: what is seen of it, and what that says about how the run ended."""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Final

from kubecoderun_crds.reasons import Reason
from kubecoderun_operator import outcomes, pods
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, Cluster
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member, member
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outcomes import Outcome

logger = logging.getLogger(__name__)

_LAST_WORDS: Final = 0.5
"""Seconds for a result that may be on its way when the pod is seen to end."""


class HeldPod:
    """One pod, in the hands of one session."""

    def __init__(self, pod: Member, cluster: Cluster) -> None:
        self.pod = pod
        self.gone = False
        self._cluster = cluster
        self._news = asyncio.Event()
        self._scope: asyncio.Timeout | None = None

    def changed(self, pod: Member, gone: bool) -> None:
        """An event of the pod. One that ends it leaves a stream a moment for its last words."""
        self.gone = self.gone or gone
        if not gone:
            self.pod = pod
        self._news.set()
        if self._over and self._scope is not None and self._scope.when() is None:
            self._scope.reschedule(asyncio.get_running_loop().time() + _LAST_WORDS)

    def while_it_lives(self) -> asyncio.Timeout:
        """A scope that ends with TimeoutError soon after the pod has been seen to end."""
        self._scope = asyncio.timeout(_LAST_WORDS if self._over else None)
        return self._scope

    def left_alone(self) -> None:
        """The scope was left."""
        self._scope = None

    async def mark(self, session: Session, deadline: float) -> None:
        """Write down in the pod whose it is, and let the node end it so many seconds from now."""
        pod, now = self.pod, time.time()
        if pod.session_uid and pod.limited:
            return
        if pod.session_uid:
            patch = pods.backstop(pod, deadline, now)
        else:
            patch = pods.assignment(pod, session.name, session.uid, deadline, now)
        try:
            await self._cluster.patch_pod(pod.namespace, pod.name, patch)
        except (ApiError, ApiUnreachableError) as error:
            # The pod may be gone by now. If it is not, the run's own time limit still holds.
            where = about(namespace=pod.namespace, session=session.name, pod=pod.name, cause=str(error))
            logger.info("a pod has no deadline", extra=where)

    async def explain(self, outcome: Outcome, patience: float) -> Outcome:
        """The sidecar's outcome. Where the runtime container died, the API server may know why: its memory,
        or the end of the whole pod."""
        if outcome.reason is not Reason.RUNTIME_LOST:
            return outcome
        try:
            async with asyncio.timeout(patience):
                while not (self.gone or self.pod.deleting or self.pod.runtime_ending):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            await self._look()
        return outcomes.with_cause(outcome, None if self.gone else self.pod)

    async def lost(self, node_silent: bool = False) -> Outcome:
        """The sidecar cannot be reached: what does the API server know of the pod? node_silent: its node
        takes no connections either."""
        await self._look()
        return outcomes.lost(None if self.gone else self.pod, node_silent)

    @property
    def _over(self) -> bool:
        return self.gone or self.pod.sidecar_ending is not None

    async def _look(self) -> None:
        try:
            found = member(await self._cluster.pod(self.pod.namespace, self.pod.name))
        except ApiUnreachableError:
            return
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            found = None
        if found is None or found.uid != self.pod.uid:
            self.gone = True
        else:
            self.pod = found

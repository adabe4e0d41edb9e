"""Which operator process leads: an elector on a coordination.k8s.io Lease.

Times work as in client-go: a leader renews, stops acting `renew_deadline` after its last renewal, and
others take over `duration` after they last saw the Lease change, by their own clock. A lapse that was
noticed is final, even if a late renewal succeeds: what was to write in between has ended. The holder is named
by its pod, so a container that is restarted goes on at once. `leaseTransitions` is the *epoch*: it rises
with each change of leader, sidecars refuse requests with a lower one, and session statuses carry it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from kubecoderun_operator import metrics
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, NotLeadingError
from kubecoderun_operator.log import about

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]


class Leases(Protocol):
    """The requests of the elector; `Cluster` has them."""

    async def lease(self, namespace: str, name: str) -> JsonObject: ...
    async def create_lease(self, body: JsonObject) -> JsonObject: ...
    async def replace_lease(self, body: JsonObject) -> JsonObject: ...


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Where the Lease is, and seconds: its duration, when a leader gives up, pauses between renewals and
    retries."""

    namespace: str
    name: str
    duration: float
    renew_deadline: float
    renew: float
    retry: float


class Elector:
    """One candidate. `acquire`, then `hold` until it raises, or `release`."""

    def __init__(self, terms: LeaseTerms, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._terms = terms
        self._identity = identity
        self._clock = clock
        self._leases: Leases | None = None
        self._held: JsonObject | None = None
        self._renewed = float("-inf")
        self._lapsed = False
        self._epoch = 0
        self._seen: tuple[str, float] = ("", 0.0)
        self._unanswered: tuple[str, float] = ("", 0.0)
        """renewTime of the last write that failed, and when it was begun: it may have landed."""
        self._writing = asyncio.Lock()

    def use(self, leases: Leases) -> None:
        """Give the elector its client, which itself asks the elector before it writes anything else."""
        self._leases = leases

    @property
    def epoch(self) -> int:
        """The transitions of the Lease when it was last written by us."""
        return self._epoch

    @property
    def leading(self) -> bool:
        """Whether this process may write now."""
        in_time = self._clock() < self._renewed + self._terms.renew_deadline
        return self._held is not None and in_time and not self._lapsed

    def check(self) -> None:
        """Raise NotLeadingError unless this process may write now. Once it has, `hold` ends, whatever becomes
        of the Lease: tasks that this error has ended would be missing."""
        if not self.leading:
            self._lapsed = True
            raise NotLeadingError("the lease is not held")

    async def acquire(self) -> int:
        """Wait until this process leads; returns the epoch."""
        while True:
            try:
                if await self._try_to_acquire():
                    break
            except (ApiError, ApiUnreachableError) as error:
                logger.warning("cannot read or write the lease", extra=about(cause=str(error)))
            await asyncio.sleep(self._terms.retry)
        self._lapsed = False
        metrics.LEADER.set(1)
        logger.info("leading", extra=about(epoch=self._epoch, identity=self._identity))
        return self._epoch

    async def hold(self) -> None:
        """Renew for ever. Raises NotLeadingError when the Lease is lost."""
        try:
            while True:
                renewed = await self._renew()
                self.check()
                await asyncio.sleep(self._terms.renew if renewed else self._terms.retry)
        finally:
            metrics.LEADER.set(0)

    async def raise_epoch(self, seen: int) -> None:
        """Make the epoch higher than one that a sidecar has seen.

        That happens when somebody deleted the Lease and its count began again. Writing the Lease proves
        that this process still leads. Raises NotLeadingError if it does not.
        """
        async with self._writing:
            if self._epoch > seen:
                return
            self._epoch = seen + 1
            # A second time, because the first answer may be about an earlier write of ours.
            if not await self._write() and not await self._write():
                self._lapsed = True
                raise NotLeadingError("the lease could not be written")
        logger.warning("the epoch was raised above one that a pod has seen", extra=about(epoch=self._epoch))

    async def release(self) -> None:
        """Give the Lease up so that another process leads at once."""
        async with self._writing:
            held, self._held = self._held, None
            metrics.LEADER.set(0)
            if held is None:
                return
            try:
                if not await self._give_up(held):
                    # A renewal that was cut short may have landed: then ours is not the last version.
                    found = await self._client.lease(self._terms.namespace, self._terms.name)
                    if (found.get("spec") or {}).get("holderIdentity") == self._identity:
                        await self._give_up(found)
            except (ApiError, ApiUnreachableError) as error:
                logger.warning("the lease was not released; it will expire", extra=about(cause=str(error)))

    async def _give_up(self, held: JsonObject) -> bool:
        """False if the Lease is not what it was."""
        spec = {**held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        try:
            await self._client.replace_lease({**held, "spec": spec})
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _client(self) -> Leases:
        if self._leases is None:
            raise RuntimeError("use() comes before everything else")
        return self._leases

    async def _try_to_acquire(self) -> bool:
        began = self._clock()
        try:
            found = await self._client.lease(self._terms.namespace, self._terms.name)
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._create(began)
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        version = found["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, began)
        duration = spec.get("leaseDurationSeconds") or self._terms.duration
        if holder not in ("", self._identity) and began < self._seen[1] + duration:
            return False
        transitions = int(spec.get("leaseTransitions") or 0)
        self._epoch = transitions if holder == self._identity else transitions + 1
        self._held = {**found, "spec": {**spec, "acquireTime": _now()}}
        written = False
        try:
            written = await self._write()
        finally:
            if not written:
                self._held = None
        return written

    async def _create(self, began: float) -> bool:
        self._epoch = 1
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": self._terms.namespace, "name": self._terms.name},
            "spec": {**self._spec(), "acquireTime": _now()},
        }
        try:
            self._held = await self._client.create_lease(body)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self._renewed = began
        return True

    async def _renew(self) -> bool:
        async with self._writing:
            if self._held is None:
                raise NotLeadingError("the lease was given up")
            try:
                return await self._write()
            except (ApiError, ApiUnreachableError) as error:
                logger.warning("the lease was not renewed", extra=about(cause=str(error)))
                return False

    async def _write(self) -> bool:
        """Write the held Lease; False if it was not what it was. If that was an own write whose answer was
        lost, it counts from when it was begun, and the next write comes after the shorter pause."""
        if self._held is None:
            return False
        began = self._clock()
        spec = {**self._held["spec"], **self._spec()}
        try:
            self._held = await self._client.replace_lease({**self._held, "spec": spec})
        except ApiUnreachableError:
            self._unanswered = (spec["renewTime"], began)
            raise
        except ApiError as error:
            if error.status != 409:
                self._unanswered = (spec["renewTime"], began)
                raise
            await self._look_again()
            return False
        self._renewed = began
        return True

    async def _look_again(self) -> None:
        """The Lease is not what it was: somebody else has it now, or an own write has landed after all."""
        found = await self._client.lease(self._terms.namespace, self._terms.name)
        spec = found.get("spec") or {}
        if spec.get("holderIdentity") != self._identity:
            self._renewed = float("-inf")
            return
        self._held = found
        renewed, began = self._unanswered
        if spec.get("renewTime") == renewed:
            self._renewed = max(self._renewed, began)

    def _spec(self) -> JsonObject:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "leaseTransitions": self._epoch,
            "renewTime": _now(),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

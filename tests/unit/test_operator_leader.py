"""Election on a Lease, with a clock and an API server made of a few lines."""

import asyncio
import copy
from dataclasses import replace
from typing import Any

import pytest

from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, NotLeadingError
from kubecoderun_operator.leader import Elector, LeaseTerms

TERMS = LeaseTerms("ns", "operator", duration=8, renew_deadline=5, renew=0.001, retry=0.001)


class Leases:
    """One Lease with optimistic locking."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.lose_answers = 0

    async def lease(self, namespace: str, name: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.down:
            raise ApiUnreachableError("down")
        if self.stored is None:
            raise ApiError(404, "NotFound", "none")
        return copy.deepcopy(self.stored)

    async def create_lease(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.stored is not None:
            raise ApiError(409, "AlreadyExists", "exists")
        return self.put(body)

    async def replace_lease(self, body: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.down:
            raise ApiUnreachableError("down")
        if (
            self.stored is None
            or body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "Conflict", "changed")
        made = self.put(body)
        if self.lose_answers:
            self.lose_answers -= 1
            raise ApiUnreachableError("answer lost")
        return made

    def put(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.stored = copy.deepcopy(body)
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.stored)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.stored is not None
        spec: dict[str, Any] = self.stored["spec"]
        return spec


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def candidate(leases: Leases, identity: str, clock: Clock) -> Elector:
    made = Elector(TERMS, identity, clock)
    made.use(leases)
    return made


async def acquires(elector: Elector, seconds: float = 0.1) -> bool:
    try:
        await asyncio.wait_for(elector.acquire(), seconds)
    except TimeoutError:
        return False
    return True


async def test_the_first_one_leads_and_nobody_else() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    assert not first.leading
    assert await acquires(first)
    assert first.leading
    assert first.epoch == 1
    assert not await acquires(second)
    assert leases.spec["holderIdentity"] == "a"
    assert leases.spec["leaseDurationSeconds"] == 8


async def test_a_silent_leader_is_followed_after_the_duration_seen_by_the_others_clock() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    assert not await acquires(second)
    clock.now += 7.9
    assert not await acquires(second)
    clock.now += 0.2
    assert await acquires(second)
    assert second.epoch == 2
    assert not first.leading


async def test_a_leader_that_cannot_renew_stops_before_anybody_can_follow() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.down = True
    clock.now += 4.9
    elector.check()
    clock.now += 0.2
    with pytest.raises(NotLeadingError):
        elector.check()
    with pytest.raises(NotLeadingError):
        await asyncio.wait_for(elector.hold(), 1)


async def test_a_lapse_that_was_noticed_is_final() -> None:
    """Whoever noticed has ended: a late renewal must not keep the process going without it."""
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    clock.now += 5.1
    with pytest.raises(NotLeadingError):
        elector.check()
    with pytest.raises(NotLeadingError):
        await asyncio.wait_for(elector.hold(), 1)
    assert not elector.leading
    await elector.release()
    assert await acquires(elector)
    elector.check()


async def test_a_late_renewal_that_nobody_has_missed_is_no_lapse() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    clock.now += 5.1
    holding = asyncio.create_task(elector.hold())
    await asyncio.sleep(0.05)
    assert not holding.done()
    elector.check()
    holding.cancel()


async def test_a_leader_that_was_replaced_notices_at_its_next_renewal() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.put({**leases.stored, "spec": {**leases.spec, "holderIdentity": "b"}})  # type: ignore[dict-item]
    with pytest.raises(NotLeadingError):
        await asyncio.wait_for(elector.hold(), 1)
    assert not elector.leading


async def test_a_restarted_container_goes_on_at_once_with_the_same_epoch() -> None:
    leases, clock = Leases(), Clock()
    await candidate(leases, "a", clock).acquire()
    again = candidate(leases, "a", clock)
    assert await acquires(again)
    assert again.epoch == 1


async def test_a_released_lease_is_taken_at_once() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    await first.release()
    assert not first.leading
    assert await acquires(second)
    assert second.epoch == 2
    await first.release()
    assert leases.spec["holderIdentity"] == "b"


async def test_a_renewal_that_was_cut_short_does_not_keep_the_lease_from_being_released() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    leases.put(leases.stored or {})  # it landed, and nobody was there to read the answer
    await first.release()
    assert await acquires(second)


async def test_nobody_releases_the_lease_of_another() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.put({**leases.stored, "spec": {**leases.spec, "holderIdentity": "b"}})  # type: ignore[dict-item]
    await elector.release()
    assert leases.spec["holderIdentity"] == "b"


async def test_a_lost_answer_is_no_lost_lease() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.lose_answers = 1
    holding = asyncio.create_task(elector.hold())
    await asyncio.sleep(0.05)
    assert not holding.done()
    assert elector.leading
    holding.cancel()


async def test_a_renewal_whose_answer_was_lost_counts_from_when_it_was_begun() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    for _ in range(3):
        # Every second request fails although it was carried out; the lease is never older than three seconds.
        clock.now += 1
        leases.lose_answers = 1
        assert not await elector._renew()
        clock.now += 2
        assert not await elector._renew()
        elector.check()
    clock.now += 2.9
    elector.check()
    clock.now += 0.2
    assert not elector.leading


async def test_a_renewal_that_counts_from_the_past_is_soon_followed_by_another() -> None:
    leases, clock = Leases(), Clock()
    elector = Elector(replace(TERMS, renew=60.0), "a", clock)
    elector.use(leases)
    await elector.acquire()
    leases.lose_answers = 1
    version = leases.version
    holding = asyncio.create_task(elector.hold())
    for _ in range(1000):
        await asyncio.sleep(0.005)
        if leases.version == version + 2:
            break
    assert leases.version == version + 2
    holding.cancel()


async def test_a_write_of_a_lower_epoch_that_landed_late_does_not_raise_the_epoch() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.lose_answers = 1
    assert not await elector._renew()
    await elector.raise_epoch(41)
    assert leases.spec["leaseTransitions"] == 42


async def test_the_epoch_is_raised_above_one_that_a_pod_has_seen() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    await elector.raise_epoch(41)
    assert elector.epoch == 42
    assert leases.spec["leaseTransitions"] == 42
    await elector.raise_epoch(7)
    assert elector.epoch == 42


async def test_only_the_holder_raises_the_epoch() -> None:
    leases, clock = Leases(), Clock()
    elector = candidate(leases, "a", clock)
    await elector.acquire()
    leases.put({**leases.stored, "spec": {**leases.spec, "holderIdentity": "b"}})  # type: ignore[dict-item]
    with pytest.raises(NotLeadingError):
        await elector.raise_epoch(41)
    assert leases.spec["holderIdentity"] == "b"
    assert not elector.leading


async def test_candidates_wait_while_the_api_server_is_down() -> None:
    leases, clock = Leases(), Clock()
    leases.down = True
    elector = candidate(leases, "a", clock)
    waiting = asyncio.create_task(elector.acquire())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    leases.down = False
    assert await asyncio.wait_for(waiting, 1) == 1

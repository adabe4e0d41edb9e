"""Rates and runs at once: never more than allowed, first come first served, nothing lost."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_api.admission import Admission, TooMany
from kubecoderun_api.limits import Bucket, Go, Limits, Stop

RATES = st.floats(1, 6000)
STEPS = st.lists(st.floats(0, 5), min_size=1, max_size=80)


def asked(limits: Limits, steps: Sequence[float]) -> list[tuple[float, Go | Stop]]:
    """When each run was asked for, and the answer."""
    now = 0.0
    bucket = Bucket(limits, now)
    answers = []
    for step in steps:
        now += step
        answers.append((now, bucket.take(now)))
    return answers


@settings(deadline=None)
@given(RATES, st.integers(1, 20), st.floats(0, 1.5), STEPS)
def test_no_more_than_burst_and_rate_begin_in_any_time(
    rate: float, burst: int, longest: float, steps: list[float]
) -> None:
    limits = Limits(per_minute=rate, burst=burst, longest_wait=longest)
    begins = [now + answer.after for now, answer in asked(limits, steps) if isinstance(answer, Go)]
    assert begins == sorted(begins), "who came first is first"
    for number, begin in enumerate(begins):
        for later, end in enumerate(begins[number:], 1):
            assert later <= burst + (end - begin) * rate / 60 + 1e-6


@settings(deadline=None)
@given(RATES, st.integers(1, 20), st.floats(0, 1.5), STEPS)
def test_waits_are_bounded_and_a_refusal_says_when_to_come_again(
    rate: float, burst: int, longest: float, steps: list[float]
) -> None:
    limits = Limits(per_minute=rate, burst=burst, longest_wait=longest)
    for _, answer in asked(limits, steps):
        if isinstance(answer, Go):
            assert 0 <= answer.after <= longest
        else:
            assert longest < answer.retry_after <= longest + 60 / rate + 1e-6


@settings(deadline=None)
@given(RATES, st.integers(1, 20), STEPS)
def test_who_comes_when_told_is_let_in(rate: float, burst: int, steps: list[float]) -> None:
    limits = Limits(per_minute=rate, burst=burst, longest_wait=0.5)
    bucket, now = Bucket(limits, 0.0), 0.0
    for step in steps:
        now += step
        answer = bucket.take(now)
        if isinstance(answer, Stop):
            now += answer.retry_after
            assert isinstance(bucket.take(now), Go)


@given(st.floats(0, 100), st.integers(1, 50), st.integers(0, 50), st.integers(1, 20))
def test_shares_add_up_to_no_less_than_the_whole(
    rate: float, burst: int, at_once: int, processes: int
) -> None:
    whole = Limits(per_minute=rate, burst=burst, at_once=at_once)
    share = whole.share(processes)
    assert share.per_minute * processes == pytest.approx(rate)
    assert burst <= share.burst * processes < burst + processes
    assert at_once <= share.at_once * processes < max(at_once, 1) + processes
    assert (share.at_once == 0) == (at_once == 0), "no limit stays no limit"


def test_without_a_rate_everything_goes() -> None:
    assert {answer for _, answer in asked(Limits(), [0.0] * 100)} == {Go()}


async def test_no_more_at_once_than_allowed_and_in_the_order_they_came() -> None:
    admission = Admission(Limits(at_once=2, longest_wait=30), retry_after_seconds=7)
    inside: list[int] = []
    order: list[int] = []
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        async with admission.run("t"):
            order.append(number)
            inside.append(number)
            most = max(most, len(inside))
            await asyncio.sleep(0.001)
            inside.remove(number)

    await asyncio.gather(*map(one, range(20)))
    assert (most, order) == (2, list(range(20)))
    async with admission.run("t"), admission.run("t"), admission.run("other"):
        pass  # all places are free again


async def test_too_many_at_once_are_refused_after_the_wait_and_only_for_their_tenant() -> None:
    admission = Admission(Limits(at_once=1, longest_wait=0.01), retry_after_seconds=7)
    async with admission.run("t"):
        with pytest.raises(TooMany) as caught:
            async with admission.run("t"):
                raise AssertionError
        assert caught.value.retry_after_seconds == 7
        async with admission.run(None):
            pass
    async with admission.run("t"):
        pass


async def test_who_leaves_the_queue_takes_no_place() -> None:
    admission = Admission(Limits(at_once=1, longest_wait=30), retry_after_seconds=7)

    async def one() -> None:
        async with admission.run("t"):
            pass

    async with admission.run("t"):
        waiting = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    waiting[1].cancel()  # its place has come in the same moment
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait_for(one(), 5)


async def test_a_rate_holds_back_and_refuses() -> None:
    admission = Admission(Limits(per_minute=600, burst=1, longest_wait=0.25), retry_after_seconds=7)

    async def one() -> float:
        async with admission.run("t"):
            return asyncio.get_running_loop().time()

    ends = await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)
    times = [end for end in ends if isinstance(end, float)]
    refused = [end for end in ends if isinstance(end, TooMany)]
    assert (len(times), len(refused)) == (3, 3)
    assert times[2] - times[0] > 0.15
    assert all(end.retry_after_seconds == 1 for end in refused)

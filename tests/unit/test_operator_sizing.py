"""Pool arithmetic, victims, rolling updates and the brake, case by case."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_operator.allocator import Counts
from kubecoderun_operator.members import Member, Trouble
from kubecoderun_operator.sizing import (
    LARGEST_BATCH,
    Brake,
    Expectations,
    Pace,
    Plan,
    Target,
    plan,
    wanted,
)

NOW = 1000.0
TARGET = Target(replicas=3, max_pods=10, revision="new", max_unavailable=1)


def pod(
    name: str, *, ready: bool = True, revision: str = "new", created: float = 0.0, failed: bool = False
) -> Member:
    trouble = Trouble.ENDED if failed else None
    uid, ip = f"uid-{name}", "10.0.0.1"
    return Member(
        "ns", name, uid, "pool", "p", revision, "warm", 1, created, ip=ip, ready=ready, trouble=trouble
    )


def counts(
    *free: Member,
    reserved: int = 0,
    assigned: int = 0,
    terminating: int = 0,
    waiting: int = 0,
    leaving: int = 0,
) -> Counts:
    return Counts(free, reserved, assigned, terminating, waiting, leaving)


def brake(batch: int = LARGEST_BATCH, until: float = 0.0) -> Brake:
    made = Brake(1.0, 300.0)
    made.batch, made.until = batch, until
    return made


def step(target: Target, state: Counts, expected: int = 0, on: Brake | None = None) -> tuple[int, list[str]]:
    made = plan(target, state, expected, on or brake(), lambda member: member.ended, NOW)
    return made.create, [victim.name for victim in made.retire]


@pytest.mark.parametrize(
    ("state", "want"),
    [
        (counts(), 3),
        (counts(waiting=4), 7),
        (counts(waiting=20), 10),
        (counts(assigned=8), 2),
        (counts(assigned=8, terminating=1), 1),
        (counts(assigned=12), 0),
        (counts(assigned=5, waiting=5), 5),
    ],
)
def test_wanted(state: Counts, want: int) -> None:
    assert wanted(TARGET, state) == want


@pytest.mark.parametrize(
    ("state", "expected", "create"),
    [
        (counts(), 0, 3),
        (counts(), 2, 1),
        (counts(), 5, 0),
        (counts(pod("a"), pod("b")), 0, 1),
        (counts(pod("a"), pod("b"), reserved=1), 0, 0),
        (counts(pod("a"), pod("b"), assigned=1), 0, 1),
        (counts(pod("a", ready=False), pod("b", ready=False), pod("c", ready=False)), 0, 0),
        (counts(pod("a"), pod("b"), pod("c"), waiting=2), 0, 2),
        (counts(pod("a"), pod("b"), pod("c"), reserved=3), 0, 0),
        # one on its way out still looks like a warm pod, and then still needs room
        (counts(pod("a"), pod("b"), terminating=1, leaving=1), 0, 0),
        (counts(pod("a"), pod("b"), terminating=1), 0, 1),
        (counts(pod("a"), assigned=7, terminating=1, leaving=1), 0, 1),
        (counts(pod("a"), assigned=8, terminating=1, leaving=1), 0, 0),
    ],
)
def test_creates(state: Counts, expected: int, create: int) -> None:
    assert step(TARGET, state, expected) == (create, [])


def test_slow_start_bounds_a_batch_and_doubles() -> None:
    target = replace(TARGET, replicas=300, max_pods=500)
    slow = Brake(1.0, 300.0)
    sizes = []
    for _ in range(8):
        sizes.append(step(target, counts(), 0, slow)[0])
        slow.created()
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 64]


def test_a_paced_pool_begins_its_reserve_at_once_and_then_so_many_a_minute() -> None:
    target, pace = replace(TARGET, replicas=2, starts_per_minute=30), Pace()
    assert pace.left(target, NOW) == 2
    pace.begin(2)
    assert pace.left(target, NOW) == 0
    assert pace.next_at(target, NOW) == NOW + 2
    assert pace.left(target, NOW + 1.9) == 0
    assert pace.left(target, NOW + 2) == 1
    pace.begin(1)
    assert pace.left(target, NOW + 2) == 0
    # Time that is not used makes up for one reserve, not more; and a clock that is set back for nothing.
    assert pace.left(target, NOW + 600) == 2
    pace.begin(2)
    assert pace.left(target, NOW) == 0
    assert pace.left(replace(target, replicas=0), NOW) == 0
    assert pace.left(replace(target, replicas=0), NOW + 6) == 1


def test_a_pool_without_a_pace_is_not_held_back() -> None:
    pace = Pace()
    pace.begin(1000)
    assert pace.left(TARGET, NOW) is None
    assert pace.next_at(TARGET, NOW) is None
    assert pace.left(replace(TARGET, starts_per_minute=1), NOW) == 3


@given(
    per_minute=st.integers(1, 600),
    replicas=st.integers(0, 5),
    pauses=st.lists(st.floats(0, 30), min_size=1, max_size=40),
)
def test_no_minute_has_more_starts_than_pace_and_reserve(
    per_minute: int, replicas: int, pauses: list[float]
) -> None:
    target, pace = replace(TARGET, replicas=replicas, starts_per_minute=per_minute), Pace()
    now, begun = NOW, list[tuple[float, int]]()
    for pause in pauses:
        now += pause
        count = pace.left(target, now) or 0
        pace.begin(count)
        begun.append((now, count))
        again = pace.next_at(target, now)
        assert again is not None
        assert again > now
        probe = copy.copy(pace)
        assert (probe.left(target, again + 0.001) or 0) >= 1
    for start, _ in begun:
        in_the_minute = sum(count for at, count in begun if start <= at < start + 60)
        assert in_the_minute <= per_minute + max(1, replicas)


def test_what_a_pace_holds_back_is_told() -> None:
    def of(most: int | None) -> Plan:
        return plan(TARGET, counts(), 0, brake(), lambda member: member.ended, NOW, most)

    assert (of(None).create, of(None).paced) == (3, False)
    assert (of(3).create, of(3).paced) == (3, False)
    assert (of(1).create, of(1).paced) == (1, True)
    assert (of(0).create, of(0).paced) == (0, True)
    blocked = plan(TARGET, counts(), 0, brake(until=NOW + 5), lambda member: member.ended, NOW, 0)
    assert (blocked.create, blocked.paced, blocked.again_at) == (0, False, NOW + 5)


def test_victims_are_pending_then_failed_then_old_then_newest() -> None:
    target = replace(TARGET, replicas=0, max_unavailable=None)
    state = counts(
        pod("young", created=30),
        pod("elder", created=10),
        pod("outdated", revision="old", created=20),
        pod("broken", failed=True),
        pod("starting", ready=False),
    )
    assert step(target, state)[1] == ["starting", "broken", "outdated", "young", "elder"]
    assert step(replace(target, replicas=3), state)[1] == ["starting", "broken"]


def test_failed_pods_keep_their_place_until_the_pause_is_over() -> None:
    state = counts(pod("a"), pod("b", failed=True), pod("c", failed=True))
    paused = brake(until=NOW + 5)
    assert step(TARGET, state, on=paused) == (0, [])
    assert plan(TARGET, state, 0, paused, lambda member: member.ended, NOW).again_at == NOW + 5
    assert step(TARGET, state) == (0, ["b", "c"])


def test_a_rolling_update_lets_so_many_ready_pods_miss() -> None:
    old = [pod(name, revision="old") for name in "abc"]
    assert step(TARGET, counts(*old)) == (0, ["a"])
    assert step(replace(TARGET, max_unavailable=2), counts(*old)) == (0, ["a", "b"])
    assert step(TARGET, counts(*old[1:], terminating=1)) == (1, [])
    starting = pod("n", ready=False)
    assert step(TARGET, counts(*old[1:], starting, terminating=1)) == (0, [])
    assert step(TARGET, counts(*old[1:], pod("n"), terminating=1)) == (0, ["b"])


def test_a_rolling_update_stops_while_new_pods_do_not_become_ready() -> None:
    state = counts(pod("b", revision="old"), pod("c", revision="old"), pod("n", failed=True))
    assert step(TARGET, state, on=brake(until=NOW + 1)) == (0, [])


def test_old_pods_that_are_not_ready_go_at_once() -> None:
    state = counts(pod("a"), pod("b"), pod("c", revision="old", ready=False))
    assert step(TARGET, state) == (0, ["c"])


def test_on_replenish_replaces_nothing() -> None:
    old = [pod(name, revision="old") for name in "abc"]
    assert step(replace(TARGET, max_unavailable=None), counts(*old)) == (0, [])
    assert step(replace(TARGET, max_unavailable=None), counts(*old[1:], assigned=1)) == (1, [])


def test_a_pool_at_its_maximum_rolls_without_exceeding_it() -> None:
    target = replace(TARGET, max_pods=3)
    old = [pod(name, revision="old") for name in "abc"]
    assert step(target, counts(*old)) == (0, ["a"])
    assert step(target, counts(*old[1:], terminating=1)) == (0, [])
    assert step(target, counts(*old[1:])) == (1, [])


def test_scaling_down_spares_pods_with_sessions() -> None:
    state = counts(pod("a", created=1), pod("b", created=2), pod("c", created=3), assigned=6)
    assert step(replace(TARGET, replicas=1), state) == (0, ["c", "b"])


def test_the_brake_doubles_and_counts_failures_within_a_pause_once() -> None:
    on = Brake(1.0, 10.0)
    pauses, now = [], NOW
    for _ in range(6):
        on.failed(now)
        on.failed(now)
        pauses.append(on.until - now)
        now = on.until
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert on.batch == 1
    assert on.proof(pod("later", created=now), now, serves=True)
    on.failed(now)
    assert on.until - now == 1.0
    on.reset()
    assert not on.blocked(now)
    on.failed(now, at_least=15.0)
    assert on.until - now == 15.0


@pytest.mark.parametrize(
    ("found", "serves", "expected"),
    [
        (pod("before", created=NOW - 50), True, False),
        (pod("since", created=NOW), True, True),
        (pod("since", created=NOW), False, False),
        (replace(pod("since", created=NOW), ready_since=NOW + 1), False, False),
        (replace(pod("since", created=NOW), ready_since=NOW - 1), False, True),
        (replace(pod("since", created=NOW, ready=False)), False, False),
    ],
)
def test_only_a_pod_made_since_proves_that_failures_are_over(
    found: Member, serves: bool, expected: bool
) -> None:
    on = Brake(1.0, 10.0)
    on.failed(NOW + 0.7)
    assert on.proof(found, NOW + 10, serves=serves) is expected
    assert (on.failures == 0) is expected


def test_expectations_expire_and_are_settled_by_name() -> None:
    asked = Expectations(30.0)
    asked.ask("a", NOW)
    asked.ask("b", NOW + 10)
    assert len(asked) == 2
    assert asked.next_expiry() == NOW + 30
    assert asked.expire(NOW + 29) == []
    assert asked.expire(NOW + 30) == ["a"]
    asked.settle("b")
    asked.settle("never asked")
    assert asked.next_expiry() is None
    assert len(asked) == 0

"""Turns in a workspace and its end, in any history: one at a time, in order, never idle while in use."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kubecoderun_crds.reasons import Reason
from kubecoderun_crds.workspaces import PoolWorkspaces, WorkspaceRequest
from kubecoderun_operator.occupancy import MOST_WAITING, Occupancy, Terms, terms


def opened(idle: float = 10, life: float = 100) -> Occupancy:
    made = Occupancy(Terms(idle, life), 0)
    made.open()
    return made


def test_terms_are_those_asked_for_within_the_pools() -> None:
    pool = PoolWorkspaces(idle_timeout_seconds=60, max_lifetime_seconds=600)
    assert terms(None, pool) == Terms(60, 600)
    assert terms(WorkspaceRequest(idle_timeout_seconds=90), pool) == Terms(90, 600)
    assert terms(WorkspaceRequest(idle_timeout_seconds=5000, max_lifetime_seconds=5000), pool) == Terms(
        600, 600
    )
    assert terms(WorkspaceRequest(max_lifetime_seconds=30), pool) == Terms(30, 30)


def test_nobody_has_a_turn_before_the_pod_is_there() -> None:
    made = Occupancy(Terms(10, 100), 0)
    assert made.enter("a", 0)
    assert made.next(0) is None
    assert made.over(1000) is None
    made.open()
    assert made.next(5) == "a"


def test_those_who_were_created_first_come_first() -> None:
    made = opened()
    for run, created in (("late", 3.0), ("early", 1.0), ("same", 3.0)):
        made.enter(run, created)
    order = []
    while (run := made.next(5)) is not None:
        order.append(run)
        made.leave(run, 5)
    assert order == ["early", "late", "same"]


def test_idle_time_does_not_run_while_a_run_does() -> None:
    made = opened()
    made.enter("a", 0)
    made.next(0)
    assert made.over(99) is None
    assert made.look_at() is None
    made.leave("a", 50)
    assert made.over(59.9) is None
    assert made.over(60) is Reason.IDLE_TIMEOUT
    assert made.look_at() == 60


def test_the_longest_life_ends_it_after_the_run_in_progress_and_before_those_that_wait() -> None:
    made = opened()
    made.enter("a", 0)
    made.next(0)
    made.enter("b", 1)
    assert made.over(101) is None
    made.leave("a", 102)
    assert made.next(102) is None
    assert made.over(102) is Reason.MAX_LIFETIME
    assert made.close() == ["b"]


def test_a_run_of_an_earlier_operator_comes_first_and_others_wait_for_it() -> None:
    made = opened()
    made.enter("new", 0)
    made.expect("old")
    assert made.next(500) is None
    assert made.over(500) is None, "it is on its way"
    made.enter("old", 9)
    assert made.next(500) == "old", "even when the longest life is over: it has begun already"
    made.leave("old", 500)
    assert made.next(500) is None

    gone = opened()
    gone.enter("new", 0)
    gone.expect("old")
    gone.expect_no_longer("old")
    assert gone.next(1) == "new"


def test_the_queue_has_a_bound_and_entering_again_is_fine() -> None:
    made = opened()
    for number in range(MOST_WAITING):
        assert made.enter(str(number), number)
    assert not made.enter("one more", 0)
    assert made.enter("3", 3)
    assert made.waiting == MOST_WAITING
    made.expect("one more")
    assert made.enter("one more", 0), "an earlier operator has started it"


class Histories(RuleBasedStateMachine):
    """The model: who is in, in which order they were created, and when the workspace was used last."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.occupancy = opened(10, 60)
        self.queue: list[tuple[float, int, str]] = []
        self.current: str | None = None
        self.served: list[str] = []
        self.used = 0.0
        self.closed = False
        self.count = 0

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.closed)
    @rule(age=st.integers(0, 3))
    def enter(self, age: int) -> None:
        self.count += 1
        run, created = f"r{self.count}", float(int(self.now) - age)
        accepted = self.occupancy.enter(run, created)
        assert accepted == (len(self.queue) < MOST_WAITING)
        if accepted:
            self.queue.append((created, self.count, run))

    @rule()
    def next(self) -> None:
        got = self.occupancy.next(self.now)
        if self.closed or self.current is not None or not self.queue or self.now >= 60:
            assert got is None
            return
        first = min(self.queue)
        assert got == first[2]
        self.queue.remove(first)
        self.current = got
        assert got not in self.served, "nobody has two turns"
        self.served.append(got)

    @precondition(lambda self: self.current is not None)
    @rule()
    def current_leaves(self) -> None:
        assert self.current is not None
        self.occupancy.leave(self.current, self.now)
        self.current, self.used = None, self.now

    @precondition(lambda self: self.queue)
    @rule(place=st.integers(0, 20))
    def waiting_one_leaves(self, place: int) -> None:
        entry = self.queue.pop(place % len(self.queue))
        self.occupancy.leave(entry[2], self.now)
        self.used = self.now

    @precondition(lambda self: not self.closed)
    @rule()
    def close_if_over(self) -> None:
        reason = self.occupancy.over(self.now)
        if self.current is not None:
            assert reason is None
        elif self.now >= 60:
            assert reason is Reason.MAX_LIFETIME
        elif self.queue or self.now < self.used + 10:
            assert reason is None
        else:
            assert reason is Reason.IDLE_TIMEOUT
        if reason is not None:
            assert sorted(self.occupancy.close()) == sorted(entry[2] for entry in self.queue)
            self.queue, self.closed = [], True

    @invariant()
    def views_agree(self) -> None:
        assert self.occupancy.current == self.current
        assert self.occupancy.waiting == len(self.queue)
        assert self.occupancy.used == bool(self.current or self.queue)
        look_at = self.occupancy.look_at()
        assert (look_at is None) == (self.closed or self.current is not None)
        if look_at is not None and look_at > self.now:
            assert self.occupancy.over(self.now) is None, "nothing is missed by sleeping until then"


TestHistories = Histories.TestCase

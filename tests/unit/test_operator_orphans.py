"""What of the store may go: nothing that a session owns or may still get, and never much at once."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kubecoderun_operator.orphans import HANDFUL, Memory, Plan, Suspects, Terms, decide, look

TERMS = Terms(seen_seconds=60, unseen_seconds=3600, share=0.2)
NOBODY: frozenset[str] = frozenset()


def looked(*looks: tuple[set[str], set[str]]) -> Suspects:
    """The last of several looks, each with names in the store and names of sessions."""
    memory, suspects = Memory(), Suspects(0)
    for stored, sessions in looks:
        suspects, memory = look(memory, stored, sessions, TERMS)
    return suspects


def test_the_first_look_suspects_nobody() -> None:
    assert looked(({"a", "b"}, {"a"})) == Suspects(2, {})


def test_what_was_seen_and_is_gone_needs_little_age() -> None:
    assert looked(({"a", "b"}, {"a", "b"}), ({"a", "b"}, {"b"})).ages == {"a": 60}


def test_what_never_was_seen_needs_two_looks_and_much_age() -> None:
    assert looked(({"a"}, set()), ({"a"}, set())).ages == {"a": 3600}


def test_a_session_between_two_looks_makes_the_name_known() -> None:
    assert looked(({"a"}, set()), ({"a"}, {"a"}), ({"a"}, set())).ages == {"a": 60}


def test_what_has_left_the_store_is_forgotten() -> None:
    """A name that comes back is as new as any other: its upload may be in progress."""
    assert looked(({"a"}, {"a"}), (set(), set()), ({"a"}, set())).ages == {}
    assert looked(({"a"}, set()), (set(), set()), ({"a"}, set())).ages == {}


def test_a_known_name_stays_known_while_its_objects_do() -> None:
    assert looked(({"a"}, {"a"}), ({"a"}, set()), ({"a"}, set())).ages == {"a": 60}


@pytest.mark.parametrize(
    ("newest", "goes"), [(3600.0, True), (3599.9, False), (-5.0, False), (None, False), (1e9, True)]
)
def test_age(newest: float | None, goes: bool) -> None:
    plan = decide(Suspects(5, {"a": 3600}), {"a": newest}, TERMS)
    assert plan == (Plan({"a": 3600}) if goes else Plan({}))


def suspects(count: int, total: int) -> tuple[Suspects, dict[str, float | None]]:
    names = [f"s{number}" for number in range(count)]
    return Suspects(total, dict.fromkeys(names, 60.0)), dict.fromkeys(names, 100.0)


@pytest.mark.parametrize(
    ("count", "total", "goes"),
    [
        (HANDFUL, HANDFUL, True),
        (HANDFUL + 1, HANDFUL + 1, False),
        (20, 100, True),
        (21, 100, False),
        (1, 1, True),
    ],
)
def test_never_more_than_a_part_or_a_handful(count: int, total: int, goes: bool) -> None:
    plan = decide(*suspects(count, total), TERMS)
    assert (len(plan.empty), plan.refused) == ((count, 0) if goes else (0, count))


def test_who_was_not_looked_at_counts_and_stays() -> None:
    many, ages = suspects(30, 100)
    some = {name: ages[name] for name in list(ages)[:15]}
    assert decide(many, some, TERMS) == Plan({}, 30)
    few, ages = suspects(18, 100)
    some = {name: ages[name] for name in list(ages)[:15]}
    assert set(decide(few, some, TERMS).empty) == set(some)


def test_everything_may_go_if_that_is_said() -> None:
    plan = decide(*suspects(100, 100), Terms(60, 3600, 1.0))
    assert len(plan.empty) == 100


names = st.sampled_from([f"s{number:02d}" for number in range(40)])
sets = st.frozensets(names)


@given(
    st.lists(st.tuples(sets, sets), max_size=4),
    sets,
    sets,
    st.dictionaries(names, st.none() | st.floats(0, 1e5)),
)
def test_no_plan_touches_a_session_that_exists(
    history: list[tuple[frozenset[str], frozenset[str]]],
    stored: frozenset[str],
    sessions: frozenset[str],
    newest: Mapping[str, float | None],
) -> None:
    memory = Memory()
    for earlier in history:
        _, memory = look(memory, *earlier, TERMS)
    found, _ = look(memory, stored, sessions, TERMS)
    plan = decide(found, newest, TERMS)
    assert not plan.empty.keys() & sessions
    assert plan.empty.keys() <= stored
    assert len(plan.empty) <= max(HANDFUL, 0.2 * len(stored))
    assert bool(plan.empty) + bool(plan.refused) <= 1
    for name in plan.empty:
        was_seen = any(name in earlier and name in then for earlier, then in history)
        age = newest[name]
        assert age is not None
        assert age >= (60 if was_seen else 3600)


class Installation(RuleBasedStateMachine):
    """Uploads, sessions, deletions and looks in any order, with a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.stored: dict[str, float] = {}
        self.sessions: set[str] = set()
        self.uploading: dict[str, float] = {}
        self.ever: set[str] = set()
        self.memory = Memory()
        self.lost: set[str] = set()

    @rule(name=names)
    def upload_begins(self, name: str) -> None:
        """Bytes come first, the session after them. An upload takes less than an hour."""
        if name not in self.stored and name not in self.ever:
            self.stored[name] = self.now
            self.uploading[name] = self.now

    @rule(seconds=st.sampled_from([1.0, 70.0, 600.0, 3000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for name, began in list(self.uploading.items()):
            if self.now - began >= 3500:
                self.finish(name)

    @precondition(lambda self: self.uploading)
    @rule(data=st.data())
    def upload_ends(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.uploading))))

    def finish(self, name: str) -> None:
        del self.uploading[name]
        if name not in self.stored:
            self.lost.add(name)
        self.sessions.add(name)
        self.ever.add(name)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def session_is_deleted(self, data: st.DataObject) -> None:
        self.sessions.discard(data.draw(st.sampled_from(sorted(self.sessions))))

    @rule()
    def operator_restarts(self) -> None:
        self.memory = Memory()

    @rule()
    def operator_looks(self) -> None:
        found, self.memory = look(self.memory, self.stored.keys(), frozenset(self.sessions), TERMS)
        newest = {name: self.now - self.stored[name] for name in found.ages}
        for name in decide(found, newest, TERMS).empty:
            del self.stored[name]

    @invariant()
    def no_session_has_lost_its_bytes(self) -> None:
        assert not self.lost
        assert self.sessions <= self.stored.keys()


Installation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestInstallation = Installation.TestCase


@given(sets)
def test_what_is_gone_for_good_is_removed_in_the_end(gone: frozenset[str]) -> None:
    """Deleted sessions do not stay in the store, as long as there are enough others."""
    others = frozenset(f"other-{number:03d}" for number in range(400))
    stored, memory = set(gone | others), Memory()
    for sessions in (others | gone, others, others, others):
        found, memory = look(memory, frozenset(stored), sessions, TERMS)
        stored -= decide(found, dict.fromkeys(found.ages, 1e6), TERMS).empty.keys()
    assert stored == others

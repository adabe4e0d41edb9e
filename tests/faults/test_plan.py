"""The plan of faults: what it hits, how often, and that a seed repeats it."""

import pytest

from faults.plan import EventFault, Match, Plan, RequestFault, Rule


def draws(plan: Plan, count: int = 200) -> list[bool]:
    return [plan.for_request("POST", "/api/v1/pods", "x") is not None for _ in range(count)]


def test_a_seed_repeats_a_plan_and_another_does_not() -> None:
    rules = [Rule(RequestFault.RESET, share=0.3)]
    assert draws(Plan(1, rules)) == draws(Plan(1, rules))
    assert draws(Plan(1, rules)) != draws(Plan(2, rules))


def test_what_other_requests_suffer_changes_nothing() -> None:
    rules = [Rule(RequestFault.RESET, Match(path="pods"), share=0.3), Rule(EventFault.DROP)]
    disturbed = Plan(1, rules)
    found = []
    for _ in range(200):
        disturbed.for_request("GET", "/apis/leases", "x")
        disturbed.for_event("/api/v1/pods", "x", "ADDED")
        found.append(disturbed.for_request("POST", "/api/v1/pods", "x") is not None)
    assert found == draws(Plan(1, rules))


def test_the_share_is_kept() -> None:
    plan = Plan(5, [Rule(RequestFault.RESET, share=0.25)])
    assert 400 < sum(draws(plan, 2000)) < 600
    assert plan.struck == {"reset": sum(draws(Plan(5, plan.rules), 2000))}


def test_never_more_often_than_that() -> None:
    assert sum(draws(Plan(1, [Rule(RequestFault.RESET, most=3)]))) == 3


def test_the_first_rule_whose_turn_it_is_decides() -> None:
    plan = Plan(1, [Rule(RequestFault.RESET, most=1), Rule(RequestFault.DELAY)])
    found = [plan.for_request("GET", "/", "x") for _ in range(2)]
    assert [stroke.fault for stroke in found if stroke] == [RequestFault.RESET, RequestFault.DELAY]


def test_seconds_lie_between_the_two() -> None:
    plan = Plan(1, [Rule(EventFault.DELAY, seconds=(0.2, 0.4))])
    found = [plan.for_event("/", "x", "ADDED") for _ in range(50)]
    seconds = [stroke.seconds for stroke in found if stroke]
    assert len(set(seconds)) > 10
    assert all(0.2 <= value <= 0.4 for value in seconds)


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        (Match(), True),
        (Match(methods=frozenset({"POST"})), True),
        (Match(methods=frozenset({"GET"})), False),
        (Match(path="pods$"), True),
        (Match(path="^/apis/"), False),
        (Match(agent="operator"), True),
        (Match(agent="^api"), False),
        (Match(types=frozenset({"ADDED"})), False),
    ],
)
def test_matches(match: Match, hit: bool) -> None:
    assert match.hits("POST", "/api/v1/namespaces/x/pods", "kubecoderun-operator") is hit


def test_events_match_by_type() -> None:
    plan = Plan(1, [Rule(EventFault.DROP, Match(types=frozenset({"DELETED"})))])
    assert plan.for_event("/", "x", "ADDED") is None
    assert plan.for_event("/", "x", "DELETED") is not None

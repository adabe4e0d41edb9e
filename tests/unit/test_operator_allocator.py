"""Reservations, the queue and standings, case by case. Random histories are in test_operator_histories."""

from dataclasses import replace

from kubecoderun_operator.allocator import TOMBSTONE_SECONDS, Allocator, Standing
from kubecoderun_operator.members import Member, Trouble


def pod(name: str, version: int = 1, **changes: object) -> Member:
    made = Member(
        "ns", name, f"uid-{name}", "pool", "p", "r1", "warm", version, 0.0, ip="10.0.0.1", ready=True
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def with_pods(*names: str) -> Allocator:
    made = Allocator()
    made.revision = "r1"
    for name in names:
        made.observe(pod(name))
    return made


def test_sessions_get_ready_pods_in_the_order_these_became_ready() -> None:
    allocator = with_pods("b", "a")
    assert [allocator.claim(session, 9.0).name for session in ("s1", "s2")] == ["b", "a"]  # type: ignore[union-attr]
    assert allocator.claim("s3", 9.0) is None
    assert allocator.counts().waiting == 1


def test_claiming_again_gives_the_same_pod() -> None:
    allocator = with_pods("a", "b")
    assert allocator.claim("s", 9.0) == allocator.claim("s", 9.0)
    assert allocator.counts().reserved == 1


def test_the_current_revision_goes_first() -> None:
    allocator = with_pods()
    allocator.observe(pod("old", revision="r0"))
    allocator.observe(pod("new"))
    assert allocator.claim("s", 9.0).name == "new"  # type: ignore[union-attr]
    assert allocator.claim("t", 9.0).name == "old"  # type: ignore[union-attr]


def test_after_a_pod_that_could_not_be_reached_other_nodes_come_first() -> None:
    """Where a node has lost its power, all its pods look ready until the control plane notices."""
    allocator = with_pods()
    for name, node in (("a1", "dead"), ("a2", "dead"), ("b1", "alive"), ("a3", "dead"), ("b2", "alive")):
        allocator.observe(pod(name, node=node))
    assert allocator.claim("s", 9.0).name == "a1"  # type: ignore[union-attr]
    allocator.prefer_others("dead")
    allocator.spend("uid-a1")
    found = [allocator.claim(f"s{number}", 9.0) for number in range(4)]
    assert [each.name for each in found if each] == ["b1", "b2", "a2", "a3"]


def test_the_queue_is_first_come_first_served_even_for_a_new_session() -> None:
    allocator = with_pods()
    for session in ("s1", "s2", "s3"):
        assert allocator.claim(session, 9.0) is None
    allocator.withdraw("s2")
    allocator.observe(pod("a"))
    assert allocator.claim("s4", 9.0) is None
    allocator.observe(pod("b"))
    assert [(session, found.name) for session, found in allocator.grants()] == [("s1", "a"), ("s3", "b")]


def test_a_session_that_lost_its_pod_comes_first() -> None:
    allocator = with_pods("a")
    allocator.claim("s1", 9.0)
    allocator.claim("s2", 9.0)
    allocator.spend("uid-a")
    assert allocator.claim("s1", 9.0, first=True) is None
    allocator.observe(pod("b"))
    assert [session for session, _ in allocator.grants()] == ["s1"]


def test_deadlines() -> None:
    allocator = with_pods()
    allocator.claim("s1", 20.0)
    allocator.claim("s2", 10.0)
    assert allocator.next_deadline() == 10.0
    assert allocator.overdue(9.9) == []
    assert allocator.overdue(10.0) == ["s2"]
    assert allocator.next_deadline() == 20.0


def test_a_released_pod_can_be_had_again_and_a_spent_one_cannot() -> None:
    allocator = with_pods("a")
    allocator.claim("s1", 9.0)
    allocator.release("s1")
    assert allocator.claim("s2", 9.0).name == "a"  # type: ignore[union-attr]
    allocator.spend("uid-a")
    allocator.observe(pod("a", version=5))
    assert allocator.claim("s3", 9.0) is None
    assert allocator.counts().terminating == 1


def test_an_assigned_pod_is_not_released() -> None:
    allocator = with_pods("a")
    allocator.claim("s1", 9.0)
    allocator.assigned("s1")
    allocator.release("s1")
    assert allocator.seat("uid-a").standing is Standing.ASSIGNED  # type: ignore[union-attr]


def test_a_stale_view_of_an_assigned_pod_changes_nothing() -> None:
    allocator = with_pods("a")
    allocator.observe(pod("a", version=7, state="assigned", session_uid="s9"))
    assert not allocator.observe(pod("a", version=6))
    assert allocator.claim("s1", 9.0) is None
    assert [found.name for found in allocator.carriers("s9")] == ["a"]


def test_another_operator_has_taken_a_reserved_pod() -> None:
    allocator = with_pods("a", "b")
    allocator.claim("s1", 9.0)
    allocator.observe(pod("a", version=7, state="assigned", session_uid="other"))
    assert allocator.claim("s1", 9.0).name == "b"  # type: ignore[union-attr]


def test_a_session_that_waits_gets_a_pod_that_turns_out_to_be_its_own() -> None:
    """An operator that has ended had sent the patch; it landed when the session already waited elsewhere."""
    allocator = with_pods("a")
    allocator.claim("other", 9.0)
    assert allocator.claim("s1", 9.0) is None
    allocator.observe(pod("a", version=7, state="assigned", session_uid="s1"))
    assert [(session, found.name) for session, found in allocator.grants()] == [("s1", "a")]
    assert allocator.waiting == 0
    assert list(allocator.grants()) == []


def test_a_session_goes_on_waiting_when_its_own_pod_is_gone_again() -> None:
    allocator = with_pods("a")
    allocator.claim("other", 9.0)
    allocator.claim("s1", 9.0)
    allocator.observe(pod("a", version=7, state="assigned", session_uid="s1"))
    allocator.forget("uid-a", now=1.0)
    assert list(allocator.grants()) == []
    assert allocator.overdue(9.0) == ["s1"]


def test_a_gone_pod_stays_gone_until_its_tombstone_is_old() -> None:
    allocator = with_pods("a")
    allocator.forget("uid-a", now=100.0)
    assert not allocator.observe(pod("a", version=99))
    allocator.forget("uid-x", now=100.0 + TOMBSTONE_SECONDS + 1)
    assert allocator.observe(pod("a", version=99))


def test_pods_that_end_or_are_deleted_are_not_handed_out() -> None:
    allocator = with_pods("a", "b")
    allocator.observe(pod("a", version=2, deleting=True))
    allocator.observe(pod("b", version=2, trouble=Trouble.ENDED))
    assert allocator.claim("s", 9.0) is None
    assert allocator.counts().terminating == 1
    assert [found.name for found in allocator.counts().free] == ["b"]


def test_a_pod_on_its_way_out_counts_as_unassigned_until_its_deletion_is_seen() -> None:
    allocator = with_pods("a", "b")
    allocator.retire("uid-a")
    assert (allocator.counts().terminating, allocator.counts().leaving) == (1, 1)
    allocator.observe(pod("a", version=2, deleting=True))
    assert (allocator.counts().terminating, allocator.counts().leaving) == (1, 0)
    # That a session had this one is known, although no event has told yet.
    allocator.claim("s", 9.0)
    allocator.assigned("s")
    allocator.spend("uid-b")
    assert (allocator.counts().terminating, allocator.counts().leaving) == (2, 0)


def test_only_unassigned_pods_can_be_retired() -> None:
    allocator = with_pods("a", "b")
    allocator.claim("s", 9.0)
    assert not allocator.retire("uid-a")
    assert allocator.retire("uid-b")
    assert not allocator.retire("uid-b")
    assert not allocator.retire("unknown")


def test_a_pod_that_a_status_names_is_given_to_nobody_else() -> None:
    """An operator that has ended had given it away; the pod's label still says warm."""
    allocator = with_pods("a", "b")
    allocator.take("uid-a", "s1")
    assert [found.name for found in allocator.ready_members()] == ["b"]
    assert not allocator.retire("uid-a")
    assert allocator.claim("s1", 9.0).name == "a"  # type: ignore[union-attr]
    assert (allocator.counts().assigned, len(allocator.counts().free)) == (1, 1)
    # The views of the pod change nothing about that, and neither does its label, when it comes.
    allocator.observe(pod("a", version=5))
    allocator.observe(pod("a", version=6, state="assigned", session_uid="s1"))
    assert allocator.counts().assigned == 1


def test_taking_a_pod_twice_or_one_that_is_spent_or_unknown_changes_nothing() -> None:
    allocator = with_pods("a", "b")
    allocator.take("uid-a", "s1")
    allocator.take("uid-a", "s2")
    allocator.spend("uid-b")
    allocator.take("uid-b", "s3")
    allocator.take("uid-x", "s4")
    assert allocator.seat("uid-a").session == "s1"  # type: ignore[union-attr]
    assert allocator.counts().terminating == 1
    assert allocator.claim("s3", 9.0) is None


def test_a_waiting_session_gets_the_pod_that_its_status_turns_out_to_name() -> None:
    allocator = with_pods("a")
    allocator.claim("other", 9.0)
    assert allocator.claim("s1", 9.0) is None
    allocator.take("uid-a", "s1")
    assert [(session, found.name) for session, found in allocator.grants()] == [("s1", "a")]


def test_the_sidecar_has_the_last_word_about_whose_a_pod_is() -> None:
    allocator = with_pods("a", "b")
    allocator.claim("s1", 9.0)
    allocator.assigned("s1")
    allocator.hand_over("uid-a", "s2")
    assert allocator.seat("uid-a").session == "s2"  # type: ignore[union-attr]
    assert allocator.claim("s1", 9.0).name == "b"  # type: ignore[union-attr]

"""The status of a pool for each kind of trouble, and which changes are written at once."""

from dataclasses import replace
from typing import Any

import pytest

from kubecoderun_crds.pool import PoolStatus
from kubecoderun_crds.reasons import POOL_CONDITION_REASONS, EventReason, PoolReason
from kubecoderun_operator.allocator import Counts
from kubecoderun_operator.conditions import Facts, Setback, Verdict, announcements, status, urgent
from kubecoderun_operator.members import Member, Trouble
from kubecoderun_operator.sizing import Target

TARGET = Target(replicas=2, max_pods=4, revision="0123456789", max_unavailable=1)
NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


def pod(name: str = "a", trouble: Trouble | None = None, message: str = "", **changes: Any) -> Member:
    made = Member(
        "ns", name, name, "pool", "p", TARGET.revision, "warm", 1, 0.0, ip="10.0.0.1", ready=trouble is None
    )
    return replace(made, trouble=trouble, message=message, **changes)


def facts(*free: Member, waiting: int = 0, assigned: int = 0, terminating: int = 0, **changes: Any) -> Facts:
    counts = Counts(free, 0, assigned, terminating, waiting)
    return replace(Facts("python", 3, TARGET, counts, Verdict(accepted=True)), **changes)


def found(given: Facts) -> dict[str, tuple[str, str]]:
    made = status(given, {}, NOW)
    PoolStatus.model_validate(made)
    for entry in made["conditions"]:
        allowed = POOL_CONDITION_REASONS[entry["type"]][entry["status"]]
        assert PoolReason(entry["reason"]) in allowed, entry
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in made["conditions"]}


IMAGE = pod("a", Trouble.IMAGE, "runtime (img:1): ErrImagePull: not found")
NO_NODE = pod("a", Trouble.UNSCHEDULABLE, "0/3 nodes are available")
QUOTA = Setback(PoolReason.QUOTA_EXCEEDED, "exceeded quota: pods=10")


@pytest.mark.parametrize(
    ("given", "available", "progressing", "starved"),
    [
        (facts(pod("a"), pod("b")), "True PodsReady", "True Complete", "False NothingWaiting"),
        (facts(pod("a")), "True PodsReady", "True CreatingPods", "False NothingWaiting"),
        (facts(), "False NoReadyPods", "True CreatingPods", "False NothingWaiting"),
        (facts(waiting=1), "False NoReadyPods", "True CreatingPods", "True CreatingPods"),
        (facts(pod("a"), waiting=1), "True PodsReady", "True CreatingPods", "False PodsReady"),
        (facts(assigned=4, waiting=1), "False NoReadyPods", "True AtMaxPods", "True AtMaxPods"),
        (facts(assigned=4, waiting=1, paced=True), "False NoReadyPods", "True AtMaxPods", "True AtMaxPods"),
        (facts(waiting=1, paced=True), "False NoReadyPods", "True Paced", "True Paced"),
        (facts(pod("a"), paced=True), "True PodsReady", "True Paced", "False NothingWaiting"),
        (facts(IMAGE), "False NoReadyPods", "False ImagePullFailed", "False NothingWaiting"),
        (facts(IMAGE, waiting=1), "False NoReadyPods", "False ImagePullFailed", "True ImagePullFailed"),
        (facts(IMAGE, pod("b")), "True PodsReady", "False ImagePullFailed", "False NothingWaiting"),
        (facts(NO_NODE), "False NoReadyPods", "False Unschedulable", "False NothingWaiting"),
        (facts(pod("a", Trouble.ENDED)), "False NoReadyPods", "False PodsFailing", "False NothingWaiting"),
        (
            facts(pod("a", Trouble.CONTAINER)),
            "False NoReadyPods",
            "False PodsFailing",
            "False NothingWaiting",
        ),
        (facts(setback=QUOTA, waiting=2), "False NoReadyPods", "False QuotaExceeded", "True QuotaExceeded"),
        (facts(NO_NODE, setback=QUOTA), "False NoReadyPods", "False QuotaExceeded", "False NothingWaiting"),
        (facts(pod("a"), pod("b"), setback=QUOTA), "True PodsReady", "True Complete", "False NothingWaiting"),
        (
            facts(pod("a"), pod("b", revision="old")),
            "True PodsReady",
            "True RollingOut",
            "False NothingWaiting",
        ),
        (
            facts(target=replace(TARGET, replicas=0)),
            "False ScaledToZero",
            "True Complete",
            "False NothingWaiting",
        ),
        (
            facts(pod("a"), pod("b"), verdict=Verdict(accepted=False, message="pods is forbidden")),
            "True PodsReady",
            "False TemplateRejected",
            "False NothingWaiting",
        ),
        (
            facts(waiting=1, verdict=Verdict(accepted=False, message="pods is forbidden")),
            "False NoReadyPods",
            "False TemplateRejected",
            "True TemplateRejected",
        ),
        (facts(NO_NODE, waiting=1), "False NoReadyPods", "False Unschedulable", "True Unschedulable"),
        (
            facts(pod("a", Trouble.ENDED), waiting=1),
            "False NoReadyPods",
            "False PodsFailing",
            "True PodsFailing",
        ),
    ],
)
def test_conditions(given: Facts, available: str, progressing: str, starved: str) -> None:
    made = found(given)
    assert " ".join(made["Available"]) == available
    assert " ".join(made["Progressing"]) == progressing
    assert " ".join(made["Starved"]) == starved


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict(), ("Unknown", "NotChecked")),
        (Verdict(accepted=True), ("True", "Accepted")),
        (Verdict(accepted=False, message="violates PodSecurity"), ("False", "TemplateRejected")),
    ],
)
def test_template_accepted(verdict: Verdict, expected: tuple[str, str]) -> None:
    assert found(facts(verdict=verdict))["TemplateAccepted"] == expected


def test_messages_are_the_clusters_own_words_made_printable() -> None:
    made = status(facts(pod("a", Trouble.IMAGE, "bad\x1b[31m name" + "x" * 2000)), {}, NOW)
    message = next(entry["message"] for entry in made["conditions"] if entry["type"] == "Progressing")
    assert message.startswith("pod a: bad\\x1b[31m name")
    assert len(message) == 1024


def test_counts_and_selector() -> None:
    made = status(
        facts(pod("a"), pod("b", revision="old", ready=False), assigned=1, terminating=2, waiting=1), {}, NOW
    )
    assert {key: value for key, value in made.items() if key != "conditions"} == {
        "observedGeneration": 3,
        "replicas": 2,
        "readyReplicas": 1,
        "updatedReplicas": 1,
        "assignedReplicas": 1,
        "terminatingReplicas": 2,
        "waitingSessions": 1,
        "revision": "0123456789",
        "selector": "kubecoderun.io/pool=python,kubecoderun.io/state=warm",
    }


def test_only_a_changed_status_moves_the_transition_time() -> None:
    first = status(facts(), {}, NOW)
    second = status(facts(pod("a")), first, LATER)
    times = {entry["type"]: entry["lastTransitionTime"] for entry in second["conditions"]}
    assert times == {"TemplateAccepted": NOW, "Available": LATER, "Progressing": NOW, "Starved": NOW}
    assert status(facts(pod("a")), second, "2026-01-01T01:00:00Z") == second


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (facts(pod("a"), pod("b")), facts(pod("a"), assigned=1), False),
        (facts(pod("a")), facts(assigned=1), False),
        (facts(assigned=1), facts(pod("a"), assigned=1), True),
        (facts(pod("a")), facts(IMAGE), True),
        (facts(), facts(waiting=1), False),
        (facts(IMAGE), facts(IMAGE, waiting=1), True),
        (facts(), facts(generation=4), True),
        (facts(verdict=Verdict()), facts(), True),
    ],
)
def test_what_is_written_at_once(before: Facts, after: Facts, expected: bool) -> None:
    old = status(before, {}, NOW)
    assert urgent(old, status(after, old, LATER)) is expected


def test_a_first_status_is_urgent() -> None:
    assert urgent({}, status(facts(), {}, NOW))


def told(*statuses: Facts) -> list[str]:
    """What is announced on the way from the first of these to the last."""
    found, before = [], status(statuses[0], {}, NOW)
    for facts_ in statuses[1:]:
        after = status(facts_, before, LATER)
        found += [str(reason) for reason, _ in announcements(before, after)]
        before = after
    return found


FULL = facts(pod("a"), pod("b"))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([FULL, facts(pod("a")), FULL], []),
        ([facts(), facts(IMAGE), facts(IMAGE, waiting=1), facts(IMAGE)], ["ImagePullFailed"]),
        ([FULL, facts(NO_NODE), facts(IMAGE), FULL], ["Unschedulable", "ImagePullFailed", "Recovered"]),
        (
            [FULL, facts(setback=QUOTA), FULL, facts(setback=QUOTA)],
            ["QuotaExceeded", "Recovered", "QuotaExceeded"],
        ),
        ([facts(pod("a", Trouble.ENDED)), facts(pod("a", Trouble.ENDED))], []),
        ([FULL, facts(assigned=4, waiting=1), facts(assigned=4, waiting=2), FULL], ["AtMaxPods"]),
    ],
)
def test_what_is_announced(statuses: list[Facts], expected: list[str]) -> None:
    assert told(*statuses) == expected


def test_an_announcement_has_the_conditions_own_words() -> None:
    assert announcements({}, status(facts(IMAGE), {}, NOW)) == [
        (EventReason.IMAGE_PULL_FAILED, "pod a: runtime (img:1): ErrImagePull: not found")
    ]

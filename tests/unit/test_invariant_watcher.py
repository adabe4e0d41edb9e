"""The watcher that fails a cluster run has to notice each broken promise, and must not cry wolf."""

from typing import Any

import pytest

from e2e.invariants import Invariants

Object = dict[str, Any]


def pool(replicas: int = 2, max_pods: int = 5, **status: Any) -> Object:
    return {
        "metadata": {"uid": "pool-1", "name": "python", "generation": 1},
        "spec": {"replicas": replicas, "maxPods": max_pods},
        "status": status,
    }


def pod(uid: str, state: str = "warm", session: str | None = None) -> Object:
    labels = {
        "kubecoderun.io/pool": "python",
        "kubecoderun.io/pool-uid": "pool-1",
        "kubecoderun.io/state": state,
    }
    if session:
        labels["kubecoderun.io/session-uid"] = session
    return {"metadata": {"uid": uid, "name": uid, "labels": labels}}


def session(uid: str, phase: str | None = None, **status: Any) -> Object:
    full = {"phase": phase, **status} if phase else status
    return {
        "metadata": {"uid": uid, "name": uid, "generation": 1},
        "spec": {"request": {"poolRef": {"name": "python"}}},
        "status": full,
    }


DONE: Object = {"reason": "Succeeded", "timings": {"completed": "2026-01-01T00:00:00.000000Z"}, "attempts": 1}


@pytest.fixture
def seen() -> Invariants:
    watched = Invariants()
    watched.pool(pool(), False, 0.0)
    return watched


def broken(watched: Invariants, now: float = 1000.0) -> str:
    watched.tick(now)
    watched.finish()
    return "\n".join(watched.broken)


def test_an_ordinary_run_breaks_nothing(seen: Invariants) -> None:
    seen.pod(pod("p1"), False, 0.0)
    seen.session(session("s1"), False, 1.0)
    seen.pod(pod("p1", "assigned", "s1"), False, 1.1)
    seen.pod(pod("p2"), False, 1.2)
    seen.session(session("s1", "Succeeded", pod={"uid": "p1"}, **DONE), False, 2.0)
    seen.pod(pod("p1", "assigned", "s1"), True, 3.0)
    seen.session(session("s1", "Succeeded", pod={"uid": "p1"}, **DONE), True, 600.0)
    assert broken(seen) == ""
    assert seen.seen == (1, 1)


def test_i1_a_pod_changes_its_owner(seen: Invariants) -> None:
    seen.pod(pod("p1", "assigned", "s1"), False, 0.0)
    seen.pod(pod("p1", "assigned", "s2"), False, 1.0)
    assert "I1: pod p1 changed its owner" in "\n".join(seen.broken)


@pytest.mark.parametrize(
    ("before", "after"), [("assigned", "warm"), ("retiring", "assigned"), ("retiring", "warm")]
)
def test_i1_a_pod_goes_back(seen: Invariants, before: str, after: str) -> None:
    seen.pod(pod("p1", before), False, 0.0)
    seen.pod(pod("p1", after), False, 1.0)
    assert f"I1: pod p1 went from {before} to {after}" in seen.broken


def test_i1_a_pod_runs_programs_of_two_sessions(seen: Invariants) -> None:
    started = {"started": "2026-01-01T00:00:00.000000Z"}
    seen.session(session("s1", "Running", pod={"uid": "p1"}), False, 0.0)
    seen.session(session("s2", "Running", pod={"uid": "p1"}, timings=started), False, 0.0)
    assert seen.broken == [], "an attempt that its sidecar has refused"
    seen.session(session("s1", "Succeeded", pod={"uid": "p1"}, timings=started), False, 1.0)
    assert "I1: pod p1 has run programs of 2 owners" in seen.broken


def in_workspace(uid: str, started: int, finished: int, workspace: str = "w1") -> Object:
    times = {"started": f"2026-01-01T00:00:{started:02}Z", "finished": f"2026-01-01T00:00:{finished:02}Z"}
    done = {**DONE, "timings": {**DONE["timings"], **times}}
    number = {"uid": workspace, "number": started}
    made = session(uid, "Succeeded", pod={"uid": "p1"}, workspaceRun=number, **done)
    made["spec"]["request"]["workspaceRef"] = {"name": "mine"}
    return made


def test_runs_take_turns_in_the_pod_of_their_workspace(seen: Invariants) -> None:
    seen.pod(pod("p1", "assigned", "w1"), False, 0.0)
    seen.session(session("w1", "Active", pod={"uid": "p1"}, attempts=1), False, 0.0)
    seen.session(in_workspace("r1", 1, 3), False, 1.0)
    seen.session(in_workspace("r2", 3, 9), False, 2.0)
    assert broken(seen) == "", "the pod lives as long as its workspace"
    seen.session(session("w1", "TimedOut", pod={"uid": "p1"}, **DONE), False, 1000.0)
    assert "I4: pod p1 (assigned) outlives its owner" in broken(seen, 1100.0)


def test_i1_two_runs_at_the_same_time_in_a_workspace(seen: Invariants) -> None:
    seen.session(in_workspace("r1", 1, 5), False, 1.0)
    seen.session(in_workspace("r2", 4, 9), False, 2.0)
    assert "I1: r1 and r2 ran at the same time in workspace w1" in broken(seen)


def test_i1_runs_of_two_workspaces_name_one_pod(seen: Invariants) -> None:
    seen.session(in_workspace("r1", 1, 2), False, 1.0)
    seen.session(in_workspace("r2", 4, 9, "w2"), False, 2.0)
    assert "I1: pod p1 has run programs of 2 owners" in broken(seen)


def test_i2_a_second_pod_needs_a_second_attempt(seen: Invariants) -> None:
    seen.session(session("s1", "Running", pod={"uid": "p1"}, attempts=1), False, 0.0)
    seen.session(session("s1", "Running", pod={"uid": "p2"}, attempts=2), False, 1.0)
    assert seen.broken == []
    seen.session(session("s1", "Running", pod={"uid": "p3"}, attempts=2), False, 2.0)
    assert seen.broken == ["I2: session s1 names a second pod in attempt 2"]


def test_i2_two_pods_carry_one_session(seen: Invariants) -> None:
    seen.session(session("s1", "Succeeded", **DONE), False, 0.0)
    for uid in ("p1", "p2"):
        seen.pod(pod(uid, "assigned", "s1"), False, 0.0)
        seen.pod(pod(uid, "assigned", "s1"), True, 1.0)
    assert "I2: session s1 was given 2 pods in 1 attempts" in broken(seen)


def test_i3_more_pods_than_wanted(seen: Invariants) -> None:
    for number in range(3):
        seen.pod(pod(f"p{number}"), False, 1.0)
    assert "I3: pool python had 3 unassigned pods, wanted at most 2" in broken(seen, 10.0)


def test_i3_waiting_sessions_raise_the_target_even_when_they_are_seen_late(seen: Invariants) -> None:
    for number in range(4):
        seen.pod(pod(f"p{number}"), False, 1.0)
    for number in range(2):
        seen.session(session(f"s{number}"), False, 1.5)
    assert broken(seen, 10.0) == ""


def test_i3_the_ceiling_counts_every_pod(seen: Invariants) -> None:
    for number in range(5):
        seen.session(session(f"s{number}"), False, 0.5)
        seen.pod(pod(f"p{number}", "assigned", f"s{number}"), False, 1.0)
    assert broken(seen, 10.0) == ""
    seen.pod(pod("p9"), False, 11.0)
    assert "I3: pool python had 6 pods, maxPods is 5" in broken(seen, 20.0)


def test_i3_scaling_down_is_no_creation(seen: Invariants) -> None:
    for number in range(2):
        seen.pod(pod(f"p{number}"), False, 1.0)
    seen.tick(30.0)
    seen.pool(pool(replicas=0), False, 31.0)
    seen.pod(pod("p1", "retiring"), False, 50.0)
    assert broken(seen, 55.0) == ""


def test_i4_a_pod_outlives_its_session(seen: Invariants) -> None:
    seen.pod(pod("p1", "assigned", "s1"), False, 0.0)
    seen.session(session("s1", "Succeeded", **DONE), False, 1.0)
    assert broken(seen, 60.0) == ""
    assert "I4: pod p1 (assigned) outlives its owner" in broken(seen, 62.0)


def test_i4_a_pod_outlives_its_pool(seen: Invariants) -> None:
    seen.pod(pod("p1"), False, 0.0)
    seen.pool(pool(), True, 1.0)
    assert "I4: pod p1 (warm) outlives its owner" in broken(seen, 62.0)


def test_i5_generations(seen: Invariants) -> None:
    seen.pool(pool(observedGeneration=1), False, 1.0)
    seen.pool(pool(), False, 2.0)
    seen.pool(pool(conditions=[{"type": "Available", "observedGeneration": 2}]), False, 3.0)
    assert "I5: the observed generation of pool python fell from 1 to 0" in seen.broken
    assert "I5: pool python has observed a generation beyond its own (1)" in seen.broken


@pytest.mark.parametrize("later", [session("s1", "Failed", **DONE), session("s1")])
def test_i6_a_terminal_phase_changes(seen: Invariants, later: Object) -> None:
    seen.session(session("s1", "Succeeded", **DONE), False, 0.0)
    seen.session(later, False, 1.0)
    assert any(sentence.startswith("I6: session s1 went from Succeeded") for sentence in seen.broken)


def test_i7_a_terminal_session_says_why_and_when(seen: Invariants) -> None:
    seen.session(session("s1", "Failed"), False, 0.0)
    assert seen.broken == [
        "I7: session s1 is Failed without a reason",
        "I7: session s1 is Failed without a finish time",
    ]


def test_pods_of_nobody_are_left_alone(seen: Invariants) -> None:
    seen.pod({"metadata": {"uid": "x", "name": "x", "labels": {"app": "other"}}}, False, 0.0)
    assert broken(seen) == ""

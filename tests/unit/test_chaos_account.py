"""The account of the kill loop has to notice each lost and each doubled run, and must not cry wolf."""

from typing import Any

import pytest

from chaos.account import Call, Figures, figures, table
from chaos.programs import LENGTH, new_tag, program

TAG = "kczaaaaaaaaaaaa"


def call(tag: str = TAG, outcome: str = "right", began: float = 10.0, seconds: float = 0.5) -> Call:
    return Call(tag, began, seconds, outcome)


def session(tag: str = TAG, phase: str = "Succeeded", reason: str = "Succeeded") -> dict[str, Any]:
    status = {"phase": phase, "reason": reason} if phase else {}
    spec = {"request": {"code": program(tag, 1.0)}}
    return {"metadata": {"name": f"s-{tag}"}, "spec": spec, "status": status}


def settled(calls: list[Call], sessions: list[dict[str, Any]], **processes: set[int]) -> Figures:
    return figures("operator", [9.0], calls, sessions, processes)


def test_all_is_well() -> None:
    found = settled([call()], [session()], **{TAG: {7}})
    assert (found.lost, found.doubled, found.right, found.unseen, found.faults) == (0, 0, 1, 0, ())
    assert (found.longest, found.recovery) == (0.5, 1.5)
    assert found.reasons == {"Succeeded": 1}


@pytest.mark.parametrize("outcome", ["told", "broken", "refused"])
def test_callers_who_know_are_not_lost(outcome: str) -> None:
    found = settled([call(outcome=outcome)], [session(phase="Failed", reason="PodLost")])
    assert (found.lost, found.doubled) == (0, 0)


@pytest.mark.parametrize("outcome", ["silent", "wrong"])
def test_callers_who_do_not_know_are_lost(outcome: str) -> None:
    assert settled([call(outcome=outcome)], [session()]).lost == 1


def test_a_session_without_an_end_is_lost_once() -> None:
    found = settled([call(outcome="silent")], [session(phase="")])
    assert found.lost == 1
    assert len(found.faults) == 2


def test_two_processes_are_a_doubled_run() -> None:
    assert settled([call()], [session()], **{TAG: {7, 8}}).doubled == 1


def test_two_sessions_are_a_doubled_run() -> None:
    assert settled([call()], [session(), session()]).doubled == 1


def test_sessions_of_others_do_not_count() -> None:
    found = settled([call()], [session(), session("kczbbbbbbbbbbbb", phase="")])
    assert (found.lost, found.sessions) == (0, 1)


def test_no_answer_after_a_strike_is_no_recovery() -> None:
    assert settled([call(began=8.0)], [session()]).recovery is None


def test_what_does_not_come_back_is_a_fault() -> None:
    found = figures("store", [9.0], [call()], [session()], {}, troubles=["the store is not ready"])
    assert found.faults == ("the store is not ready",)


def test_a_program_names_its_process_and_prints_that_name() -> None:
    tags = {new_tag() for _ in range(50)}
    assert len(tags) == 50
    assert {len(tag) for tag in tags} == {LENGTH}
    compile(program(TAG, 0.5), "main.py", "exec")


def test_the_table_has_a_line_for_each_victim_and_a_sum() -> None:
    lines = table([settled([call()], [session()]), settled([call()], [session()])]).splitlines()
    assert len(lines) == 4
    assert lines[-1].split()[:3] == ["all", "2", "2"]

"""The account that fails a run has to notice each broken promise, and must not cry wolf."""

from typing import Any

from faults.load import Call, settle


def call(nonce: str = "n1", **changes: Any) -> Call:
    made = Call(nonce, f"print:{nonce}", "http://front-end", 0.0, 0.5, 200, {"stdout": nonce, "stderr": ""})
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def session(nonce: str = "n1", phase: str = "Succeeded", reason: str = "Succeeded") -> dict[str, Any]:
    return {
        "metadata": {"name": f"s-{nonce}"},
        "spec": {"request": {"code": f"print:{nonce}"}},
        "status": {"phase": phase, "reason": reason} if phase else {},
    }


def test_all_is_well() -> None:
    account = settle([call()], [session()], {"print:n1": 1})
    assert account.broken == []
    assert dict(account.outcomes) == {"right": 1}
    assert account.longest == 0.5


def test_an_error_that_was_told_is_an_answer() -> None:
    early = call(status=503, answer={"error": "execution_lost"})
    late = call("n2", answer={"stdout": "", "stderr": "[kubecoderun] The sandbox was removed"})
    account = settle([early, late], [session(phase="Failed", reason="PodLost")], {"print:n1": 1})
    assert account.broken == []
    assert dict(account.outcomes) == {"told": 2}


def test_silence_is_none() -> None:
    assert "got no answer" in settle([call(fault="silent", status=0)], [], {}).broken[0]


def test_a_wrong_output_is_none() -> None:
    account = settle([call(answer={"stdout": "of another call", "stderr": ""})], [session()], {"print:n1": 1})
    assert "got no answer (wrong)" in account.broken[0]


def test_a_program_that_was_started_twice() -> None:
    assert settle([call()], [session()], {"print:n1": 2}).broken[0] == "n1 was started 2 times"


def test_an_answer_of_a_program_that_never_started() -> None:
    assert settle([call()], [session()], {}).broken == ["n1 was answered and started 0 times"]


def test_a_call_with_two_sessions() -> None:
    assert settle([call()], [session(), session()], {"print:n1": 1}).broken == ["n1 has 2 sessions"]


def test_a_session_without_an_end_although_its_caller_has_gone() -> None:
    account = settle([call(fault="broken", status=0)], [session(phase="")], {"print:n1": 1})
    assert account.broken == ["session s-n1 has not ended: {}"]

"""From a finished session to an answer: by reason, complete, no error status for a program's fault."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api import answers
from kubecoderun_api.answers import Answer
from kubecoderun_crds.reasons import NON_TERMINAL_REASONS, Phase, Reason

SESSION = "a" * 21
KEYS = {
    "session_id",
    "stdout",
    "stderr",
    "files",
    "code",
    "signal",
    "message",
    "status",
    "wall_time",
    "cpu_time",
    "memory",
}


def answer(reason: str, result: dict[str, Any] | None = None, stored: Any = None, **more: Any) -> Answer:
    status = {"reason": reason, **more} | ({} if result is None else {"result": result})
    return answers.from_status(SESSION, status, stored=stored, retry_after_seconds=5)


def result(stdout: str = "out\n", stderr: str = "", **more: Any) -> dict[str, Any]:
    return {"exitCode": 0, "stdout": stdout, "stderr": stderr, "stdoutBytes": 4, "stderrBytes": 0, **more}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in NON_TERMINAL_REASONS])
def test_every_reason_has_an_answer_in_both_forms(reason: Reason) -> None:
    for made in (answer(reason), answer(reason, result())):
        assert made.reason == reason
        late = made.late_body(SESSION)
        assert set(late) == KEYS
        assert late["session_id"] == SESSION
        if made.status == 200:
            assert late == made.body
        else:
            assert set(made.body) <= {"error", "message", "retry_after_seconds"}
            assert late["stderr"].startswith("[kubecoderun] ")


@pytest.mark.parametrize(
    "reason",
    [
        *("Succeeded", "NonZeroExit", "Signalled", "TimeLimit", "OOMKilled", "RuntimeLost"),
        *("OutputLimit", "DiskFull", "ProcessLimit", "OpenFilesLimit"),
    ],
)
def test_what_a_program_does_is_always_200(reason: str) -> None:
    assert answer(reason).status == 200
    assert answer(reason, result()).status == 200


@pytest.mark.parametrize(
    ("reason", "fields", "status", "message", "signal", "line"),
    [
        ("Succeeded", {}, None, None, None, ""),
        ("NonZeroExit", {"exitCode": 3}, None, None, None, ""),
        ("TimeLimit", {"exitCode": None}, "TO", "Time limit exceeded", "SIGKILL", "Time limit exceeded"),
        ("OOMKilled", {"exitCode": None}, "SG", "Out of memory", "SIGKILL", "Out of memory"),
        ("Cancelled", {"exitCode": None}, "SG", "Cancelled", "SIGKILL", "Cancelled"),
        (
            "Signalled",
            {"exitCode": None, "signal": "SIGSEGV"},
            "SG",
            "Killed by signal SIGSEGV",
            "SIGSEGV",
            "Killed by signal SIGSEGV",
        ),
        ("Succeeded", {"stdoutTruncated": True}, "OL", "stdout length exceeded", None, ""),
        (
            "OutputLimit",
            {"exitCode": None},
            "OL",
            "Output limit exceeded",
            "SIGKILL",
            "Output limit exceeded",
        ),
        ("DiskFull", {"exitCode": 1}, None, "No space left", None, "No space left"),
        ("ProcessLimit", {"exitCode": 1}, None, "Too many processes", None, "Too many processes"),
        (
            "OpenFilesLimit",
            {"exitCode": None, "signal": "SIGABRT"},
            "SG",
            "Too many open files",
            "SIGABRT",
            "Too many open files",
        ),
        (
            "TimeLimit",
            {"stdoutTruncated": True},
            "TO",
            "Time limit exceeded",
            "SIGKILL",
            "Time limit exceeded",
        ),
        (
            "SidecarLost",
            {"exitCode": None},
            "SG",
            "The sandbox stopped answering while the program ran.",
            None,
            "The sandbox stopped answering while the program ran.",
        ),
    ],
)
def test_status_message_signal_and_line(
    reason: str, fields: dict[str, Any], status: str, message: str, signal: str, line: str
) -> None:
    made = answer(reason, result(stderr="trace", **fields)).body
    assert (made["status"], made["message"], made["signal"]) == (status, message, signal)
    assert made["code"] == fields.get("exitCode", 0)
    assert made["stdout"] == "out\n"
    assert made["stderr"] == ("trace" if not line else f"trace\n[kubecoderun] {line}\n")


@pytest.mark.parametrize("reason", ["TimeLimit", "OOMKilled", "OutputLimit", "DiskFull"])
def test_what_the_sandbox_has_told_is_not_told_again(reason: str) -> None:
    told = "trace\n[kubecoderun] Some limit: do this instead.\n"
    made = answer(reason, result(stderr=told)).body
    assert made["stderr"] == told
    assert made["message"]


@pytest.mark.parametrize("phase", Phase)
def test_the_phase_does_not_matter(phase: Phase) -> None:
    assert answer("NonZeroExit", result(), phase=phase) == answer("NonZeroExit", result())


@given(st.binary(max_size=200))
def test_streams_in_base64_are_decoded(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    made = answer("Succeeded", {"exitCode": 0, "stdoutBase64": encoded, "stdoutBytes": len(data)}).body
    assert made["stdout"] == data.decode("utf-8", "replace")


def test_a_result_from_the_store_replaces_the_preview() -> None:
    status = result(stored=True, stdoutTruncated=True)
    stored = {"stdout": {"text": "all of it", "bytes": 9, "truncated": False}, "stderr": {"text": "e"}}
    made = answer("TimeLimit", status, stored).body
    assert (made["stdout"], made["stderr"]) == ("all of it", "e\n[kubecoderun] Time limit exceeded\n")
    stored["stdout"]["truncated"] = True
    assert answer("Succeeded", status, stored).body["status"] == "OL"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"stored": True}, False),
        ({"stored": True, "stderrTruncated": True}, True),
        ({"stored": False, "stdoutTruncated": True}, False),
        ({"stdoutTruncated": True}, False),
    ],
)
def test_when_the_store_has_more(fields: dict[str, Any], wanted: bool) -> None:
    assert answers.wants_stored({"result": result(**fields)}) is wanted
    assert not answers.wants_stored({})


def test_the_operators_words_about_an_invalid_request_are_passed_on() -> None:
    made = answer("InvalidRequest", message="timeoutSeconds is over the pool's maximum " + "x" * 500)
    assert made.status == 400
    assert made.body["message"].startswith("timeoutSeconds is over")
    assert len(made.body["message"]) == 300
    assert "internal" not in str(answer("PodLost", message="internal name").body)


OUTPUT = {"id": "f" * 21, "path": "a.csv", "bytes": 5}


def test_files_are_in_the_answer_however_the_program_ended() -> None:
    expected = {"id": "f" * 21, "name": "a.csv", "storage_session_id": SESSION, "session_id": SESSION}
    for reason in ("Succeeded", "NonZeroExit", "TimeLimit", "OOMKilled", "Signalled"):
        assert answer(reason, result(), files=[OUTPUT]).body["files"] == [expected]
    assert answer("Cancelled", result(), files=[OUTPUT]).body["files"] == [expected]
    origin = OUTPUT | {"modifiedFrom": {"session": "t" * 21, "id": "g" * 21}}
    assert answer("Succeeded", result(), files=[origin]).body["files"] == [
        expected | {"modified_from": {"id": "g" * 21, "storage_session_id": "t" * 21}}
    ]


def test_inputs_that_the_program_removed_are_told() -> None:
    assert answer("Succeeded", result(), deletedFiles=["in/a.csv"]).body["deleted_files"] == ["in/a.csv"]
    assert "deleted_files" not in answer("Succeeded", result()).body


def test_files_that_were_not_kept_are_the_last_line_of_stderr() -> None:
    skipped = {"skippedFiles": [{"path": "a", "reason": "total"}], "skippedFileCount": 1}
    made = answer("TimeLimit", result(stderr="trace"), **skipped).body
    assert made["stderr"] == (
        "trace\n[kubecoderun] Time limit exceeded\n"
        "[kubecoderun] 1 new or changed file not kept: a (too much together).\n"
    )
    assert made["message"] == "Time limit exceeded"


def test_a_program_without_its_input_is_a_200_with_text() -> None:
    for status, line in (
        ({"message": "The input file a.csv was removed."}, "The input file a.csv was removed."),
        ({}, "An input file is not available."),
    ):
        made = answer("InputUnavailable", **status)
        assert (made.status, made.reason) == (200, "InputUnavailable")
        assert made.body["stderr"].splitlines()[-1] == f"[kubecoderun] {line}"
        assert made.body["session_id"] == SESSION
        assert made.late_body(SESSION) == made.body
        assert set(made.body) == KEYS


def test_busy_is_what_the_clients_wait_for() -> None:
    made = answers.busy("PoolEmpty", 9)
    assert made.headers == {"retry-after": "9"}
    assert made.body == {
        "error": "rate_limited",
        "message": "No sandbox is free right now.",
        "retry_after_seconds": 9,
    }
    assert "9 seconds" in made.late_body(SESSION)["stderr"]


@pytest.mark.parametrize("name", list(answers.OWN_FAULTS))
def test_faults_of_the_front_end(name: str) -> None:
    made = answers.own_fault(name)
    assert made.status >= 400
    assert made.reason == name
    assert made.late_body(SESSION)["stderr"] == f"[kubecoderun] {made.body['message']}\n"

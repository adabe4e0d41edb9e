"""What goes into a session's status."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from kubecoderun_crds import names
from kubecoderun_crds.reasons import Phase, Reason, StartType
from kubecoderun_crds.session import SessionStatus
from kubecoderun_operator import outcomes
from kubecoderun_operator.members import Ending, Member, Trouble
from kubecoderun_operator.outcomes import Outcome, Record, held, lost, timestamp, with_cause
from kubecoderun_operator.outputs import report
from kubecoderun_sidecar.protocol import Captured, OutputFile, RunResult, SkippedFile, Usage

POD = Member(
    "ns", "python-1", "pod-uid", "python", "p", "r", "assigned", 1, 0.0, ip="10.0.0.1", node="n1", ready=True
)


def result(**changes: Any) -> RunResult:
    made = RunResult(
        reason="Succeeded",
        exit_code=0,
        signal=None,
        started_at="2026-01-01T00:00:00.000001Z",
        finished_at="2026-01-01T00:00:01.000002Z",
        stored_at=None,
        stdout=Captured("out\n", None, 4, False),
        stderr=Captured("", None, 0, False),
        stored=False,
        usage=Usage(0.5, 1024, 1.0),
    )
    return replace(made, **changes)


def ended(found: RunResult, limit_seconds: int) -> Outcome:
    return outcomes.ended(found, limit_seconds, report(found, "hello", {}))


def completed(outcome: Outcome) -> dict[str, Any]:
    record = Record(3, 7, attempts=1, start_type=StartType.WARM, timings={"queued": timestamp(0)})
    record.name_pod(POD)
    made = record.completed(outcome, 5.0)
    SessionStatus.model_validate(made)
    return made


def test_a_success() -> None:
    assert completed(ended(result(), 30)) == {
        "observedGeneration": 3,
        "phase": "Succeeded",
        "reason": "Succeeded",
        "message": "exit code 0",
        "startType": "Warm",
        "attempts": 1,
        "epoch": 7,
        "pod": {"name": "python-1", "uid": "pod-uid", "ip": "10.0.0.1", "node": "n1"},
        "timings": {
            "queued": "1970-01-01T00:00:00.000000Z",
            "started": "2026-01-01T00:00:00.000001Z",
            "finished": "2026-01-01T00:00:01.000002Z",
            "completed": "1970-01-01T00:00:05.000000Z",
        },
        "result": {
            "exitCode": 0,
            "stdout": "out\n",
            "stdoutBytes": 4,
            "stdoutTruncated": False,
            "stderr": "",
            "stderrBytes": 0,
            "stderrTruncated": False,
            "stored": False,
        },
        "usage": {"cpuSeconds": 0.5, "maxRssBytes": 1024, "wallSeconds": 1.0},
        "fileCount": 0,
        "conditions": [
            {
                "type": "Completed",
                "status": "True",
                "reason": "Succeeded",
                "message": "exit code 0",
                "lastTransitionTime": "1970-01-01T00:00:05.000000Z",
                "observedGeneration": 3,
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "phase", "message"),
    [
        ({"reason": "NonZeroExit", "exit_code": 3}, Phase.FAILED, "exit code 3"),
        ({"reason": "Signalled", "exit_code": None, "signal": "SIGSEGV"}, Phase.FAILED, "ended by SIGSEGV"),
        (
            {"reason": "TimeLimit", "exit_code": None, "signal": "SIGKILL"},
            Phase.TIMED_OUT,
            "killed after 30 s",
        ),
        (
            {"reason": "Cancelled", "exit_code": None, "started_at": None},
            Phase.CANCELLED,
            "spec.cancel was set",
        ),
        ({"reason": "OOMKilled", "exit_code": None}, Phase.FAILED, "more memory"),
        (
            {"reason": "RuntimeLost", "exit_code": None, "detail": "the channel closed"},
            Phase.FAILED,
            "; the channel closed",
        ),
        ({"store_error": "403"}, Phase.SUCCEEDED, "exit code 0; the full output was not stored: 403"),
    ],
)
def test_endings(changes: dict[str, Any], phase: Phase, message: str) -> None:
    made = completed(ended(result(**changes), 30))
    assert made["phase"] == phase
    assert message in made["message"]


@pytest.mark.parametrize(
    ("captured", "expected"),
    [
        (Captured("zażółć\tgęślą\n", None, 20, False), {"stdout": "zażółć\tgęślą\n"}),
        (
            Captured("\x1b[31mred", None, 8, False),
            {"stdoutBase64": base64.b64encode(b"\x1b[31mred").decode()},
        ),
        (Captured("a\rb", None, 3, False), {"stdoutBase64": base64.b64encode(b"a\rb").decode()}),
        (
            Captured("\u202eevil", None, 7, False),
            {"stdoutBase64": base64.b64encode("\u202eevil".encode()).decode()},
        ),
        (Captured(None, "/w==", 1, False), {"stdoutBase64": "/w=="}),
        (Captured(None, None, 0, False), {"stdout": ""}),
    ],
)
def test_text_only_if_a_terminal_can_print_it(captured: Captured, expected: dict[str, str]) -> None:
    found = completed(ended(result(stdout=captured), 30))["result"]
    assert {key: value for key, value in found.items() if key in ("stdout", "stdoutBase64")} == expected


def test_an_oversized_preview_is_cut() -> None:
    long = Captured("x" * 40_000, None, 40_000, False)
    found = completed(ended(result(stdout=long, stderr=long), 30))["result"]
    assert (found["stdout"], found["stdoutTruncated"]) == ("x" * 16_384, True)
    assert found["stderr"] == "x" * 12_288 + "\n[... 23616 bytes omitted ...]\n" + "x" * 4096
    assert found["stderrTruncated"] is True
    raw = base64.b64encode(b"\xff" * 40_000).decode()
    found = completed(ended(result(stdout=Captured(None, raw, 40_000, False)), 30))["result"]
    assert len(base64.b64decode(found["stdoutBase64"])) == 16_640
    assert found["stdoutTruncated"] is True


@pytest.mark.parametrize("signal", ["SIG\x1b", "SIG" + "A" * 30, "killed", ""])
def test_a_runner_that_lies_about_its_signal(signal: str) -> None:
    made = completed(ended(result(reason="Signalled", exit_code=None, signal=signal), 30))
    assert "signal" not in made["result"]
    assert made["message"] == "ended by a signal"


def test_times_that_are_none_are_left_out() -> None:
    made = completed(ended(result(started_at="yesterday", finished_at="2026-01-01T00:00:00"), 30))
    assert set(made["timings"]) == {"queued", "completed"}


def test_unknown_usage_is_left_out() -> None:
    assert completed(ended(result(usage=Usage(None, None, 2.0)), 30))["usage"] == {"wallSeconds": 2.0}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (replace(POD, runtime_ending=Ending("OOMKilled", 137)), "OOMKilled"),
        (replace(POD, runtime_ending=Ending("Error", 143)), "RuntimeLost"),
        (replace(POD, runtime_ending=Ending("Error", 143), deleting=True), "PodLost"),
        (replace(POD, runtime_ending=Ending("Error", 137), pod_reason="DeadlineExceeded"), "TimeLimit"),
        (replace(POD, pod_reason="Evicted", message="disk"), "PodLost"),
        (None, "PodLost"),
        (POD, "RuntimeLost"),
    ],
)
def test_why_a_runtime_died(pod: Member | None, reason: str) -> None:
    made = completed(with_cause(ended(result(reason="RuntimeLost", exit_code=None), 30), pod))
    assert made["reason"] == reason
    assert made["result"]["stdout"] == "out\n"
    assert made["result"].get("signal") == (None if reason == "RuntimeLost" else "SIGKILL")


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (None, Reason.POD_LOST),
        (replace(POD, deleting=True), Reason.POD_LOST),
        (replace(POD, pod_reason="Evicted", trouble=Trouble.ENDED), Reason.POD_LOST),
        (replace(POD, pod_reason="DeadlineExceeded"), Reason.TIME_LIMIT),
        (replace(POD, pod_reason="NodeLost"), Reason.NODE_LOST),
        (replace(POD, runtime_ending=Ending("OOMKilled", 137)), Reason.OOM_KILLED),
        (replace(POD, sidecar_ending=Ending("Error", 1)), Reason.SIDECAR_LOST),
        (replace(POD, runtime_ending=Ending("Error", 1)), Reason.RUNTIME_LOST),
        (replace(POD, ready=False), Reason.NODE_LOST),
        (POD, Reason.SIDECAR_LOST),
    ],
)
def test_why_a_sidecar_cannot_be_reached(pod: Member | None, reason: Reason) -> None:
    outcome = lost(pod)
    assert outcome.reason is reason
    assert completed(outcome)["message"]


def test_messages_are_made_printable_and_short() -> None:
    made = completed(Outcome(Reason.OPERATOR_ERROR, "\x1b]0;title" + "y" * 3000))
    assert made["message"].startswith("\\x1b]0;title")
    assert len(made["message"]) == 1024


def test_statuses_on_the_way() -> None:
    record = Record(1, 2)
    queued = record.queued()
    SessionStatus.model_validate(queued)
    assert (queued["phase"], queued["reason"]) == ("Queued", "WaitingForPod")
    record.name_pod(POD)
    running = record.running()
    SessionStatus.model_validate(running)
    assert running["phase"] == "Running"
    assert "reason" not in running
    assert running["pod"]["name"] == "python-1"


def test_a_stored_result_is_shortened_to_what_fits_into_a_status() -> None:
    long = "é" * 30_000
    kept = Captured(long, None, 60_000, False)
    found = ended(result(stdout=kept, stderr=kept, stored=True), 30).result
    assert found is not None
    assert found["stdoutTruncated"] is True
    assert found["stdoutBytes"] == 60_000
    assert found["stdout"] == "é" * 8192
    text = found["stderr"]
    assert len(text.encode()) <= 16_640
    head, note, tail = text.partition("\n[... ")
    assert set(head) == {"é"}
    assert note
    assert tail.endswith("é")
    omitted = int(tail.split(" ", 1)[0])
    assert len(head.encode()) + omitted + len(tail.partition("]\n")[2].encode()) == 60_000


# --- files --------------------------------------------------------------------------------------------

PREFIX = names.file_id_prefix("hello")
TABLE = OutputFile(PREFIX + "00000001", "out/table.csv", 5)


def test_files_and_what_was_not_kept() -> None:
    skipped = (SkippedFile("big.bin", "size"), SkippedFile("more", "count"))
    made = completed(ended(result(files=(TABLE,), skipped=skipped, skipped_count=7), 30))
    assert made["files"] == [{"id": TABLE.id, "path": "out/table.csv", "bytes": 5}]
    assert (made["fileCount"], made["skippedFileCount"]) == (1, 7)
    assert made["skippedFiles"] == [
        {"path": "big.bin", "reason": "size"},
        {"path": "more", "reason": "count"},
    ]
    said = "exit code 0; 7 files were not kept: big.bin (too large), more (too many files), 5 more"
    assert made["message"] == said


def test_files_of_a_run_whose_runtime_died_are_kept() -> None:
    skipped = (SkippedFile("big.bin", "store"),)
    found = ended(result(reason="RuntimeLost", exit_code=None, files=(TABLE,), skipped=skipped), 30)
    made = completed(with_cause(found, replace(POD, runtime_ending=Ending("OOMKilled", 137, ""))))
    assert (made["reason"], made["fileCount"], len(made["files"])) == ("OOMKilled", 1, 1)
    assert "; 1 file was not kept: big.bin (the object store did not take it)" in made["message"]


def test_memory_as_the_cause_comes_with_advice() -> None:
    """Where the kernel was faster than the runner, only the node knows."""
    found = ended(result(reason="RuntimeLost", exit_code=None, stderr=Captured("half a line", bytes=11)), 30)
    oom = replace(POD, runtime_ending=Ending("OOMKilled", 137, ""))
    made = completed(with_cause(found, oom))
    assert made["result"]["stderr"].startswith("half a line\n[kubecoderun] Memory limit: ")
    assert made["result"]["stderrBytes"] == 11
    binary = ended(result(reason="RuntimeLost", exit_code=None, stderr=Captured(None, "/w==", 1)), 30)
    assert "stderr" not in completed(with_cause(binary, oom))["result"]


def test_an_eviction_for_scratch_space_is_a_full_disk() -> None:
    message = 'Usage of EmptyDir volume "data" exceeds the limit "256Mi".'
    evicted = replace(POD, pod_reason="Evicted", message=message)
    found = ended(result(reason="RuntimeLost", exit_code=None), 30)
    assert completed(with_cause(found, evicted))["reason"] == "DiskFull"
    assert message in lost(evicted).message
    assert lost(replace(evicted, message="The node was low on resource: memory.")).reason == "PodLost"


def test_a_session_that_keeps_files() -> None:
    made = Record(1, 2).completed(held(3), 5.0)
    SessionStatus.model_validate(made)
    assert (made["phase"], made["reason"], made["fileCount"], made["message"]) == (
        "Held",
        "FilesHeld",
        3,
        "3 files",
    )
    assert made["timings"] == {"completed": "1970-01-01T00:00:05.000000Z"}
    assert "files" not in made
    assert Record(1, 2).completed(held(1), 5.0)["message"] == "1 file"


def test_one_more_remark() -> None:
    assert Outcome(Reason.TIME_LIMIT, "killed").with_note("cut").message == "killed; cut"
    assert Outcome(Reason.SUCCEEDED).with_note("cut").message == "exit code 0; cut"
    assert Outcome(Reason.SUCCEEDED, "x").with_note("").message == "x"

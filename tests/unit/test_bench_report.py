"""What the benchmark shows and keeps."""

from pathlib import Path
from typing import Any

import pytest

from bench.latency import instant, offsets
from bench.node_log import NoAuditLogError, NodeLog
from bench.readiness import compared, template_spec
from bench.report import git_commit, other_lines, table
from bench.system import Run, ready_uids, wrong
from e2e.frontend import Answer, parse
from e2e.stats import Memory, memories


def run(body: bytes = b'{"stdout": "1\\n"}', status: int = 200) -> Run:
    return Run(asked=100.0, answered=100.5, seconds=0.5, answer=Answer(status, {}, body, 0.5, parse(body)))


def test_table_marks_what_misses_its_aim() -> None:
    latency = {
        "n": 100,
        "errors": 0,
        "min_ms": 1.0,
        "p50_ms": 26.0,
        "p90_ms": 30.0,
        "p99_ms": 59.0,
        "max_ms": 70.0,
    }
    lines = table({"exec_print_1": latency, "exec_pandas_1": latency}).splitlines()
    assert lines[2].endswith("26.0      30.0      59.0      70.0   p50 25 MISSED, p99 60")
    assert lines[3].endswith("70.0")


def test_other_figures_stand_beside_what_is_wanted() -> None:
    writes = {"n": 20, "errors": 0, "own_writes": 6.1, "in_detail": {"operator patch pods": 1.0}}
    assert other_lines("api_writes_per_session", writes) == [
        "api_writes_per_session.own_writes = 6.1   wanted <= 8",
        "api_writes_per_session:    1.0 operator patch pods",
    ]
    assert other_lines("x", {"skipped": "no log"}) == ["x: skipped no log"]


def test_offsets_are_relative_to_the_request() -> None:
    timings = {
        "queued": "1970-01-01T00:01:40.010000Z",
        "finished": "1970-01-01T00:01:40.250000+00:00",
        "stored": None,
    }
    found = offsets(run(), timings)
    assert {name: round(value, 3) for name, value in found.items()} == {
        "queued": 0.01, "finished": 0.25, "answered": 0.5,
    }  # fmt: skip
    assert instant("1970-01-01T00:00:01Z") == 1.0


@pytest.mark.parametrize(
    ("answered", "fault"),
    [
        (run(), None),
        (run(b"{}"), "stdout None"),
        (run(b"  \n no", 500), "status 500"),
        (run(b'{"stdout": "2"}'), "'2'"),
    ],
)
def test_wrong_answers(answered: Run, fault: str | None) -> None:
    found = wrong(answered, "1\n")
    assert found is None if fault is None else fault in str(found)


def test_pool_against_replicaset() -> None:
    figures = compared([1.2, 1.4, 1.6], [1.0, 1.1, 2.0], [1.5])
    assert (figures["n"], figures["ratio"], figures["replicaset_p50_ms"], figures["p50_ms"]) == (
        3,
        1.27,
        1100,
        1400,
    )


def test_a_pods_spec_as_a_template() -> None:
    spec: dict[str, Any] = {
        "nodeName": "n",
        "priority": 0,
        "restartPolicy": "Never",
        "containers": [{"name": "a"}],
    }
    assert template_spec(spec) == {"restartPolicy": "Always", "containers": [{"name": "a"}]}


def test_pods_that_are_ready() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pods: list[dict[str, Any]] = [
        {"metadata": {"uid": "a"}, "status": ready},
        {"metadata": {"uid": "b", "deletionTimestamp": "x"}, "status": ready},
        {"metadata": {"uid": "c"}, "status": {}},
    ]
    assert ready_uids(pods) == {"a"}


def test_memory_of_containers_that_were_measured() -> None:
    pod = {
        "podRef": {"name": "p", "namespace": "n"},
        "containers": [{"name": "a", "memory": {"workingSetBytes": 10, "rssBytes": 5}}, {"name": "b"}],
    }
    assert memories({"pods": [pod]}) == [Memory("n", "p", "a", 10, 5)]


def test_no_audit_log_in_a_foreign_cluster() -> None:
    with pytest.raises(NoAuditLogError, match="no kind cluster"):
        NodeLog("production")


def test_commit_of_a_folder_without_git(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == "unknown"

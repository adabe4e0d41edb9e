"""Workspaces on the cluster: over HTTP by a hint, and by kubectl."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.deployment import PODS, SESSIONS
from e2e.frontend import Answer, FrontEnd
from e2e.kube import Kube, Object
from e2e.pools import ended, fresh_name, running, session_manifest
from e2e.waiting import eventually
from e2e.workloads import kill, wait_replaced

pytestmark = pytest.mark.cluster
Create = Callable[[Object], str]


@pytest.fixture
def hint(kube: Kube) -> Iterator[str]:
    """A hint that nobody else uses; its workspace is deleted after the test."""
    before = workspaces(kube)
    yield f"v2:conversation:{secrets.token_hex(16)}"
    for name in workspaces(kube) - before:
        kube.delete(f"{SESSIONS}/{name}")


def workspaces(kube: Kube) -> set[str]:
    """Names of those that the front end has made."""
    return {
        one["metadata"]["name"]
        for one in kube.items(SESSIONS)
        if one["spec"]["request"].get("mode") == "Workspace" and one["metadata"]["name"].startswith("ws-")
    }


def workspace_manifest(name: str, pool: str, **limits: int) -> Object:
    made = session_manifest(name, pool, "")
    made["spec"]["request"] = {"mode": "Workspace", "poolRef": {"name": pool}, "workspace": limits}
    return made


def run_manifest(name: str, workspace: str, code: str, **request: object) -> Object:
    made = session_manifest(name, "", code, **request)
    made["spec"]["request"]["workspaceRef"] = {"name": workspace}
    del made["spec"]["request"]["poolRef"]
    return made


def active(kube: Kube, name: str) -> Object:
    """The workspace once it has its pod."""

    def look() -> Object | None:
        found = kube.session(name)
        return found if found.get("status", {}).get("phase") == "Active" else None

    return eventually(look, f"workspace {name} is active")


def pod_of(kube: Kube, answer: Answer) -> str:
    return str(kube.session(answer.session)["status"]["pod"]["name"])


def test_files_persist_and_processes_do_not(
    front_end: FrontEnd, kube: Kube, full_pool: str, hint: str
) -> None:
    first = front_end.exec(
        "import subprocess; subprocess.Popen(['sleep', '500'], start_new_session=True)\n"
        "open('state.txt', 'w').write('kept'); x = 1",
        runtime_session_hint=hint,
    )
    assert (first.status, first["runtime_status"]) == (200, "new"), first.parsed
    assert [file["name"] for file in first["files"]] == ["state.txt"]
    second = front_end.exec(
        "import os\n"
        "print(open('state.txt').read(), 'x' in globals())\n"
        "seen = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "print([p for p in seen if b'sleep' in open(f'/proc/{p}/cmdline', 'rb').read()])",
        runtime_session_hint=hint,
    )
    assert (second["runtime_status"], second["stdout"]) == ("reused", "kept False\n[]\n")
    assert second["files"] == []
    assert first["runtime_session_id"] == second["runtime_session_id"]
    assert pod_of(kube, first) == pod_of(kube, second)


def test_many_runs_take_turns(front_end: FrontEnd, kube: Kube, full_pool: str, hint: str) -> None:
    code = (
        "import os, time\n"
        "fd = os.open('lock', os.O_CREAT | os.O_EXCL)\n"
        "time.sleep(0.1); os.unlink('lock'); os.close(fd)\n"
        "open('log', 'a').write('x'); print(len(open('log').read()))"
    )
    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(front_end.exec, code, runtime_session_hint=hint) for _ in range(12)]
        answers = [call.result() for call in calls]
    assert [answer.status for answer in answers] == [200] * 12
    assert sorted(int(answer["stdout"]) for answer in answers) == list(range(1, 13)), (
        "none ran beside another"
    )
    assert len({pod_of(kube, answer) for answer in answers}) == 1
    assert sorted(answer["runtime_status"] for answer in answers) == ["new"] + ["reused"] * 11


def test_another_hint_is_another_machine(front_end: FrontEnd, kube: Kube, full_pool: str, hint: str) -> None:
    mine = front_end.exec("open('secret', 'w').write('1')", runtime_session_hint=hint)
    other = front_end.exec("import os; print(os.path.exists('secret'))", runtime_session_hint=f"{hint}.other")
    assert (other["runtime_status"], other["stdout"]) == ("new", "False\n")
    assert pod_of(kube, mine) != pod_of(kube, other)
    plain = front_end.exec("import os; print(os.listdir('.'))")
    assert plain["stdout"] == "['main.py']\n"
    assert "runtime_status" not in plain.parsed


def test_a_pod_that_is_lost_between_runs(front_end: FrontEnd, kube: Kube, full_pool: str, hint: str) -> None:
    first = front_end.exec("open('state.txt', 'w').write('1')", runtime_session_hint=hint)
    kube.kubectl("delete", "pod", pod_of(kube, first), "--grace-period=0", "--force")
    second = front_end.exec("import os; print(os.path.exists('state.txt'))", runtime_session_hint=hint)
    assert (second.status, second["runtime_status"], second["stdout"]) == (200, "new", "False\n")
    assert second["runtime_session_id"] == first["runtime_session_id"]


def test_a_pod_that_is_lost_during_a_run(front_end: FrontEnd, kube: Kube, full_pool: str, hint: str) -> None:
    first = front_end.exec("print(1)", runtime_session_hint=hint)
    with ThreadPoolExecutor(2) as threads:
        lost = threads.submit(
            front_end.exec, "import time; time.sleep(60)", runtime_session_hint=hint, timeout=90_000
        )
        eventually(lambda: len(runs_in_progress(kube)) > 0, "the run is in progress")
        waiting = threads.submit(front_end.exec, "print('elsewhere')", runtime_session_hint=hint)
        time.sleep(1.0)
        began = time.monotonic()
        kube.kubectl("delete", "pod", pod_of(kube, first), "--grace-period=0", "--force")
        told, moved = lost.result(), waiting.result()
    assert "removed" in told["stderr"] or "stopped answering" in told["stderr"], told.parsed
    assert (moved["stdout"], moved["runtime_status"]) == ("elsewhere\n", "new")
    assert time.monotonic() - began < 60


def runs_in_progress(kube: Kube) -> list[Object]:
    return [
        one
        for one in kube.items(SESSIONS)
        if "workspaceRef" in one["spec"]["request"] and one.get("status", {}).get("phase") == "Running"
    ]


def test_idle_time_counts_work_in_flight(kube: Kube, full_pool: str, own_session: Create) -> None:
    name = own_session(workspace_manifest(fresh_name("idle"), full_pool, idleTimeoutSeconds=5))
    run = own_session(run_manifest(fresh_name("long"), name, "import time; time.sleep(12); print('end')"))
    assert ended(kube, run)["status"]["result"]["stdout"] == "end\n"
    assert kube.session(name)["status"]["phase"] == "Active"
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("TimedOut", "IdleTimeout")
    eventually(lambda: kube.find(f"{PODS}/{status['pod']['name']}") is None, "its pod goes")


@pytest.mark.parametrize("grace", [30, 0], ids=["asked to stop", "killed"])
def test_the_operator_is_replaced_during_a_run(
    kube: Kube, full_pool: str, own_session: Create, grace: int
) -> None:
    name = own_session(workspace_manifest(fresh_name("keep"), full_pool))
    before = own_session(run_manifest(fresh_name("a"), name, "open('f', 'w').write('1')"))
    ended(kube, before)
    code = "import time\nprint(open('f').read(), flush=True)\ntime.sleep(20)\nprint('end')"
    during = own_session(run_manifest(fresh_name("b"), name, code, timeoutSeconds=120))
    running(kube, during)
    after = own_session(run_manifest(fresh_name("c"), name, "print(open('f').read())"))
    old = kill(kube, "kubecoderun-operator", grace)
    assert ended(kube, during)["status"]["result"]["stdout"] == "1\nend\n"
    status = ended(kube, after)["status"]
    assert (status["result"]["stdout"], status["workspaceRun"]["number"]) == ("1\n", 3)
    found = active(kube, name)["status"]
    assert (found["attempts"], found["pod"]["uid"]) == (1, status["pod"]["uid"])
    wait_replaced(kube, "kubecoderun-operator", old)


def test_kubectl_shows_and_ends_a_workspace(kube: Kube, full_pool: str, own_session: Create) -> None:
    name = own_session(workspace_manifest(fresh_name("shown"), full_pool))
    run = own_session(run_manifest(fresh_name("in"), name, "print(1)"))
    ended(kube, run)
    going = own_session(
        run_manifest(fresh_name("on"), name, "import time; time.sleep(300)", timeoutSeconds=300)
    )
    pod = running(kube, going)["status"]["pod"]["name"]
    head, line = kube.kubectl("get", "esess", name, "-o", "wide").stdout.splitlines()[:2]
    assert "RUNS" in head
    assert line.split()[:3] == [name, "Active", full_pool]
    assert pod in line
    assert name in kube.kubectl("get", "esess", run, "-o", "wide").stdout
    kube.kubectl("delete", "esess", name)
    assert ended(kube, going)["status"]["reason"] in ("Cancelled", "PodLost")
    eventually(lambda: kube.find(f"{PODS}/{pod}") is None, "the pod goes with its workspace")


def test_another_tenant_has_another_workspace(kube: Kube, full_pool: str, own_session: Create) -> None:
    made = workspace_manifest(fresh_name("mine"), full_pool)
    made["spec"]["request"]["tenant"] = "a"
    name = own_session(made)
    active(kube, name)
    other = own_session(run_manifest(fresh_name("theirs"), name, "print(1)", tenant="b"))
    assert ended(kube, other)["status"]["reason"] == "WorkspaceNotFound"
    mine = own_session(run_manifest(fresh_name("ours"), name, "print(1)", tenant="a"))
    assert ended(kube, mine)["status"]["phase"] == "Succeeded"

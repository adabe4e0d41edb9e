"""Any process may die at any moment: what is left keeps its promises."""

import http.client
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.deployment import SESSIONS
from e2e.frontend import FrontEnd, exec_body
from e2e.kube import MERGE_PATCH, Kube
from e2e.pools import TERMINAL, ended, fresh_name, running, session_manifest, wait_at_target
from e2e.waiting import eventually
from e2e.workloads import (
    DEPLOYMENTS,
    LEASE,
    OPERATOR,
    kill,
    kill_leader,
    leader,
    pods_of,
    wait_ready,
    wait_replaced,
)

pytestmark = pytest.mark.cluster


def answers(front_end: FrontEnd) -> bool:
    """Whether a program is answered; a connection that breaks while the service returns counts as no."""
    try:
        return front_end.exec("print('back')").parsed.get("stdout") == "back\n"
    except (OSError, http.client.HTTPException):
        return False


def test_front_end_killed_while_idle(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    old = kill(kube, "kubecoderun-api", grace=0)
    wait_replaced(kube, "kubecoderun-api", old)
    eventually(lambda: answers(front_end), "the service answers again")


def test_front_end_killed_during_a_run(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """The caller loses the connection, but the session it made ends like any other, and its pod goes."""
    before = {session["metadata"]["name"] for session in kube.items(SESSIONS)}
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(front_end.exec, "import time\ntime.sleep(6)")
        name = eventually(lambda: new_session(kube, before), "the call's session appears")
        running(kube, name)
        old = kill(kube, "kubecoderun-api", grace=0)
        broken = call.exception()
        assert broken is None or isinstance(broken, OSError | http.client.HTTPException)
    ended(kube, name)
    wait_replaced(kube, "kubecoderun-api", old)
    eventually(lambda: answers(front_end), "the service answers again")
    wait_at_target(kube, full_pool)


def new_session(kube: Kube, before: set[str]) -> str | None:
    """Name of a session that was not there before."""
    names = {session["metadata"]["name"] for session in kube.items(SESSIONS)} - before
    return next(iter(names), None)


def test_two_operators_are_ready_and_the_lease_names_the_leader(kube: Kube) -> None:
    wait_ready(kube, OPERATOR)
    pods = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods_of(kube, OPERATOR)}
    assert len(pods) == 2
    name, _, uid = kube.request("GET", LEASE)["spec"]["holderIdentity"].partition("_")
    assert pods[name] == uid
    table = kube.kubectl("-n", "kubecoderun-system", "get", "lease", OPERATOR).stdout
    assert name in table


@pytest.mark.parametrize("grace", [30, 0], ids=["asked to stop", "killed"])
def test_the_standby_takes_over_during_a_run(
    front_end: FrontEnd, kube: Kube, full_pool: str, grace: int
) -> None:
    """The one that stood by re-attaches to the run: one answer, the right one, from the first attempt."""
    wait_ready(kube, OPERATOR)
    name = fresh_name("attach")
    code = "import time\nprint('begin', flush=True)\ntime.sleep(20)\nprint('end')"
    kube.apply(session_manifest(name, full_pool, code, timeoutSeconds=120))
    pod = running(kube, name)["status"]["pod"]
    before = leader(kube)
    assert kill_leader(kube, grace) == before
    # Not always the one that stood by: the leader's successor may be there before the Lease runs out.
    eventually(lambda: leader(kube) not in ("", before), "another one leads")
    # It works, and not only because the other one had begun: a call from now on is answered as well.
    eventually(lambda: answers(front_end), "the service answers again")
    status = ended(kube, name)["status"]
    assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "begin\nend\n")
    assert (status["pod"]["uid"], status["attempts"]) == (pod["uid"], 1)
    kube.kubectl("delete", f"executionsession/{name}")
    wait_ready(kube, OPERATOR)
    wait_at_target(kube, full_pool)


@pytest.mark.parametrize("grace", [30, 0], ids=["asked to stop", "killed"])
def test_all_operators_replaced_during_a_run(
    front_end: FrontEnd, kube: Kube, full_pool: str, grace: int
) -> None:
    """The next operator re-attaches to the run: one answer, the right one, from the first attempt."""
    name = fresh_name("attach")
    code = "import time\nprint('begin', flush=True)\ntime.sleep(25)\nprint('end')"
    kube.apply(session_manifest(name, full_pool, code, timeoutSeconds=120))
    pod = running(kube, name)["status"]["pod"]
    old = kill(kube, OPERATOR, grace)
    status = ended(kube, name)["status"]
    assert status["phase"] in TERMINAL
    assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "begin\nend\n")
    assert (status["pod"]["uid"], status["attempts"]) == (pod["uid"], 1)
    wait_replaced(kube, OPERATOR, old)
    kube.kubectl("delete", f"executionsession/{name}")
    eventually(lambda: answers(front_end), "the service answers again")
    wait_at_target(kube, full_pool)


def test_warm_pods_survive_the_operator(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """Nothing is made or thrown away because the operator starts again."""
    before = {pod["metadata"]["uid"] for pod in kube.pods(full_pool)}
    wait_replaced(kube, OPERATOR, kill(kube, OPERATOR, grace=0))
    assert answers(front_end)
    after = {pod["metadata"]["uid"] for pod in kube.pods(full_pool)}
    assert len(before & after) >= len(before) - 1, "one pod was used for the answer, the others are the same"
    wait_at_target(kube, full_pool)


def test_sessions_made_while_no_operator_runs(kube: Kube, full_pool: str) -> None:
    """They wait in the API server and are run by the next one."""
    scale = f"{DEPLOYMENTS}/{OPERATOR}/scale"
    replicas = kube.request("GET", scale)["spec"]["replicas"]
    name = fresh_name("early")
    try:
        kube.kubectl("-n", "kubecoderun-system", "scale", "deployment/kubecoderun-operator", "--replicas=0")
        eventually(lambda: pods_of(kube, OPERATOR) == [], "no operator runs")
        kube.apply(session_manifest(name, full_pool, "print('served')"))
    finally:
        kube.request("PATCH", scale, {"spec": {"replicas": replicas}}, MERGE_PATCH)
    assert ended(kube, name)["status"]["result"]["stdout"] == "served\n"
    kube.kubectl("delete", f"executionsession/{name}")
    wait_ready(kube, OPERATOR)


def test_caller_hangs_up(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """A run nobody waits for any more is stopped, and its pod goes."""
    before = {session["metadata"]["name"] for session in kube.items(SESSIONS)}
    connection = front_end.connection()
    connection.request(
        "POST", "/v1/exec", exec_body("import time\ntime.sleep(280)", timeout=280_000), front_end.headers()
    )
    name = eventually(lambda: new_session(kube, before), "the call's session appears")
    running(kube, name)
    connection.close()
    assert ended(kube, name)["status"]["reason"] == "Cancelled"
    wait_at_target(kube, full_pool)

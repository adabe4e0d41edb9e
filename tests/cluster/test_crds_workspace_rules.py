"""What the API server refuses about workspaces and their runs: added, changed, removed or wiped."""

from itertools import count
from typing import Any

import pytest

from cluster.kubectl import Json, Kubectl, nested, patch_arguments, removals_refused

pytestmark = pytest.mark.cluster

SERIAL = count(1)
AT = "2027-01-01T00:00:00.5Z"
POD = {"name": "python-abcdefgh", "uid": "11111111-2222-3333-4444-555555555555"}
ACTIVE: Json = {
    "phase": "Active",
    "attempts": 1,
    "epoch": 3,
    "pod": POD,
    "workspace": {"idleTimeoutSeconds": 900, "endsAt": AT, "runs": 2, "lastUsed": AT},
}
RUNS_NOTHING = "a session of mode Workspace must have poolRef, and runs nothing itself"
ONLY_WORKSPACES = "only a session of mode Workspace may have workspace"


def session(**request: Any) -> Json:
    """A session to create; a value of None leaves a field out."""
    return {
        "apiVersion": "kubecoderun.io/v1alpha1",
        "kind": "ExecutionSession",
        "metadata": {"name": f"w{next(SERIAL)}"},
        "spec": {"request": {key: value for key, value in request.items() if value is not None}},
    }


def workspace(**request: Any) -> Json:
    """A workspace to create."""
    return session(**{"mode": "Workspace", "poolRef": {"name": "python"}, **request})


def run(**request: Any) -> Json:
    """A run in a workspace to create."""
    return session(**{"workspaceRef": {"name": "mine"}, "language": "py", "code": "1", **request})


def created(kubectl: Kubectl, thing: Json, status: Json | None = None) -> str:
    """Name of the new session, with that status."""
    name = str(kubectl.create(thing)["metadata"]["name"])
    if status is not None:
        kubectl.out(*patch_arguments("esess", name, {"status": status}, "status"))
    return name


def test_a_workspace_and_its_runs(kubectl: Kubectl) -> None:
    limits = {"idleTimeoutSeconds": 5, "maxLifetimeSeconds": 604_800}
    assert kubectl.create(workspace(workspace=limits))["spec"]["request"]["workspace"] == limits
    assert kubectl.create(workspace(tenant="me"))["spec"]["request"]["mode"] == "Workspace"
    assert kubectl.create(run())["spec"]["request"]["workspaceRef"] == {"name": "mine"}
    assert "poolRef" in kubectl.create(run(poolRef={"name": "python"}))["spec"]["request"]


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (workspace(poolRef=None), RUNS_NOTHING),
        (workspace(language="py"), RUNS_NOTHING),
        (workspace(code="1"), RUNS_NOTHING),
        (workspace(codeRef={"bytes": 1, "sha256": "a" * 64}), RUNS_NOTHING),
        (workspace(timeoutSeconds=3), RUNS_NOTHING),
        (workspace(workspaceRef={"name": "other"}), RUNS_NOTHING),
        (workspace(files=[{"id": "a" * 21, "path": "a", "bytes": 1}]), "there must be files in mode Files"),
        (workspace(workspace={"idleTimeoutSeconds": 4}), "should be greater than or equal to 5"),
        (workspace(workspace={"maxLifetimeSeconds": 604_801}), "should be less than or equal to 604800"),
        (run(workspace={}), ONLY_WORKSPACES),
        (run(workspace={"idleTimeoutSeconds": 60}), ONLY_WORKSPACES),
        (run(workspaceRef={"name": "a.b"}), "workspaceRef.name"),
        (run(workspaceRef=None), "poolRef or workspaceRef"),
        (run(language=None), "poolRef or workspaceRef"),
    ],
)
def test_requests_that_make_no_sense(kubectl: Kubectl, thing: Json, said: str) -> None:
    assert said in kubectl.create_refused(thing)


@pytest.mark.parametrize(
    ("thing", "field", "other"),
    [
        (run(), "workspaceRef", {"name": "other"}),
        (workspace(workspace={"idleTimeoutSeconds": 60}), "workspace", {"idleTimeoutSeconds": 90}),
        (workspace(), "mode", "Run"),
    ],
)
def test_what_a_session_is_for_stays(kubectl: Kubectl, thing: Json, field: str, other: Any) -> None:
    name = created(kubectl, thing)
    for said in removals_refused(kubectl, name, f"spec/request/{field}", None):
        assert "the request must not be changed" in said
    said = kubectl.refusal(*patch_arguments("esess", name, nested(f"spec/request/{field}", other)))
    assert "the request must not be changed" in said


def test_a_workspace_cannot_be_added_to_a_run_later(kubectl: Kubectl) -> None:
    name = created(kubectl, run(workspaceRef=None, poolRef={"name": "python"}))
    said = kubectl.refusal(
        *patch_arguments("esess", name, nested("spec/request/workspaceRef", {"name": "mine"}))
    )
    assert "the request must not be changed" in said


def test_an_active_workspace_goes_on_and_ends_once(kubectl: Kubectl) -> None:
    name = created(kubectl, workspace(), ACTIVE)
    kubectl.out(*patch_arguments("esess", name, {"status": {"workspace": {"runs": 3}}}, "status"))
    over = {"phase": "TimedOut", "reason": "IdleTimeout", "timings": {"completed": AT}}
    kubectl.out(*patch_arguments("esess", name, {"status": over}, "status"))
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": {"phase": "Active"}}, "status"))
    assert "an ended session must keep its phase" in said
    for said in removals_refused(kubectl, name, "status/reason", "status"):
        assert "an ended session must" in said


def test_an_active_workspace_keeps_its_pod(kubectl: Kubectl) -> None:
    name = created(kubectl, workspace(), ACTIVE)
    another = {"status": {"pod": {"name": "python-zzzzzzzz", "uid": "99999999-2222-3333-4444-555555555555"}}}
    said = kubectl.refusal(*patch_arguments("esess", name, another, "status"))
    assert "status.attempts must rise" in said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Failed", "reason": "IdleTimeout", "timings": {"completed": AT}}, "goes with the phase"),
        (
            {"phase": "TimedOut", "reason": "WorkspaceEnded", "timings": {"completed": AT}},
            "goes with the phase",
        ),
        ({"phase": "Active", "workspace": {"runs": -1}}, "should be greater than or equal to 0"),
        ({"phase": "Active", "workspace": {"lastUsed": "soon"}}, "lastUsed"),
        ({"phase": "Running", "workspaceRun": {"uid": "u"}}, "workspaceRun.number"),
        ({"phase": "Running", "workspaceRun": {"number": 1}}, "workspaceRun.uid"),
    ],
)
def test_statuses_that_make_no_sense(kubectl: Kubectl, status: Json, said: str) -> None:
    name = created(kubectl, workspace())
    assert said in kubectl.refusal(*patch_arguments("esess", name, {"status": status}, "status"))


def test_what_kubectl_shows(kubectl: Kubectl) -> None:
    mine = created(kubectl, workspace(), ACTIVE)
    used = created(kubectl, run(workspaceRef={"name": mine}))
    table = kubectl.out("get", "esess", "-o", "wide")
    head, rows = table.splitlines()[0], {line.split()[0]: line.split() for line in table.splitlines()[1:]}
    assert {"PHASE", "WORKSPACE", "RUNS", "POD"} <= set(head.split())
    assert {"Active", "python", POD["name"], "2"} <= set(rows[mine])
    assert mine in rows[used]
    described = kubectl.out("describe", "esess", mine)
    assert "Idle Timeout Seconds:" in described
    assert "Last Used:" in described
    assert "pod" in kubectl.out("explain", "executionsession.spec.request.workspaceRef")


def test_pools_bound_their_workspaces(kubectl: Kubectl) -> None:
    pool: Json = {
        "apiVersion": "kubecoderun.io/v1alpha1",
        "kind": "ExecutionPool",
        "metadata": {"name": "python"},
        "spec": {"runtime": {"image": "i", "languages": ["py"]}},
    }
    made = kubectl.create(pool)["spec"]["workspaces"]
    assert made == {"max": 20, "idleTimeoutSeconds": 900, "maxLifetimeSeconds": 43_200}
    pool["metadata"]["name"] = "another"
    for wrong in ({"max": -1}, {"idleTimeoutSeconds": 4}, {"maxLifetimeSeconds": 604_801}):
        pool["spec"]["workspaces"] = wrong
        assert "spec.workspaces" in kubectl.create_refused(pool)

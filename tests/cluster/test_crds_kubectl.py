"""How the resources read in kubectl: explain, get, describe, scale, wait, selectors; no terminal tricks."""

import json
import re

import pytest

from cluster.kubectl import Json, Kubectl, patch_arguments

pytestmark = pytest.mark.cluster

AT = "2027-01-01T00:00:00.123456Z"
ESCAPES = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def manifest(kind: str, name: str, spec: Json) -> Json:
    return {"apiVersion": "kubecoderun.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def session(name: str, pool: str = "python", **request: object) -> Json:
    fields = {"poolRef": {"name": pool}, "language": "py", "code": "print(1)", **request}
    return manifest("ExecutionSession", name, {"request": fields})


def condition(kind: str, status: str, reason: str, message: str) -> Json:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": AT,
        "observedGeneration": 1,
    }


@pytest.fixture(scope="module")
def shown(kubectl: Kubectl) -> Kubectl:
    """A namespace with one pool and sessions in several phases."""
    kubectl.create(manifest("ExecutionPool", "python", {"runtime": {"image": "example/python:1"}}))
    status: Json = {
        "observedGeneration": 1,
        "replicas": 2,
        "readyReplicas": 1,
        "updatedReplicas": 2,
        "assignedReplicas": 3,
        "terminatingReplicas": 0,
        "waitingSessions": 4,
        "revision": "0123456789",
        "selector": "kubecoderun.io/pool=python,kubecoderun.io/state=warm",
        "conditions": [
            condition("TemplateAccepted", "True", "Accepted", "the API server would create the pods"),
            condition("Available", "True", "PodsReady", "1 of 2 warm pods is ready"),
            condition("Progressing", "True", "CreatingPods", "1 pod is starting"),
        ],
    }
    kubectl.out(*patch_arguments("epool", "python", {"status": status}, "status"))
    ended: Json = {
        "phase": "Failed",
        "reason": "NonZeroExit",
        "message": "the program ended with exit code 3",
        "startType": "Warm",
        "attempts": 1,
        "epoch": 1,
        "pod": {"name": "python-abcdefgh", "uid": "u", "ip": "10.1.2.3", "node": "node-1"},
        "timings": {"queued": AT, "completed": AT},
        "result": {"exitCode": 3, "stdout": "Zoë 🙂\n\tx\n", "stdoutBytes": 14, "stderrBase64": "G1szMW0="},
        "usage": {"cpuSeconds": 0.25, "maxRssBytes": 1048576, "wallSeconds": 0.125},
        "files": [{"id": "abcdefghijklmnopqrstu", "path": "out/täbelle 1.csv", "bytes": 12}],
        "fileCount": 1,
        "skippedFiles": [{"path": "big.bin", "reason": "size"}],
        "skippedFileCount": 1,
        "conditions": [condition("Completed", "True", "NonZeroExit", "exit code 3")],
    }
    for name, state in (
        ("ended", ended),
        ("queued", {"phase": "Queued", "reason": "WaitingForPod"}),
        ("new", None),
    ):
        kubectl.create(session(name))
        if state:
            kubectl.out(*patch_arguments("esess", name, {"status": state}, "status"))
    kubectl.create(session("other", pool="other"))
    return kubectl


def table(text: str) -> dict[str, dict[str, str]]:
    """Rows of a kubectl table by their first cell; a cell is what stands below its heading."""
    lines = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", lines[0])]
    heads = lines[0].split()
    rows = [
        [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines[1:]
    ]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def test_get_pools(shown: Kubectl) -> None:
    row = table(shown.out("get", "epool"))["python"]
    del row["AGE"]
    assert row == {
        "NAME": "python",
        "DESIRED": "2",
        "READY": "1",
        "ASSIGNED": "3",
        "WAITING": "4",
        "AVAILABLE": "True",
        "REASON": "CreatingPods",
    }
    wide = table(shown.out("get", "epool", "-o", "wide"))["python"]
    assert (wide["IMAGE"], wide["REVISION"], wide["UPDATED"]) == ("example/python:1", "0123456789", "2")


def test_get_sessions(shown: Kubectl) -> None:
    rows = table(shown.out("get", "esess"))
    assert set(rows) == {"ended", "queued", "new", "other"}
    row = rows["ended"]
    del row["AGE"]
    assert row == {
        "NAME": "ended",
        "PHASE": "Failed",
        "POOL": "python",
        "START": "Warm",
        "EXIT": "3",
        "REASON": "NonZeroExit",
        "FILES": "1",
        "SECONDS": "0.125",
    }
    assert (rows["queued"]["PHASE"], rows["queued"]["REASON"]) == ("Queued", "WaitingForPod")
    wide = table(shown.out("get", "esess", "-o", "wide"))["ended"]
    assert (wide["POD"], wide["NODE"]) == ("python-abcdefgh", "node-1")


@pytest.mark.parametrize("name", ["executionpools", "executionpool", "epool", "ExecutionPool", "kubecoderun"])
def test_names_of_the_pool_kind(shown: Kubectl, name: str) -> None:
    assert "executionpool.kubecoderun.io/python" in shown.out("get", name, "-o", "name")


def test_category_has_both_kinds(shown: Kubectl) -> None:
    assert "executionsession.kubecoderun.io/ended" in shown.out("get", "kubecoderun", "-o", "name")


def test_describe(shown: Kubectl) -> None:
    pool = shown.out("describe", "epool", "python")
    for text in ("Max Pods:", "Policy:        Wait", "Message:               1 pod is starting", "PodsReady"):
        assert text in pool
    described = shown.out("describe", "esess", "ended")
    for text in (
        "Exit Code:",
        "Stdout:",
        "Zoë 🙂",
        "G1szMW0=",
        "the program ended with exit code 3",
        "NonZeroExit",
        "out/täbelle 1.csv",
    ):
        assert text in described


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("epool", ["keeps pods of one kind warm", "<Object> -required-"]),
        ("epool.spec.replicas", ["Warm pods to keep ready", "From 0 to 1000. Default: 2."]),
        ("epool.spec.onEmpty.policy", ["Wait", "Reject ends it with reason PoolEmpty"]),
        ("epool.spec.runtime.preload", ["Default: numpy, pandas, matplotlib.pyplot."]),
        ("epool.spec.pod.tolerations", ["Taints of nodes that are tolerated"]),
        ("epool.status.conditions", ["TemplateAccepted", "Starved", "lastTransitionTime"]),
        ("epool.spec.limits.maxFileBytes", ["From 1 to 1099511627776. Default: 157286400."]),
        ("epool.spec.sessionDefaults.filesTtlSeconds", ["with files", "Default: 86400."]),
        ("esess.spec.request", ["cannot be changed", "poolRef", "codeRef"]),
        ("esess.spec.request.mode", ["keeps files for other sessions", "Default: Run."]),
        ("esess.spec.request.inputs", ["before the program starts", "readOnly"]),
        ("esess.spec.removedFiles", ["can only grow"]),
        ("esess.status.files", ["made or changed", "modifiedFrom"]),
        ("esess.status.skippedFiles.reason", ["maxTotalFileBytes"]),
        ("esess.spec.cancel", ["cannot be taken back", "Default: false."]),
        ("esess.status.reason", ["OOMKilled: the program needed more memory"]),
        ("esess.status.result", ["stdoutBase64", "safe to print, otherwise base64"]),
        ("esess.status.timings.completed", ["every ended session has it"]),
    ],
)
def test_explain(cluster: Kubectl, path: str, texts: list[str]) -> None:
    said = " ".join(cluster.out("explain", path).split())
    for text in texts:
        assert text in said


@pytest.mark.parametrize("kind", ["epool", "esess"])
def test_every_field_has_an_explanation(cluster: Kubectl, kind: str) -> None:
    for path in (kind, f"{kind}.spec", f"{kind}.status", f"{kind}.status.conditions"):
        assert "<no description>" not in cluster.out("explain", path)


def test_scale(kubectl: Kubectl) -> None:
    kubectl.create(manifest("ExecutionPool", "scaled", {"runtime": {"image": "x"}, "maxPods": 5}))
    kubectl.out("scale", "epool/scaled", "--replicas=5")
    assert kubectl.get("epool", "scaled")["spec"]["replicas"] == 5
    kubectl.out("scale", "epool/scaled", "--replicas=0", "--current-replicas=5")
    assert kubectl.get("epool", "scaled")["spec"]["replicas"] == 0
    said = kubectl.refusal("scale", "epool/scaled", "--replicas=6")
    assert "replicas must not be larger than maxPods" in said


def test_scale_counts_warm_pods_only(shown: Kubectl) -> None:
    path = f"/apis/kubecoderun.io/v1alpha1/namespaces/{shown.namespace}/executionpools/python/scale"
    scale = json.loads(shown.out("get", "--raw", path))
    assert scale["spec"]["replicas"] == 2
    assert scale["status"]["replicas"] == 2
    assert scale["status"]["selector"] == "kubecoderun.io/pool=python,kubecoderun.io/state=warm"


def test_wait_for_the_end(shown: Kubectl) -> None:
    shown.out("wait", "esess/ended", "--for=condition=Completed", "--timeout=20s")
    shown.out("wait", "esess/ended", "--for=jsonpath={.status.phase}=Failed", "--timeout=20s")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("status.phase=Failed", {"ended"}),
        ("status.phase!=Failed,spec.request.poolRef.name=python", {"queued", "new"}),
        ("spec.request.poolRef.name=other", {"other"}),
        ("status.phase=", {"new", "other"}),
    ],
)
def test_field_selectors(shown: Kubectl, selector: str, found: set[str]) -> None:
    names = shown.out("get", "esess", "--field-selector", selector, "-o", "name").split()
    assert {name.rpartition("/")[2] for name in names} == found


def test_expired_sessions_are_one_selector(kubectl: Kubectl) -> None:
    for name, bucket in (("old", "2026123123"), ("now", "2027010100"), ("unlabelled", None)):
        thing = session(name)
        thing["metadata"]["labels"] = {"kubecoderun.io/expires": bucket} if bucket else {}
        kubectl.create(thing)
    found = kubectl.out("get", "esess", "-l", "kubecoderun.io/expires<2027010100", "-o", "name")
    assert found.split() == ["executionsession.kubecoderun.io/old"]


def test_output_in_a_status_plays_no_tricks(shown: Kubectl) -> None:
    """Whatever way a person looks at a status: no escape reaches the terminal."""
    for arguments in (
        ["get", "esess"],
        ["get", "esess", "-o", "wide"],
        ["describe", "esess", "ended"],
        ["get", "esess", "ended", "-o", "yaml"],
        ["get", "esess", "ended", "-o", "json"],
        ["get", "esess", "ended", "-o", "jsonpath={.status}"],
    ):
        assert not ESCAPES.search(shown.out(*arguments)), arguments


def test_requests_are_readable_in_every_format(kubectl: Kubectl) -> None:
    """Whatever a request is allowed to hold, listing sessions as YAML goes on working."""
    odd = "".join(
        map(chr, (9, 10, 13, 0xA0, 0xAD, 0x200B, 0x200D, 0x2028, 0x202E, 0xD7FF, 0xE000, 0xFDD0, 0xFEFF))
    )
    odd += "\ufffd\U0001fffe\U000e0041\U0010ffff"
    kubectl.create(session("odd", code=odd, stdin=odd, args=[odd], env=[{"name": "A", "value": odd}]))
    assert kubectl.get("esess", "odd")["spec"]["request"]["code"] == odd
    for form in ("yaml", "json", "wide"):
        assert "odd" in kubectl.out("get", "esess", "-o", form)
    assert "Code:" in kubectl.out("describe", "esess", "odd")

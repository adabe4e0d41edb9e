"""Pools as an administrator sees and changes them: size, revisions, and every way a pool can fail to get its
pods."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from e2e.deployment import NAMESPACE, PODS, POOLS, SESSIONS
from e2e.kube import MERGE_PATCH, Kube, KubeError, Object, condition, is_going, label
from e2e.pools import (
    ended,
    fresh_name,
    running,
    session_manifest,
    unassigned,
    wait_at_target,
    wait_condition,
)
from e2e.waiting import eventually

pytestmark = pytest.mark.cluster
NewPool = Callable[..., str]
QUOTAS = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def counts_ready(kube: Kube, pool: str, replicas: int) -> bool:
    """Whether a pool's status tells so many ready pods."""
    return int(kube.pool(pool)["status"].get("readyReplicas", 0)) == replicas


def waiting_words(kube: Kube, pool: str) -> list[str]:
    """Why the containers of a pool's pods do not start, in the kubelet's words."""
    words: list[str] = []
    for pod in kube.pods(pool):
        for container in pod.get("status", {}).get("containerStatuses", []):
            reason = container.get("state", {}).get("waiting", {})
            words.extend(text for text in (reason.get("reason"), reason.get("message")) if text)
    return words


def test_columns(kube: Kube, full_pool: str) -> None:
    def row() -> list[str]:
        return kube.kubectl("get", "epool", full_pool).stdout.splitlines()[1].split()[:5]

    columns = kube.kubectl("get", "epool", full_pool).stdout.splitlines()[0]
    for column in ("DESIRED", "READY", "ASSIGNED", "WAITING", "AVAILABLE", "REASON", "AGE"):
        assert column in columns
    eventually(lambda: row() == [full_pool, "3", "3", "0", "0"], "the row tells the pods")


def test_a_healthy_pool_says_so(kube: Kube, full_pool: str) -> None:
    for kind, status in (("TemplateAccepted", "True"), ("Available", "True"), ("Starved", "False")):
        wait_condition(kube, full_pool, kind, status)

    def counted() -> bool:
        status = kube.pool(full_pool)["status"]
        names = ("replicas", "readyReplicas", "updatedReplicas", "assignedReplicas", "terminatingReplicas")
        return [status.get(name, 0) for name in names] == [3, 3, 3, 0, 0]

    eventually(counted, "the pool's status counts its pods")


def test_scaling(kube: Kube, new_pool: NewPool) -> None:
    name = new_pool(replicas=1)
    wait_at_target(kube, name)
    for replicas in (3, 0, 2):
        kube.kubectl("scale", f"epool/{name}", f"--replicas={replicas}")
        wait_at_target(kube, name)
        eventually(partial(counts_ready, kube, name, replicas), "the pool's status follows")
    scale = kube.request("GET", f"{POOLS}/{name}/scale")
    assert scale["spec"]["replicas"] == 2
    assert f"kubecoderun.io/pool={name}" in scale["status"]["selector"]


def test_more_replicas_than_pods_allowed(kube: Kube, new_pool: NewPool) -> None:
    name = new_pool(replicas=0)
    for spec in ({"replicas": 5}, {"replicas": -1}, {"replicas": 10**9}):
        with pytest.raises(KubeError) as refused:
            kube.request("PATCH", f"{POOLS}/{name}", {"spec": spec}, MERGE_PATCH)
        assert refused.value.status == 422


def test_a_pool_with_a_pace(
    kube: Kube, pool: str, new_pool: NewPool, own_session: Callable[[Object], str]
) -> None:
    """A session beyond it waits, the pool says why, and it is served when the pace allows a pod. The first
    takes the warm pod, the second the one that may have come due meanwhile."""
    runtime = {"image": kube.pool(pool)["spec"]["runtime"]["image"], "languages": ["py"], "preload": []}
    waits = {"policy": "Wait", "waitSeconds": 300}
    name = new_pool(replicas=1, startsPerMinute=1, onEmpty=waits, runtime=runtime)
    wait_at_target(kube, name)
    sessions = [own_session(session_manifest(fresh_name("e2e-pace"), name, "print(1)")) for _ in range(3)]
    eventually(lambda: condition(kube.pool(name), "Starved").get("reason") == "Paced", "the pool says why")
    kube.request("PATCH", f"{POOLS}/{name}", {"spec": {"startsPerMinute": 600}}, MERGE_PATCH)
    for session in sessions:
        assert ended(kube, session)["status"]["phase"] == "Succeeded"
    wait_at_target(kube, name)


def test_a_deleted_warm_pod_is_replaced(kube: Kube, full_pool: str) -> None:
    victim = kube.pods(full_pool)[0]["metadata"]
    kube.kubectl("delete", "pod", victim["name"], "--wait=false")
    eventually(
        lambda: victim["uid"] not in [p["metadata"]["uid"] for p in kube.pods(full_pool)], "the pod goes"
    )
    wait_at_target(kube, full_pool)


def test_a_new_template_replaces_idle_pods(kube: Kube, new_pool: NewPool) -> None:
    name = new_pool(replicas=2)
    wait_at_target(kube, name)
    before = {pod["metadata"]["uid"] for pod in kube.pods(name)}
    revision = kube.pool(name)["status"]["revision"]
    change = {"spec": {"pod": {"labels": {"example.com/tier": "b"}}}}
    kube.request("PATCH", f"{POOLS}/{name}", change, MERGE_PATCH)

    def replaced() -> bool:
        pods = kube.pods(name)
        return not before & {pod["metadata"]["uid"] for pod in pods} and len(pods) == 2

    eventually(replaced, "both pods are of the new revision")
    wait_at_target(kube, name)
    assert {pod["metadata"]["labels"]["example.com/tier"] for pod in kube.pods(name)} == {"b"}
    eventually(lambda: kube.pool(name)["status"]["revision"] != revision, "the pool's revision follows")


def test_an_edit_without_effect_replaces_nothing(kube: Kube, new_pool: NewPool) -> None:
    name = new_pool(replicas=1)
    wait_at_target(kube, name)
    before = {pod["metadata"]["uid"] for pod in kube.pods(name)}
    kube.kubectl("annotate", f"epool/{name}", "example.com/note=x")
    limits = {"spec": {"limits": {"maxTimeoutSeconds": 100}}}
    generation = kube.request("PATCH", f"{POOLS}/{name}", limits, MERGE_PATCH)["metadata"]["generation"]
    eventually(lambda: kube.pool(name)["status"]["observedGeneration"] == generation, "the edit is observed")
    assert {pod["metadata"]["uid"] for pod in kube.pods(name)} == before


def test_wrong_image(kube: Kube, new_pool: NewPool) -> None:
    """The pool says what the image puller says, and does not pile up pods."""
    image = "localhost/kubecoderun-no-such-image:none"
    name = new_pool(runtime={"image": image, "languages": ["d"], "imagePullPolicy": "IfNotPresent"})
    wait_condition(kube, name, "Available", "False")

    def told() -> bool:
        said = [f"{c['reason']} {c.get('message', '')}" for c in kube.pool(name)["status"]["conditions"]]
        puller = [word for word in waiting_words(kube, name) if "Pull" in word]
        assert puller, "the kubelet has not tried yet"
        return any(image in text and any(word in text for word in puller) for text in said)

    eventually(told, "a condition repeats the puller's words")
    assert condition(kube.pool(name), "TemplateAccepted")["status"] == "True"
    assert len(kube.pods(name)) == 1
    assert condition(kube.pool(name), "Progressing")["status"] == "False"


def test_a_wrong_image_is_mended(kube: Kube, new_pool: NewPool, pool: str) -> None:
    name = new_pool(runtime={"image": "localhost/kubecoderun-no-such-image:none", "languages": ["d"]})
    wait_condition(kube, name, "Available", "False")
    good = {"spec": {"runtime": {"image": kube.pool(pool)["spec"]["runtime"]["image"]}}}
    kube.request("PATCH", f"{POOLS}/{name}", good, MERGE_PATCH)
    wait_at_target(kube, name)
    wait_condition(kube, name, "Available", "True")


def test_nowhere_to_schedule(kube: Kube, new_pool: NewPool) -> None:
    name = new_pool(pod={"nodeSelector": {"kubecoderun.io/no-such-node": "x"}})
    wait_condition(kube, name, "Available", "False")

    def told() -> bool:
        said = [f"{c['reason']} {c.get('message', '')}" for c in kube.pool(name)["status"]["conditions"]]
        return any("Unschedulable" in text and "node affinity/selector" in text for text in said)

    eventually(told, "a condition repeats the scheduler's words")
    assert len(kube.pods(name)) == 1


def test_template_refused_by_admission(kube: Kube, new_pool: NewPool) -> None:
    """A pod the API server refuses is reported in its own words, and not tried again without pause."""
    name = new_pool(pod={"priorityClassName": "no-such-priority"})
    refused = wait_condition(kube, name, "TemplateAccepted", "False")
    assert "no PriorityClass with name no-such-priority was found" in refused["message"]
    wait_condition(kube, name, "Available", "False")
    assert kube.pods(name) == []


@pytest.fixture
def no_pods_of_priority(kube: Kube) -> Iterator[str]:
    """A priority class whose pods a quota forbids; nothing else in the namespace is touched by it."""
    name = fresh_name("e2e")
    kube.request("POST", PRIORITIES, {"metadata": {"name": name}, "value": 1, "preemptionPolicy": "Never"})
    scope = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [name]}]}
    quota = {"metadata": {"name": name}, "spec": {"hard": {"pods": "0"}, "scopeSelector": scope}}
    kube.request("POST", QUOTAS, quota)
    eventually(
        lambda: kube.request("GET", f"{QUOTAS}/{name}").get("status", {}).get("hard"), "the quota counts"
    )
    yield name
    kube.delete(f"{QUOTAS}/{name}")
    kube.delete(f"{PRIORITIES}/{name}")


def test_quota(kube: Kube, new_pool: NewPool, no_pods_of_priority: str) -> None:
    """A quota is named, and the pool fills up by itself when it is gone."""
    name = new_pool(pod={"priorityClassName": no_pods_of_priority})

    def told() -> bool:
        conditions = kube.pool(name).get("status", {}).get("conditions", [])
        return any("exceeded quota" in c.get("message", "") for c in conditions)

    eventually(told, "a condition repeats the API server's words")
    kube.delete(f"{QUOTAS}/{no_pods_of_priority}")
    eventually(lambda: len(kube.pods(name)) == 1, "the pool gets its pod without being edited")
    wait_at_target(kube, name)


def test_an_empty_pool_that_rejects(
    kube: Kube, new_pool: NewPool, own_session: Callable[[Object], str]
) -> None:
    name = new_pool(replicas=0, onEmpty={"policy": "Reject"})
    session = own_session(session_manifest(fresh_name("reject"), name, "x", language="d"))
    status = ended(kube, session)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "PoolEmpty")


def test_an_empty_pool_that_waits_in_vain(
    kube: Kube, new_pool: NewPool, own_session: Callable[[Object], str]
) -> None:
    unschedulable = {"nodeSelector": {"kubecoderun.io/no-such-node": "x"}}
    name = new_pool(replicas=0, onEmpty={"policy": "Wait", "waitSeconds": 3}, pod=unschedulable)
    session = own_session(session_manifest(fresh_name("vain"), name, "x", language="d"))
    wait_condition(kube, name, "Starved", "True")
    assert ended(kube, session)["status"]["reason"] == "WaitExpired"
    eventually(lambda: unassigned(kube, name) == [], "the pod made for the session goes again")


def test_an_empty_pool_makes_a_pod_for_a_waiting_session(
    kube: Kube, pool: str, new_pool: NewPool, own_session: Callable[[Object], str]
) -> None:
    runtime = {"image": kube.pool(pool)["spec"]["runtime"]["image"], "languages": ["py", "d"]}
    name = new_pool(replicas=0, runtime=runtime)
    session = own_session(session_manifest(fresh_name("cold"), name, "print('cold')"))
    status = ended(kube, session)["status"]
    assert (status["startType"], status["result"]["stdout"]) == ("Waited", "cold\n")
    eventually(lambda: kube.pods(name) == [], "the pool is empty again")


def test_pool_deleted(kube: Kube, pool: str, new_pool: NewPool, own_session: Callable[[Object], str]) -> None:
    """Warm pods go with their pool; a run in progress still ends in one definite answer."""
    runtime = {"image": kube.pool(pool)["spec"]["runtime"]["image"], "languages": ["py", "d"]}
    name = new_pool(replicas=2, runtime=runtime)
    wait_at_target(kube, name)
    session = own_session(
        session_manifest(fresh_name("orphan"), name, "import time\ntime.sleep(5)\nprint('end')")
    )
    running(kube, session)
    # from then on the pod is the session's, no longer the pool's
    eventually(lambda: [p for p in kube.pods(name) if label(p, "state") == "assigned"], "the pod is labelled")
    kube.kubectl("delete", f"epool/{name}")
    status: Any = ended(kube, session)["status"]
    assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "end\n")
    eventually(lambda: kube.pods(name) == [], "every pod of the pool goes")
    late = own_session(session_manifest(fresh_name("late"), name, "print(1)"))
    assert ended(kube, late)["status"]["reason"] == "PoolNotFound"


def test_scaling_down_leaves_runs_alone(
    kube: Kube, pool: str, new_pool: NewPool, own_session: Callable[[Object], str]
) -> None:
    runtime = {"image": kube.pool(pool)["spec"]["runtime"]["image"], "languages": ["py", "d"]}
    name = new_pool(replicas=2, runtime=runtime)
    wait_at_target(kube, name)
    session = own_session(
        session_manifest(fresh_name("kept"), name, "import time\ntime.sleep(6)\nprint('end')")
    )
    in_use = running(kube, session)["status"]["pod"]["uid"]
    kube.kubectl("scale", f"epool/{name}", "--replicas=0")
    eventually(lambda: unassigned(kube, name) == [], "idle pods go")
    busy = [pod for pod in kube.pods(name) if label(pod, "state") == "assigned" and not is_going(pod)]
    done = kube.request("GET", f"{SESSIONS}/{session}").get("status", {}).get("phase") != "Running"
    assert done or [pod["metadata"]["uid"] for pod in busy] == [in_use]
    assert ended(kube, session)["status"]["result"]["stdout"] == "end\n"


def test_pod_of_a_run_is_deleted(kube: Kube, full_pool: str, own_session: Callable[[Object], str]) -> None:
    """The run is lost, and says so at once instead of running into its time limit."""
    code = "import time\ntime.sleep(280)"
    session = own_session(session_manifest(fresh_name("lost"), full_pool, code, timeoutSeconds=280))
    pod = running(kube, session)["status"]["pod"]["name"]
    kube.delete(f"{PODS}/{pod}", gracePeriodSeconds=0)
    status = ended(kube, session)["status"]
    assert status["phase"] == "Failed"
    assert status["reason"] in {"PodLost", "SidecarLost", "RuntimeLost"}


def test_a_pool_author_gains_no_rights(kube: Kube) -> None:
    """A pool author can neither mount nor read what the operator can: the schema has no field for it."""
    sneaky: list[Object] = [{"volumes": []}, {"serviceAccountName": "kubecoderun-operator"}]
    for pod in sneaky:
        manifest = {
            "apiVersion": "kubecoderun.io/v1alpha1", "kind": "ExecutionPool",
            "metadata": {"name": fresh_name("sneaky")},
            "spec": {"replicas": 0, "runtime": {"image": "x", "languages": ["d"]}, "pod": pod},
        }  # fmt: skip
        refused = kube.kubectl(
            "create", "--validate=strict", "-f", "-", stdin=json.dumps(manifest), check=False
        )
        assert refused.returncode != 0
        assert "unknown field" in refused.stderr

"""What the API server makes of pools and what it refuses: added, changed, removed or wiped."""

import json
from copy import deepcopy
from itertools import count
from typing import Any

import pytest

from cluster.kubectl import Json, Kubectl, patch_arguments, replace_arguments
from kubecoderun_crds.pool import PoolSpec

pytestmark = pytest.mark.cluster

SERIAL = count(1)


def pool(name: str | None = None, runtime: Json | None = None, **spec: Any) -> Json:
    """A pool to create."""
    return {
        "apiVersion": "kubecoderun.io/v1alpha1",
        "kind": "ExecutionPool",
        "metadata": {"name": name or f"p{next(SERIAL)}"},
        "spec": {"runtime": {"image": "example/python:1", **(runtime or {})}, **spec},
    }


def created(kubectl: Kubectl, **spec: Any) -> str:
    """Name of a new pool."""
    return str(kubectl.create(pool(**spec))["metadata"]["name"])


def refused_both_ways(kubectl: Kubectl, spec: Json) -> list[str]:
    """What the API server says to a pool created so, and to an ordinary pool changed so."""
    created_so = deepcopy(pool())
    runtime = spec.get("runtime", {})
    created_so["spec"] = {
        **created_so["spec"],
        **spec,
        "runtime": {**created_so["spec"]["runtime"], **runtime},
    }
    name = created(kubectl)
    return [
        kubectl.create_refused(created_so),
        kubectl.refusal(*patch_arguments("epool", name, {"spec": spec})),
    ]


def restricted(*peers: Json, ports: list[Json] | None = None) -> Json:
    """Spec fields of a pool whose pods may reach these."""
    return {"network": "Restricted", "egress": [{"to": list(peers), "ports": ports or []}]}


def test_egress_can_be_given_changed_and_removed(kubectl: Kubectl) -> None:
    peers = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
        {"ipBlock": {"cidr": "2001:db8::/32"}},
        {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}},
    ]
    name = created(kubectl, **restricted(*peers, ports=[{"port": 443}, {"port": 8000, "endPort": 8080}]))
    stored = kubectl.get("epool", name)["spec"]["egress"]
    assert stored[0]["ports"][0] == {"port": 443, "protocol": "TCP"}
    kubectl.out(*patch_arguments("epool", name, {"spec": {"egress": [{"to": [{"podSelector": {}}]}]}}))
    said = kubectl.refusal(*patch_arguments("epool", name, {"spec": {"network": "None"}}))
    assert "egress is for network Restricted only" in said
    said = kubectl.refusal(*patch_arguments("epool", name, {"spec": {"network": None}}))
    assert "egress is for network Restricted only" in said
    kubectl.out(*patch_arguments("epool", name, {"spec": {"network": None, "egress": None}}))
    assert kubectl.get("epool", name)["spec"]["network"] == "None"


def test_defaults_are_those_of_the_models(kubectl: Kubectl) -> None:
    stored = kubectl.create(pool())["spec"]
    model = PoolSpec.model_validate(pool()["spec"])
    assert PoolSpec.model_validate(stored) == model
    assert stored["runtime"]["resources"] == model.as_dict()["runtime"]["resources"]
    assert stored["limits"] == {
        "maxTimeoutSeconds": 300,
        "maxOutputBytes": 65536,
        "maxFiles": 64,
        "maxFileBytes": 157_286_400,
        "maxTotalFileBytes": 536_870_912,
        "maxPrintedBytes": 2_147_483_648,
        "maxProcesses": 512,
        "maxOpenFiles": 4096,
    }
    assert stored["sessionDefaults"] == {
        "timeoutSeconds": 30,
        "ttlSecondsAfterFinished": 600,
        "filesTtlSeconds": 86_400,
    }
    assert stored["pod"] == {}


def test_defaults_fill_what_is_given_in_part(kubectl: Kubectl) -> None:
    stored = kubectl.create(
        pool(
            runtime={"resources": {"limits": {"cpu": 2}}, "env": [{"name": "A"}]},
            onEmpty={"policy": "Reject"},
        )
    )["spec"]
    assert stored["runtime"]["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": 2, "memory": "1Gi"},
    }
    assert stored["runtime"]["env"] == [{"name": "A", "value": ""}]
    assert stored["onEmpty"] == {"policy": "Reject", "waitSeconds": 60}


def test_removed_fields_get_their_defaults_back(kubectl: Kubectl) -> None:
    name = created(kubectl, limits={"maxOutputBytes": 2048}, network="Unmanaged")
    patch = {"spec": {"limits": None, "network": None, "onEmpty": None, "pod": None}}
    kubectl.out(*patch_arguments("epool", name, patch))
    spec = kubectl.get("epool", name)["spec"]
    assert PoolSpec.model_validate(spec) == PoolSpec.model_validate(pool()["spec"])


def test_applying_a_manifest_again_changes_nothing(kubectl: Kubectl) -> None:
    """Defaults are no difference: what manages pools from files finds nothing to do."""
    text = json.dumps(pool("applied"))
    kubectl.out("apply", "-f", "-", stdin=text)
    assert "unchanged" in kubectl.out("apply", "-f", "-", stdin=text)
    assert kubectl.get("epool", "applied")["metadata"]["generation"] == 1
    assert kubectl.run("diff", "-f", "-", stdin=text).stdout == ""


def test_unknown_fields_are_told_and_dropped(kubectl: Kubectl) -> None:
    thing = pool(pod={"hostNetwork": True, "volumes": [], "serviceAccountName": "admin"})
    said = kubectl.create_refused(thing)
    for field in ("hostNetwork", "volumes", "serviceAccountName"):
        assert f'unknown field "spec.pod.{field}"' in said
    stored = json.loads(
        kubectl.out("create", "--validate=false", "-o", "json", "-f", "-", stdin=json.dumps(thing))
    )
    assert stored["spec"]["pod"] == {}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"replicas": 51}, "replicas must not be larger than maxPods"),
        ({"maxPods": 1}, "replicas must not be larger than maxPods"),
        ({"replicas": 1001, "maxPods": 5000}, "less than or equal to 1000"),
        ({"replicas": -1}, "greater than or equal to 0"),
        ({"startsPerMinute": 0}, "greater than or equal to 1"),
        ({"startsPerMinute": 60_001}, "less than or equal to 60000"),
        ({"sessionDefaults": {"timeoutSeconds": 301}}, "timeoutSeconds must not be larger than limits"),
        ({"limits": {"maxTimeoutSeconds": 29}}, "timeoutSeconds must not be larger than limits"),
        ({"limits": {"maxTimeoutSeconds": 86_401}}, "less than or equal to 86400"),
        ({"limits": {"maxOutputBytes": 1_048_577}}, "less than or equal to 1048576"),
        ({"limits": {"maxPrintedBytes": 1_048_575}}, "greater than or equal to 1048576"),
        ({"limits": {"maxProcesses": 15}}, "greater than or equal to 16"),
        ({"limits": {"maxProcesses": 32_769}}, "less than or equal to 32768"),
        ({"limits": {"maxOpenFiles": 63}}, "greater than or equal to 64"),
        ({"sessionDefaults": {"ttlSecondsAfterFinished": 9}}, "greater than or equal to 10"),
        (
            {"runtime": {"resources": {"limits": {"memory": "64Mi"}}}},
            "resources.requests.memory must not be larger than resources.limits.memory",
        ),
        (
            {"runtime": {"resources": {"requests": {"cpu": 2}}}},
            "resources.requests.cpu must not be larger than resources.limits.cpu",
        ),
        ({"runtime": {"resources": {"limits": {"cpu": "lots"}}}}, "spec.runtime.resources.limits.cpu"),
        ({"runtime": {"scratch": {"size": 0}}}, "scratch space must be 1Mi or more"),
        ({"runtime": {"scratch": {"size": "1023Ki"}}}, "scratch space must be 1Mi or more"),
        ({"runtime": {"env": [{"name": "KCR_PORT", "value": "1"}]}}, "names must not begin with KCR_"),
        ({"runtime": {"env": [{"name": "A"}, {"name": "A"}]}}, "Duplicate value"),
        ({"runtime": {"languages": []}}, "at least 1 items"),
        ({"runtime": {"languages": ["py", "py"]}}, "Duplicate value"),
        ({"runtime": {"languages": ["python"]}}, "Unsupported value"),
        ({"runtime": {"preload": ["os;x"]}}, "spec.runtime.preload[0]"),
        ({"runtime": {"image": ""}}, "spec.runtime.image"),
        ({"onEmpty": {"policy": "ColdStart"}}, 'supported values: "Wait", "Reject"'),
        ({"onEmpty": {"waitSeconds": 601}}, "less than or equal to 600"),
        ({"network": "Some"}, 'supported values: "None", "Restricted", "Unmanaged"'),
        ({"egress": [{"to": [{"podSelector": {}}]}]}, "egress is for network Restricted only"),
        (restricted({"ipBlock": {"cidr": "10.0.0.0"}}), "egress[0].to[0].ipBlock.cidr"),
        (restricted({"ipBlock": {"cidr": "10.0.0.0/33"}}), "must be a range of addresses"),
        (
            restricted({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
            "every range in except must lie in cidr",
        ),
        (restricted({}), "give either ipBlock, or podSelector or namespaceSelector or both"),
        (
            restricted({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
            "give either ipBlock, or podSelector or namespaceSelector or both",
        ),
        (restricted(), "at least 1 items"),
        (restricted({"podSelector": {}}, ports=[{"port": 0}]), "greater than or equal to 1"),
        (restricted({"podSelector": {}}, ports=[{"port": 9, "endPort": 8}]), "endPort must not be less than"),
        (restricted({"podSelector": {}}, ports=[{"port": 9, "protocol": "SCTP"}]), "Unsupported value"),
        ({"updateStrategy": {"maxUnavailable": 0}}, "greater than or equal to 1"),
        ({"pod": {"tolerations": [{"operator": "Sometimes"}]}}, "Unsupported value"),
        ({"pod": {"nodeSelector": {f"k{n}": "v" for n in range(33)}}}, "at most 32 items"),
        ({"pod": {"annotations": {"note": "\x1b"}}}, "spec.pod.annotations"),
    ],
)
def test_pools_that_make_no_sense(kubectl: Kubectl, spec: Json, said: str) -> None:
    for text in refused_both_ways(kubectl, spec):
        assert said in text


def test_removing_a_bound_does_not_evade_its_rule(kubectl: Kubectl) -> None:
    name = created(kubectl, replicas=60, maxPods=100)
    said = kubectl.refusal(*patch_arguments("epool", name, {"spec": {"maxPods": None}}))
    assert "replicas must not be larger than maxPods" in said
    name = created(kubectl, limits={"maxTimeoutSeconds": 900}, sessionDefaults={"timeoutSeconds": 600})
    for removal in ({"limits": None}, {"limits": {"maxTimeoutSeconds": None}}):
        assert "timeoutSeconds must not be larger" in kubectl.refusal(
            *patch_arguments("epool", name, {"spec": removal})
        )


def test_runtime_and_spec_cannot_be_removed(kubectl: Kubectl) -> None:
    name = created(kubectl)
    for path in ("spec", "spec/runtime", "spec/runtime/image"):
        patch = [{"op": "remove", "path": f"/{path}"}]
        said = kubectl.refusal(*patch_arguments("epool", name, patch))
        assert f"{path.replace('/', '.')}: Required value" in said


@pytest.mark.parametrize("kind", ["labels", "annotations"])
@pytest.mark.parametrize(
    "key",
    [
        "kubecoderun.io/pool",
        "sub.kubecoderun.io/x",
        "container.apparmor.security.beta.kubernetes.io/runtime",
        "seccomp.security.alpha.kubernetes.io/pod",
        "io.kubernetes.cri-o.Devices",
        "io.katacontainers.config.hypervisor.path",
        "dev.gvisor.flag.host-uds",
        "k8s.v1.cni.cncf.io/networks",
        "cni.projectcalico.org/ipAddrs",
        "iam.amazonaws.com/role",
        "azure.workload.identity/use",
        "vault.hashicorp.com/agent-inject",
        "sidecar.istio.io/inject",
    ],
)
def test_reserved_keys(kubectl: Kubectl, kind: str, key: str) -> None:
    thing = pool(pod={kind: {"app": "x", key: "y"}})
    said = kubectl.create_refused(thing)
    assert f"spec.pod.{kind}" in said
    assert "keys of kubecoderun.io" in said


def test_reserved_keys_in_changes(kubectl: Kubectl) -> None:
    name = created(kubectl, pod={"labels": {"app": "x"}})
    for kind in ("labels", "annotations"):
        patch = {"spec": {"pod": {kind: {"kubecoderun.io/state": "warm"}}}}
        assert "keys of kubecoderun.io" in kubectl.refusal(*patch_arguments("epool", name, patch))


def test_ordinary_pod_settings(kubectl: Kubectl) -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    spread = {
        "topologyKey": "topology.kubernetes.io/zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"kubecoderun.io/pool": "x"}},
    }
    near = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
    settings = {
        "labels": {"app.kubernetes.io/part-of": "chat", "team": ""},
        "annotations": {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "prometheus.io/scrape": "false",
            "note": "två\nlines",
        },
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "sandbox", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}},
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": near}]
            },
        },
        "topologySpreadConstraints": [spread],
        "priorityClassName": "low",
        "imagePullSecrets": [{"name": "registry"}],
        "hostUsers": False,
    }
    assert kubectl.create(pool(pod=settings))["spec"]["pod"] == settings


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("p" * 41, "the name must not have more than 40 characters"),
        ("a.b", "the name must not have dots"),
    ],
)
def test_names_of_pools(kubectl: Kubectl, name: str, said: str) -> None:
    assert said in kubectl.create_refused(pool(name))


def test_longest_name_of_a_pool(kubectl: Kubectl) -> None:
    kubectl.create(pool("p" * 40))


def test_observed_generation_never_falls(kubectl: Kubectl) -> None:
    name = created(kubectl)
    for value in (1, 1, 2):
        patch = {"status": {"observedGeneration": value}}
        kubectl.out(*patch_arguments("epool", name, patch, "status"))
    thing = kubectl.get("epool", name)
    wiped = {key: value for key, value in thing.items() if key != "status"}
    said = [
        kubectl.refusal(*patch_arguments("epool", name, {"status": {"observedGeneration": 1}}, "status")),
        kubectl.refusal(*patch_arguments("epool", name, {"status": {"observedGeneration": None}}, "status")),
        kubectl.refusal(*patch_arguments("epool", name, [{"op": "remove", "path": "/status"}], "status")),
        kubectl.refusal(*replace_arguments("status"), stdin=json.dumps(wiped)),
        kubectl.refusal(*replace_arguments("status"), stdin=json.dumps({**thing, "status": {}})),
    ]
    assert all("status.observedGeneration must not fall" in text for text in said)


def test_status_has_no_text_that_tricks_terminals(kubectl: Kubectl) -> None:
    name = created(kubectl)
    condition = {
        "type": "Progressing",
        "status": "False",
        "reason": "ImagePullFailed",
        "message": "\x1b]0;title\x07",
        "lastTransitionTime": "2027-01-01T00:00:00Z",
    }
    for field, value in (("message", "\x1b]0;title\x07"), ("reason", "a b"), ("type", "\x1b")):
        good = {**condition, "message": "back-off pulling image"}
        patch = {"status": {"conditions": [{**good, field: value}]}}
        said = kubectl.refusal(*patch_arguments("epool", name, patch, "status"))
        assert f"status.conditions[0].{field}" in said

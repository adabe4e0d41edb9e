"""The stores inside the cluster: interchangeable, found by everybody who needs them, closed to the rest."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubecoderun_crds import names
from store.servers import command_of

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = {"versitygw": "dev", "minio": "dev-minio"}
Node = dict[str, Any]

each_store = pytest.mark.parametrize("store", OVERLAYS)


def resources(folder: Path) -> list[Node]:
    """All objects that a kustomization names, before patches. Fails if it names a file that is not there."""
    found: list[Node] = []
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    for name in settings.get("resources", []):
        path = (folder / name).resolve()
        if path.is_dir():
            found += resources(path)
        else:
            found += [node for node in yaml.safe_load_all(path.read_text(encoding="utf-8")) if node]
    return found


def of(store: str) -> list[Node]:
    return resources(ROOT / "manifests" / "overlays" / OVERLAYS[store])


def identity(node: Node) -> tuple[str, str, str]:
    return node["kind"], node["metadata"].get("namespace", ""), node["metadata"]["name"]


def one(store: str, kind: str, name: str) -> Node:
    (node,) = [node for node in of(store) if (node["kind"], node["metadata"]["name"]) == (kind, name)]
    return node


def pod_of(store: str, name: str = "kubecoderun-store") -> Node:
    return dict(one(store, "Deployment", name)["spec"]["template"])


def container_of(store: str, name: str = "kubecoderun-store") -> Node:
    (container,) = pod_of(store, name)["spec"]["containers"]
    return dict(container)


def environment(container: Node) -> Node:
    """Values by name; those from a secret as (secret, key)."""
    values: Node = {}
    for entry in container["env"]:
        secret = entry.get("valueFrom", {}).get("secretKeyRef")
        values[entry["name"]] = (secret["name"], secret["key"]) if secret else entry.get("value")
    return values


def selects(selector: Node, labels: dict[str, str]) -> bool:
    """Whether a label selector selects an object with these labels."""
    if not all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", []):
        value, values = labels.get(term["key"]), term.get("values", [])
        holds = {
            "Exists": value is not None,
            "In": value in values,
            "NotIn": value not in values,
        }
        if not holds[term["operator"]]:
            return False
    return True


def test_both_stores_are_the_same_to_everybody_else() -> None:
    by_store = {store: {identity(node): node for node in of(store)} for store in OVERLAYS}
    versitygw, minio = by_store["versitygw"], by_store["minio"]
    assert set(versitygw) == set(minio)
    different = {key for key in versitygw if versitygw[key] != minio[key]}
    assert different == {("Deployment", "kubecoderun-system", "kubecoderun-store")}


@each_store
def test_no_object_is_named_twice(store: str) -> None:
    identities = [identity(node) for node in of(store)]
    assert len(identities) == len(set(identities))


@each_store
def test_patches_of_the_overlay_name_what_is_there(store: str) -> None:
    folder = ROOT / "manifests" / "overlays" / OVERLAYS[store]
    components = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["components"]
    there = {identity(node) for node in of(store)}
    patches = 0
    for component in components:
        settings = yaml.safe_load((folder / component / "kustomization.yaml").read_text(encoding="utf-8"))
        assert settings["kind"] == "Component"
        for patch in settings["patches"]:
            path = folder / component / patch["path"]
            assert identity(yaml.safe_load(path.read_text(encoding="utf-8"))) in there
            patches += 1
    assert patches >= 3


@each_store
@pytest.mark.parametrize("program", ["kubecoderun-operator", "kubecoderun-api"])
def test_programs_find_the_store_and_sign_with_its_keys(store: str, program: str) -> None:
    settings = environment(container_of(store, program))
    service = one(store, "Service", "kubecoderun-store")
    (port,) = service["spec"]["ports"]
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert settings["KCR_STORE_ENDPOINT"] == f"http://{host}:{port['port']}"
    own = environment(container_of(store))
    keys = {settings["KCR_STORE_ACCESS_KEY"], settings["KCR_STORE_SECRET_KEY"]}
    assert keys == {("kubecoderun-store", "access-key"), ("kubecoderun-store", "secret-key")}
    assert keys <= set(own.values())


@each_store
def test_the_service_leads_to_the_pod(store: str) -> None:
    service, pod = one(store, "Service", "kubecoderun-store"), pod_of(store)
    deployment = one(store, "Deployment", "kubecoderun-store")
    assert selects({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
    assert selects(deployment["spec"]["selector"], pod["metadata"]["labels"])
    (service_port,) = service["spec"]["ports"]
    ports = {port["name"]: port["containerPort"] for port in container_of(store)["ports"]}
    assert ports[service_port["targetPort"]] == service_port["port"]
    probes = [container_of(store)[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} <= set(ports)


@each_store
def test_the_bucket_is_a_mounted_folder_of_the_data(store: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in container_of(store)["volumeMounts"]}
    bucket = environment(container_of(store, "kubecoderun-operator"))["KCR_STORE_BUCKET"]
    assert mounts["/bucket"]["subPath"] == f"{mounts['/data']['subPath']}/{bucket}"
    assert mounts["/bucket"]["name"] == mounts["/data"]["name"]
    assert container_of(store)["args"][-1] == "/data"


@each_store
def test_the_store_meets_restricted_pod_security(store: str) -> None:
    pod, container = pod_of(store)["spec"], container_of(store)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


@each_store
def test_policies_let_pods_and_programs_reach_the_store(store: str) -> None:
    pool_pod = {names.LABEL_POOL: "python", names.LABEL_NETWORK: "None"}
    store_pod = pod_of(store)["metadata"]["labels"]
    (port,) = [port["containerPort"] for port in container_of(store)["ports"]]

    pools = one(store, "NetworkPolicy", "kubecoderun-pools")["spec"]
    assert selects(pools["podSelector"], pool_pod)
    assert not selects(pools["podSelector"], {**pool_pod, names.LABEL_NETWORK: "Unmanaged"})
    ways_out = [
        rule for rule in pools["egress"] for peer in rule["to"] if selects(peer["podSelector"], store_pod)
    ]
    assert [rule["ports"] for rule in ways_out] == [[{"protocol": "TCP", "port": port}]]

    own = one(store, "NetworkPolicy", "kubecoderun-store")["spec"]
    assert selects(own["podSelector"], store_pod)
    (rule,) = own["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port}]
    system = [peer for peer in rule["from"] if "namespaceSelector" not in peer]
    anywhere = [peer for peer in rule["from"] if peer.get("namespaceSelector") == {}]
    assert len(system) + len(anywhere) == len(rule["from"])
    for program in ("kubecoderun-operator", "kubecoderun-api"):
        labels = pod_of(store, program)["metadata"]["labels"]
        assert any(selects(peer["podSelector"], labels) for peer in system), program
    assert any(selects(peer["podSelector"], pool_pod) for peer in anywhere)
    stranger = {"app.kubernetes.io/name": "something-else"}
    assert not any(selects(peer["podSelector"], stranger) for peer in rule["from"])


@each_store
def test_nothing_keeps_the_programs_from_the_store(store: str) -> None:
    """Operator and front end reach it because no policy limits what they may reach."""
    for node in of(store):
        if node["kind"] == "NetworkPolicy" and "Egress" in node["spec"]["policyTypes"]:
            for program in ("kubecoderun-operator", "kubecoderun-api"):
                labels = pod_of(store, program)["metadata"]["labels"]
                system = node["metadata"]["namespace"] == "kubecoderun-system"
                assert not (system and selects(node["spec"]["podSelector"], labels))


def test_the_example_of_an_external_store_changes_what_is_there() -> None:
    folder = ROOT / "manifests" / "overlays" / "external-store"
    base = {identity(node): node for node in resources(folder)}
    assert ("Deployment", "kubecoderun-system", "kubecoderun-store") not in base
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    stores = []
    for patch in settings["patches"]:
        content = yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8"))
        if "target" in patch:
            policy = base["NetworkPolicy", "kubecoderun", patch["target"]["name"]]
            assert [operation["path"] for operation in content] == ["/spec/egress/0"]
            # the way to the store is the first one, the one to DNS stays
            (replaced,) = policy["spec"]["egress"][0]["to"]
            assert selects(replaced["podSelector"], pod_of("versitygw")["metadata"]["labels"])
            continue
        (container,) = content["spec"]["template"]["spec"]["containers"]
        (there,) = base[identity(content)]["spec"]["template"]["spec"]["containers"]
        assert container["name"] == there["name"]
        stores.append(environment(container))
    assert len(stores) == 2
    assert stores[0] == stores[1]


@each_store
def test_the_suite_runs_the_store_as_the_cluster_does(store: str) -> None:
    arguments, settings, health = command_of(store, "ADDRESS", Path("/data"), ("access", "secret"))
    container = container_of(store)
    address, certificates = container["args"].index(":7070"), "/tmp/certs"
    expected = [*container["args"]]
    expected[address] = "ADDRESS"
    assert [certificates if part.endswith("/certs") else part for part in arguments] == expected
    assert set(settings) <= set(environment(container))
    assert container["readinessProbe"]["httpGet"]["path"] == health


@each_store
def test_the_scripts_build_what_the_overlay_needs(store: str) -> None:
    image = re.fullmatch(r"localhost/kubecoderun-([a-z]+):dev", container_of(store)["image"])
    assert image
    part = image[1]
    assert (ROOT / "images" / f"{part}.Containerfile").is_file()
    script = '. cluster/env.sh && echo "$STORE_PART $STORE_OVERLAY $PARTS"'
    asked = subprocess.run(
        ["bash", "-c", script, "cluster/env.sh"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "STORE": store,
            "LANGUAGES": "python",
            "KCR_ENGINE": "none",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    chosen, overlay, *parts = asked.stdout.split()
    assert (chosen, overlay) == (part, OVERLAYS[store])
    assert part in parts

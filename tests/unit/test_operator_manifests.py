"""The operator's Deployment: one leads, one stands by; draining a node takes one of them at a time."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubecoderun_operator.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "manifests" / "base"
OVERLAYS = sorted(path.parent for path in (ROOT / "manifests" / "overlays").glob("*/kustomization.yaml"))
NAME = "kubecoderun-operator"
Node = dict[str, Any]


def documents(*files: Path) -> list[Node]:
    return [node for file in files for node in yaml.safe_load_all(file.read_text(encoding="utf-8")) if node]


def one(kind: str) -> Node:
    (found,) = [node for node in documents(BASE / "operator.yaml") if node["kind"] == kind]
    return found


def pod() -> Node:
    return dict(one("Deployment")["spec"]["template"])


def test_there_are_two() -> None:
    assert one("Deployment")["spec"]["replicas"] == 2


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_no_overlay_takes_the_second_away(overlay: Path) -> None:
    patches = documents(*(file for file in overlay.glob("*.yaml") if file.name != "kustomization.yaml"))
    ours = [
        node
        for node in patches
        if isinstance(node, dict) and (node["kind"], node["metadata"]["name"]) == ("Deployment", NAME)
    ]
    assert all("replicas" not in node["spec"] for node in ours)
    assert "replicas" not in yaml.safe_load((overlay / "kustomization.yaml").read_text(encoding="utf-8"))


def test_a_new_version_is_there_before_an_old_one_goes() -> None:
    assert one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_they_are_on_different_nodes_where_there_are_some() -> None:
    (constraint,) = pod()["spec"]["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    # Both on one node are better than one that waits for another node.
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    selected = constraint["labelSelector"]["matchLabels"]
    assert selected.items() <= pod()["metadata"]["labels"].items()


def test_a_drain_takes_one_at_a_time_and_is_never_stuck() -> None:
    budget = one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= pod()["metadata"]["labels"].items()


def test_the_lease_says_which_of_them_leads() -> None:
    (container,) = pod()["spec"]["containers"]
    named = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container["env"]
        if "fieldRef" in entry.get("valueFrom", {})
    }
    assert (named["KCR_POD_NAME"], named["KCR_POD_UID"]) == ("metadata.name", "metadata.uid")


def test_there_is_time_to_stop_in_order() -> None:
    """Runs, background work, kopf and the lease each have a time of their own."""
    settings = Settings()
    longest = settings.drain_seconds + 5.0 + settings.api_attempt_seconds
    assert pod()["spec"]["terminationGracePeriodSeconds"] > 2 * longest

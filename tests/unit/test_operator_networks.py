"""The NetworkPolicy of a pool, and when it has to be settled again."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_operator.networks import NEVER, policy

RUNTIME = {"image": "python:1"}


def spec(*rules: dict[str, Any], network: str = "Restricted") -> PoolSpec:
    return PoolSpec.model_validate({"runtime": RUNTIME, "network": network, "egress": list(rules)})


def made(*rules: dict[str, Any]) -> dict[str, Any]:
    found = policy("kubecoderun", "python", "pool-uid", spec(*rules))
    assert found is not None
    return found


def block(cidr: str, *excluded: str) -> dict[str, Any]:
    """The ipBlock that becomes of this one."""
    rule = {"to": [{"ipBlock": {"cidr": cidr, "except": list(excluded)}}]}
    found: dict[str, Any] = made(rule)["spec"]["egress"][0]["to"][0]["ipBlock"]
    return found


@pytest.mark.parametrize("network", ["None", "Unmanaged"])
def test_other_networks_have_no_policy_of_their_own(network: str) -> None:
    assert policy("kubecoderun", "python", "uid", spec(network=network)) is None


def test_it_is_the_pools_and_about_its_restricted_pods_only() -> None:
    found = made()
    assert found["metadata"]["name"] == "kubecoderun-pool-python"
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("ExecutionPool", "python", "pool-uid")
    assert found["spec"] == {
        "podSelector": {
            "matchLabels": {"kubecoderun.io/pool-uid": "pool-uid", "kubecoderun.io/network": "Restricted"}
        },
        "policyTypes": ["Egress"],
        "egress": [],
    }


def test_rules_are_copied_as_they_are() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}}]
    ports = [{"protocol": "TCP", "port": 443}, {"protocol": "UDP", "port": 5000, "endPort": 5010}]
    assert made({"to": peers, "ports": ports})["spec"]["egress"] == [{"to": peers, "ports": ports}]
    assert made({"to": peers})["spec"]["egress"] == [{"to": peers}]


def test_metadata_addresses_are_taken_out_of_larger_ranges() -> None:
    assert block("0.0.0.0/0", "10.0.0.0/8") == {
        "cidr": "0.0.0.0/0",
        "except": ["10.0.0.0/8", "169.254.0.0/16"],
    }
    assert block("::/0")["except"] == ["fd00:ec2::254/128", "fe80::/10"]
    assert block("10.0.0.0/8") == {"cidr": "10.0.0.0/8"}
    assert block("169.254.0.0/16") == {"cidr": "169.254.0.0/16"}
    assert block("169.254.169.254/32") == {"cidr": "169.254.169.254/32"}


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_no_range_holds_them_unless_it_is_about_them(address: int, length: int) -> None:
    network = ipaddress.ip_network((address, length), strict=False)
    found = block(str(network))
    cut = [ipaddress.ip_network(part) for part in found.get("except", [])]
    for never in NEVER:
        if never.version != 4:
            continue
        overlap = network.overlaps(never)
        assert not overlap or never in cut or network.subnet_of(never)  # type: ignore[arg-type]
    assert all(part.subnet_of(network) for part in cut)  # type: ignore[arg-type]

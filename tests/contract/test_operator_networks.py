"""Network policies of pools: made before pods, changed, removed, made again; and a cluster that refuses."""

from __future__ import annotations

import asyncio
from typing import Any

from contract.fakes.apiserver import Fault
from contract.fakes.system import NAMESPACE, System, operating

EGRESS: list[dict[str, Any]] = [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443}]}]
NAME = "kubecoderun-pool-python"


def policies(system: System) -> list[str]:
    return [found["metadata"]["name"] for found in system.api.store.all("networkpolicies")]


def egress(system: System) -> Any:
    return system.api.store.get("networkpolicies", NAMESPACE, NAME)["spec"]["egress"]


async def test_a_policy_comes_changes_and_goes_with_the_pools_network() -> None:
    async with operating() as system:
        pool = system.pool(network="Restricted", egress=EGRESS)
        await system.ready(2)
        order = [entry.resource for entry in system.api.writes() if entry.resource != "executionpools/status"]
        assert order[0] == "networkpolicies", "no pod is made without its policy"
        found = system.api.store.get("networkpolicies", NAMESPACE, NAME)
        assert found["metadata"]["ownerReferences"][0]["uid"] == pool["metadata"]["uid"]
        assert egress(system) == [
            {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"protocol": "TCP", "port": 443}]}
        ]
        system.edit_pool(egress=[{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}])
        wanted = [{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]
        await system.until(lambda: egress(system) == wanted, "changed")
        system.edit_pool(network="None", egress=[])
        await system.until(lambda: not policies(system), "removed")


async def test_pools_without_a_network_cost_no_write() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        assert "networkpolicies" not in {entry.resource for entry in system.api.writes()}


async def test_a_policy_that_somebody_removes_or_changes_is_made_again() -> None:
    async with operating(sweep_pods_seconds=0.2) as system:
        system.pool(network="Restricted", egress=EGRESS)
        await system.ready(2)
        wanted = egress(system)
        system.api.store.delete("networkpolicies", NAMESPACE, NAME)
        await system.until(lambda: policies(system) == [NAME], "made again")

        def open_up(found: dict[str, Any]) -> dict[str, Any]:
            found["spec"]["egress"] = [{}]
            return found

        system.api.store.change("networkpolicies", NAMESPACE, NAME, open_up)
        await system.until(lambda: egress(system) == wanted, "put right")
        before = len(system.api.log)
        await asyncio.sleep(0.5)
        assert "networkpolicies" not in {entry.resource for entry in system.api.writes(since=before)}


async def test_a_policy_left_by_an_earlier_operator_goes() -> None:
    async with operating() as system:
        system.pool(network="Restricted", egress=EGRESS)
        await system.ready(2)
        await system.stop(system.apps[0][0])
        system.edit_pool(network="None", egress=[])
        await system.start()
        await system.until(lambda: not policies(system), "removed")


async def test_without_its_policy_a_pool_makes_no_pods_and_says_why() -> None:
    async with operating() as system:
        system.api.faults.append(Fault("patch", "networkpolicies", times=1, status=403, reason="Forbidden"))
        system.pool(network="Restricted", egress=EGRESS)
        await system.conditions(Progressing="False NetworkPolicyFailed")
        assert not system.pods()
        await system.until(
            lambda: [found["reason"] for found in system.api.store.all("events")] == ["NetworkPolicyFailed"],
            "an event says so",
        )
        await system.ready(2, seconds=20)
        await system.conditions(Progressing="True Complete")


async def test_a_pool_that_is_deleted_takes_its_policy_along() -> None:
    async with operating() as system:
        system.pool(network="Restricted", egress=EGRESS)
        await system.ready(2)
        system.api.store.delete("executionpools", NAMESPACE, "python")
        await system.until(lambda: not policies(system), "gone")

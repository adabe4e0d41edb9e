"""Pools: their size, what is wrong with their pods, changed templates, and late or lost news."""

import asyncio
from typing import Any

import pytest

from contract.fakes.apiserver import Fault, Request
from contract.fakes.store import RefusedError
from contract.fakes.system import System, operating
from kubecoderun_crds import names
from kubecoderun_crds.pool import PoolStatus
from kubecoderun_operator import sizing
from kubecoderun_operator.pool import PoolKeeper
from kubecoderun_sidecar.protocol import Owner

# --- size ---------------------------------------------------------------------------------------------


async def test_scaling() -> None:
    async with operating() as system:
        system.pool(replicas=3)
        await system.ready(3)
        await system.conditions(
            TemplateAccepted="True Accepted", Available="True PodsReady", Progressing="True Complete"
        )
        PoolStatus.model_validate(system.pool_status())
        system.edit_pool(replicas=5)
        await system.ready(5)
        before = system.pod_names()
        system.edit_pool(replicas=1)
        await system.ready(1)
        assert system.pod_names() < before
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods(), "no pods")
        await system.conditions(Available="False ScaledToZero")
        assert system.pool_status()["observedGeneration"] == 4


async def test_pods_that_vanish_are_replaced() -> None:
    async with operating() as system:
        system.pool(replicas=3)
        await system.ready(3)
        before = system.pod_names()
        for name in before:
            system.api.store.delete("pods", "kubecoderun", name)
        await system.until(lambda: len(system.ready_pods()) == 3, "replaced")
        assert not before & system.pod_names()


async def test_scaling_down_spares_pods_with_sessions() -> None:
    async with operating(running_after_seconds=0.1) as system:
        system.pool(replicas=3)
        await system.ready(3)
        sessions = [system.session("sleep:2 print:x") for _ in range(2)]
        await system.until(lambda: len(system.used_pods()) == 2, "assigned")
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods("warm"), "no warm pods")
        assert len(system.used_pods()) == 2
        for session in sessions:
            assert (await system.ended(session))["phase"] == "Succeeded"


async def test_a_warm_pod_is_deleted_only_after_its_sidecar_was_retired() -> None:
    async with operating() as system:
        system.pool(replicas=2)
        await system.ready(2)
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods(), "no pods")
        assert all("retire" in sidecar.calls for sidecar in system.node.sidecars.values())


@pytest.mark.parametrize("silent", [False, True])
async def test_a_pod_that_a_session_holds_is_not_deleted_as_surplus(silent: bool) -> None:
    """Another operator has assigned it, and the news is late. Its sidecar says so, unless it is silent."""
    async with operating() as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        name = pod["metadata"]["name"]
        system.api.watch_delay = lambda resource: 0.5 if resource == "pods" else 0.0
        system.node.sidecar(name).owner = Owner("session", "somebody")
        system.node.sidecar(name).unreachable = silent

        def label(found: dict[str, Any]) -> dict[str, Any]:
            found["metadata"]["labels"][names.LABEL_STATE] = "assigned"
            return found

        system.api.store.change("pods", "kubecoderun", name, label)
        system.edit_pool(replicas=0)
        if not silent:
            await system.until(lambda: "retire" in system.node.sidecar(name).calls, "asked")
        await asyncio.sleep(0.3)
        assert name in system.pod_names()


async def test_a_surplus_pod_with_a_silent_sidecar_is_deleted_although_its_status_changes() -> None:
    async with operating() as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        name = pod["metadata"]["name"]
        system.node.cut_off(name)
        system.api.faults.append(Fault("delete", "pods", times=2, status=409, reason="Conflict"))
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods(), "no pods")


async def test_a_pod_prepared_by_an_operator_that_ended_is_deleted_as_surplus() -> None:
    async with operating() as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        system.node.sidecar(pod["metadata"]["name"]).owner = Owner("session", "somebody")
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods(), "no pods")


async def test_a_late_watch_does_not_lead_to_a_pod_too_many() -> None:
    async with operating() as system:
        system.api.watch_delay = lambda resource: 0.2 if resource == "pods" else 0.0
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                most = max(most, len(system.pods()))
                await asyncio.sleep(0.001)

        counting = asyncio.create_task(count())
        system.pool(replicas=12, maxPods=12)
        await system.ready(12, seconds=20)
        counting.cancel()
        assert most == 12
        assert (
            len(
                [
                    entry
                    for entry in system.api.writes()
                    if entry.verb == "create" and entry.resource == "pods"
                ]
            )
            == 12
        )


async def test_lost_answers_to_creates_do_not_lead_to_a_pod_too_many() -> None:
    async with operating() as system:
        system.api.faults.append(Fault("create", "pods", times=3, status=500, after=True))
        system.pool(replicas=4)
        await system.ready(4)
        await asyncio.sleep(0.2)
        assert len(system.pods()) == 4


async def test_a_create_is_not_repeated_when_its_pod_has_been_seen() -> None:
    """The answer was lost, and before the next attempt the pod was used and removed: its name is free."""
    async with operating() as system:
        answer = Fault("create", "pods", times=1, status=503, after=True, headers=(("Retry-After", "1"),))
        system.pool(replicas=0)
        await system.conditions(TemplateAccepted="True Accepted")
        system.api.faults.append(answer)
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"
        await system.until(lambda: not system.pods(), "it is gone", seconds=0.8)
        await asyncio.sleep(1.5)
        created = [(entry.verb, entry.resource) for entry in system.api.writes()]
        assert ("create", "pods") not in created
        assert system.pods() == []


# --- what is wrong ------------------------------------------------------------------------------------


async def test_a_pool_begins_no_more_pods_than_its_pace_allows() -> None:
    async with operating() as system:
        system.pool(replicas=2, startsPerMinute=2)
        await system.ready(2)
        sessions = [system.session("print:x") for _ in range(3)]
        await system.conditions(Starved="True Paced", Progressing="True Paced")
        created = [
            entry for entry in system.api.writes() if (entry.verb, entry.resource) == ("create", "pods")
        ]
        assert len(created) == 2
        assert system.condition("Starved")["message"].startswith("as many pods as startsPerMinute allows")
        # Twenty a second: the rest comes without anything else happening, and is not more than it may be.
        system.edit_pool(startsPerMinute=1200)
        for session in sessions:
            assert (await system.ended(session))["phase"] == "Succeeded"
        await system.ready(2)
        await system.conditions(Starved="False NothingWaiting", Progressing="True Complete")


async def test_an_image_that_cannot_be_pulled() -> None:
    async with operating() as system:
        system.node.waiting["wrong:1"] = "ImagePullBackOff"
        system.pool(image="wrong:1", replicas=2)
        await system.conditions(Available="False NoReadyPods", Progressing="False ImagePullFailed")
        assert "wrong:1" in system.condition("Progressing")["message"]
        created = len([entry for entry in system.api.writes() if entry.resource == "pods"])
        session = system.session("print:x")
        await system.conditions(Starved="True ImagePullFailed")
        await asyncio.sleep(0.5)
        # One more for the session that waits; the kubelet goes on trying, so nothing is replaced.
        assert len([entry for entry in system.api.writes() if entry.resource == "pods"]) == created + 1
        system.edit_pool(runtime={"image": "python:1", "languages": ["py"]})
        assert (await system.ended(session))["phase"] == "Succeeded"
        await system.conditions(Available="True PodsReady", Progressing="True Complete")


async def test_pods_that_no_node_can_take() -> None:
    async with operating() as system:
        system.node.unschedulable = "0/3 nodes are available: 3 Insufficient memory"
        system.pool()
        await system.conditions(Progressing="False Unschedulable")
        assert "Insufficient memory" in system.condition("Progressing")["message"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
            "TemplateRejected",
        ),
        ('pods "x" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=9', "QuotaExceeded"),
    ],
)
async def test_pods_that_the_api_server_refuses(message: str, reason: str) -> None:
    async with operating(quota_pause_seconds=0.3, backoff_first_seconds=0.1) as system:

        def refuse(resource: str, _: dict[str, Any]) -> None:
            if resource == "pods":
                raise RefusedError(403, "Forbidden", message)

        system.api.store.admit = refuse
        system.pool()
        await system.conditions(Progressing=f"False {reason}")
        assert message in system.condition("Progressing")["message"]
        accepted = system.condition("TemplateAccepted")
        assert accepted["status"] == ("False" if reason == "TemplateRejected" else "True")
        asked = len(system.api.log)
        await asyncio.sleep(1.0)
        # No hot loop: pauses double.
        assert len([entry for entry in system.api.log[asked:] if entry.verb == "create"]) <= 6
        system.api.store.admit = lambda _resource, _object: None
        await system.ready(2)
        await system.conditions(TemplateAccepted="True Accepted", Progressing="True Complete")


async def test_a_refusal_that_takes_longer_than_the_pause_after_it() -> None:
    async with operating(backoff_first_seconds=0.05, api_attempt_seconds=10) as system:
        system.api.held["create", "pods"] = asyncio.Event()
        system.api.store.admit = _refuse_pods
        system.pool()
        await asyncio.sleep(0.5)
        system.api.held.pop(("create", "pods")).set()
        await system.until(lambda: _refusals(system), "a pod is refused")
        system.api.store.admit = lambda _resource, _object: None
        await system.ready(2)


async def test_pods_that_work_do_not_keep_a_pool_busy_while_others_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "PROVEN_SECONDS", 0.1)
    looks, look = [], PoolKeeper._look

    async def counted(keeper: PoolKeeper) -> None:
        looks.append(keeper.name)
        await look(keeper)

    monkeypatch.setattr(PoolKeeper, "_look", counted)
    async with operating(backoff_first_seconds=60) as system:
        system.pool(replicas=2)
        await system.ready(2)
        _make_old(system)
        system.api.store.admit = _refuse_pods
        system.edit_pool(replicas=3)
        await system.until(lambda: _refusals(system), "a pod is refused")
        await asyncio.sleep(0.5)
        looks.clear()
        await asyncio.sleep(0.5)
        assert len(looks) <= 2


def _make_old(system: System) -> None:
    """Pods that were there before a failure say nothing about it; times are in whole seconds."""

    def old(found: dict[str, Any]) -> dict[str, Any]:
        found["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
        found["status"]["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
        return found

    for name in system.pod_names():
        system.api.store.change("pods", "kubecoderun", name, old)


def _refuse_pods(resource: str, _: dict[str, Any]) -> None:
    if resource == "pods":
        raise RefusedError(403, "Forbidden", 'pods "x" is forbidden: not today')


def _refusals(system: System) -> list[Request]:
    return [made for made in system.api.log if (made.verb, made.code) == ("create", 403)]


async def test_a_quota_that_stops_a_pool_half_way_is_told() -> None:
    """Pods that were there before say nothing about it."""
    async with operating(quota_pause_seconds=0.5) as system:
        system.pool(replicas=2)
        await system.ready(2)
        _make_old(system)

        def refuse(resource: str, _: dict[str, Any]) -> None:
            if resource == "pods":
                raise RefusedError(403, "Forbidden", 'pods "x" is forbidden: exceeded quota: q')

        system.api.store.admit = refuse
        system.edit_pool(replicas=4)
        await system.conditions(Progressing="False QuotaExceeded", Available="True PodsReady")
        await asyncio.sleep(0.7)
        await system.conditions(Progressing="False QuotaExceeded")
        system.api.store.admit = lambda _resource, _object: None
        await system.ready(4)
        await system.conditions(Progressing="True Complete")


async def test_failing_pods_are_replaced_ever_more_slowly() -> None:
    async with operating(backoff_first_seconds=0.2) as system:
        system.pool(replicas=2)
        killed: set[str] = set()

        async def kill_all() -> None:
            while True:
                for pod in system.ready_pods():
                    name = pod["metadata"]["name"]
                    if name not in killed:
                        killed.add(name)
                        system.node.kill_container(name, "runtime", "Error", 1)
                await asyncio.sleep(0.01)

        killing = asyncio.create_task(kill_all())
        await system.conditions(Progressing="False PodsFailing")
        assert "runtime ended with Error, exit code 1" in system.condition("Progressing")["message"]
        await asyncio.sleep(2.0)
        killing.cancel()
        # 0.2 + 0.4 + 0.8 + 1.6 s: two pods each time.
        assert 4 <= len(killed) <= 8
        assert len(system.pods()) <= 2
        await system.ready(2)
        await system.conditions(Available="True PodsReady")


async def test_sidecars_that_nobody_can_reach_do_not_cost_a_pod_after_the_other() -> None:
    async with operating(backoff_first_seconds=0.5) as system:
        system.pool(replicas=3)
        await system.ready(3)

        async def cut_off_all() -> None:
            while True:
                for name in system.pod_names("warm"):
                    if name in system.node.sidecars:
                        system.node.cut_off(name)
                await asyncio.sleep(0.005)

        cutting = asyncio.create_task(cut_off_all())
        session = system.session("print:x")
        await system.conditions(Progressing="False PodsFailing")
        assert "sidecar" in system.condition("Progressing")["message"]
        await asyncio.sleep(1.0)
        made = [entry for entry in system.api.writes() if (entry.verb, entry.resource) == ("create", "pods")]
        assert len(made) <= 8
        cutting.cancel()
        assert (await system.ended(session, seconds=20))["reason"] in ("Succeeded", "OperatorError")

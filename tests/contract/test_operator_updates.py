"""Pools whose template changes, and news that never comes."""

import asyncio
from typing import Any

import pytest

from contract.fakes.store import RefusedError
from contract.fakes.system import operating
from kubecoderun_crds import names

# --- templates ----------------------------------------------------------------------------------------


async def test_a_rolling_update_keeps_pods_ready() -> None:
    async with operating() as system:
        system.pool(replicas=4, maxPods=20)
        await system.ready(4)
        before = system.pod_names()
        system.node.ready_after = 0.1
        least = 4

        async def watch() -> None:
            nonlocal least
            while True:
                least = min(least, len(system.ready_pods()))
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        session = system.session("sleep:0.5 print:x")
        await system.until(lambda: system.used_pods(), "assigned")
        await system.until(lambda: len(system.ready_pods()) == 4, "replaced")
        least, revision = 4, system.pool_status()["revision"]
        system.edit_pool(runtime={"image": "python:2", "languages": ["py"]})
        await system.until(lambda: system.pool_status()["revision"] != revision, "seen")
        await system.until(
            lambda: system.pool_status()["updatedReplicas"] == 4 and len(system.ready_pods()) == 4, "updated"
        )
        watching.cancel()
        assert least >= 3
        assert not before & system.pod_names("warm")
        assert (await system.ended(session))["phase"] == "Succeeded"
        await system.conditions(Progressing="True Complete")


async def test_on_replenish_uses_old_pods_up() -> None:
    async with operating() as system:
        system.pool(replicas=2, updateStrategy={"type": "OnReplenish"})
        await system.ready(2)
        before = system.pod_names()
        system.edit_pool(runtime={"image": "python:2", "languages": ["py"]})
        await asyncio.sleep(0.3)
        assert system.pod_names() == before
        await system.ended(system.session("print:x"))

        def images() -> list[str]:
            return sorted(pod["spec"]["containers"][1]["image"] for pod in system.ready_pods())

        await system.until(lambda: images() == ["python:1", "python:2"], "one is replaced")


async def test_a_template_that_is_refused_leaves_old_pods_in_service() -> None:
    async with operating() as system:
        system.pool(replicas=2)
        await system.ready(2)
        before = system.pod_names()

        def refuse(resource: str, found: dict[str, Any]) -> None:
            if resource == "pods" and found["spec"]["containers"][1]["image"] == "python:2":
                raise RefusedError(403, "Forbidden", "image not allowed")

        system.api.store.admit = refuse
        system.edit_pool(runtime={"image": "python:2", "languages": ["py"]})
        await system.conditions(TemplateAccepted="False TemplateRejected", Available="True PodsReady")
        assert system.pod_names() == before
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"


async def test_an_edit_that_changes_no_pod_replaces_none() -> None:
    async with operating() as system:
        system.pool(replicas=2)
        await system.ready(2)
        before = system.pod_names()
        system.edit_pool(runtime={"languages": ["py"], "image": "python:1"}, onEmpty={"waitSeconds": 9})
        await system.until(lambda: system.pool_status()["observedGeneration"] == 2, "seen")
        await asyncio.sleep(0.2)
        assert system.pod_names() == before


# --- news that never comes ----------------------------------------------------------------------------


async def test_a_gap_in_the_watch_of_sessions() -> None:
    async with operating() as system:
        system.pool(replicas=3)
        await system.ready(3)
        made: list[dict[str, Any]] = []
        system.api.store.forget_history(
            names.SESSION_PLURAL, quietly=lambda: made.append(system.session("print:x"))
        )
        assert (await system.ended(made[0]))["phase"] == "Succeeded"
        assert (await system.ended(system.session("print:y")))["phase"] == "Succeeded"


async def test_a_gap_in_the_watch_of_pods() -> None:
    """Deletions in the gap are never seen; a session that gets such a pod takes the next, and a sweep
    tidies up."""
    async with operating(sweep_pods_seconds=0.5) as system:
        system.pool(replicas=3)
        await system.ready(3)
        gone = sorted(system.pod_names())[:2]

        def delete() -> None:
            for name in gone:
                system.node.cut_off(name)
                system.api.store.delete("pods", "kubecoderun", name)

        system.api.store.forget_history("pods", quietly=delete)
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"
        await system.until(lambda: len(system.ready_pods()) == 3, "replaced")


async def test_a_pod_whose_events_got_lost_is_found_out() -> None:
    """Its readiness would otherwise never be known: nothing more happens to a warm pod."""
    async with operating(sweep_pods_seconds=0.3) as system:
        system.pool(replicas=1)
        await system.ready(1)
        system.api.unseen.add("pods")
        system.edit_pool(replicas=2)
        await system.until(lambda: len(system.ready_pods()) == 2, "the second pod is ready")
        await system.until(lambda: system.pool_status()["readyReplicas"] == 2, "known", seconds=3)


async def test_a_pool_that_was_deleted_in_a_gap_gets_no_pods_any_more() -> None:
    async with operating(sweep_pods_seconds=0.3) as system:
        system.pool(replicas=2)
        await system.ready(2)

        def delete() -> None:
            system.api.store.delete(names.POOL_PLURAL, "kubecoderun", "python")

        system.api.store.forget_history(names.POOL_PLURAL, quietly=delete)
        await asyncio.sleep(0.8)
        for name in system.pod_names():  # as the garbage collector does
            system.api.store.delete("pods", "kubecoderun", name)
        await asyncio.sleep(0.5)
        assert not system.pods()


async def test_a_pod_that_is_being_removed_is_no_orphan_although_the_news_is_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with operating(sweep_pods_seconds=0.05) as system:
        system.pool(replicas=2)
        await system.ready(2)
        system.node.ends_after = 0.3
        system.api.watch_delay = lambda resource: 0.2 if resource == "pods" else 0.0
        for _ in range(3):
            assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"
        await system.ready(2)
        assert "a pod outlived its session" not in caplog.messages


async def test_an_orphan_is_removed() -> None:
    """Its session was deleted while nobody watched."""
    async with operating(sweep_pods_seconds=0.3) as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        name = pod["metadata"]["name"]

        def label(found: dict[str, Any]) -> dict[str, Any]:
            found["metadata"]["labels"].update(
                {
                    names.LABEL_STATE: "assigned",
                    names.LABEL_SESSION: "gone",
                    names.LABEL_SESSION_UID: "gone-uid",
                }
            )
            return found

        system.api.store.change("pods", "kubecoderun", name, label)
        await system.until(lambda: name not in system.pod_names(), "removed")
        await system.until(lambda: len(system.ready_pods()) == 1, "replaced")


async def test_a_quiet_pool_writes_nothing() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        await asyncio.sleep(2.5)
        mark = len(system.api.log)
        await asyncio.sleep(1.5)
        assert system.api.writes(since=mark) == []

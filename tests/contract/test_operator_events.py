"""Events on pools: each reason is posted when it should be, counted when it comes again, and not repeated
without need. A session that ends as sessions should makes none."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from contract.fakes.apiserver import Fault
from contract.fakes.store import RefusedError
from contract.fakes.system import System, operating
from kubecoderun_crds.reasons import NORMAL_EVENTS

Json = dict[str, Any]


def events(system: System, reason: str = "") -> list[Json]:
    return [found for found in system.api.store.all("events") if not reason or found["reason"] == reason]


async def posted(system: System, reason: str, count: int = 1) -> Json:
    """The one Event of this reason, once it has happened so often."""
    await system.until(
        lambda: [found["count"] for found in events(system, reason)] == [count],
        f"event {reason}, {count} times; there is {events(system)}",
    )
    (found,) = events(system, reason)
    about = found["involvedObject"]
    pool = system.api.store.get("executionpools", "kubecoderun", about["name"])
    assert (about["kind"], about["uid"]) == ("ExecutionPool", pool["metadata"]["uid"])
    assert found["type"] == ("Normal" if reason in NORMAL_EVENTS else "Warning")
    assert found["firstTimestamp"] <= found["lastTimestamp"]
    return found


def refuses(message: str) -> Callable[[str, Json], None]:
    def refuse(resource: str, _: Json) -> None:
        if resource == "pods":
            raise RefusedError(403, "Forbidden", message)

    return refuse


# --- what keeps a pool from getting pods --------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "TemplateRejected"),
        ('pods "x" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded"),
    ],
)
async def test_pods_that_the_api_server_refuses(message: str, reason: str) -> None:
    async with operating(quota_pause_seconds=0.2, backoff_first_seconds=0.1) as system:
        system.api.store.admit = refuses(message)
        system.pool()
        assert message in (await posted(system, reason))["message"]
        system.api.store.admit = lambda _resource, _object: None
        await posted(system, "Recovered")


async def test_an_image_that_cannot_be_pulled() -> None:
    async with operating() as system:
        system.node.waiting["wrong:1"] = "ImagePullBackOff"
        system.pool(image="wrong:1")
        assert "wrong:1" in (await posted(system, "ImagePullFailed"))["message"]
        system.edit_pool(runtime={"image": "python:1", "languages": ["py"]})
        await posted(system, "Recovered")


async def test_pods_that_no_node_can_take() -> None:
    async with operating() as system:
        system.node.unschedulable = "0/3 nodes are available: 3 Insufficient memory"
        system.pool()
        assert "Insufficient memory" in (await posted(system, "Unschedulable"))["message"]


async def test_pods_that_fail() -> None:
    async with operating(backoff_first_seconds=0.5) as system:
        system.pool(replicas=1)
        await system.ready(1)
        (name,) = system.pod_names("warm")
        system.node.kill_container(name, "runtime", "Error", 1)
        found = await posted(system, "PodsFailing")
        assert "runtime ended with Error, exit code 1" in found["message"]


async def test_sessions_that_wait_for_a_pool_at_its_limit() -> None:
    async with operating() as system:
        system.pool(replicas=1, maxPods=1)
        await system.ready(1)
        system.session("sleep:2")
        system.session("print:x")
        await posted(system, "AtMaxPods")


# --- runs that were lost ------------------------------------------------------------------------------


async def lost(system: System, strike: Callable[[str], object], code: str = "sleep:30") -> Json:
    """Do that to the pod of a running session; the session."""
    session = system.session(code)
    uid = session["metadata"]["uid"]
    await system.until(lambda: any(side.starts for side in system.node.of_session(uid)), "the program runs")
    strike(system.status(session)["pod"]["name"])
    await system.ended(session, seconds=20)
    return session


async def test_lost_runs() -> None:
    async with operating(ending_grace_seconds=0.1) as system:
        system.pool(replicas=4)
        await system.ready(4)
        node, store = system.node, system.api.store

        def end_sidecar(pod: str) -> None:
            node.cut_off(pod)
            node.kill_container(pod, "sidecar", "Error", 137)

        strikes: dict[str, tuple[Callable[[str], object], str]] = {
            "PodLost": (lambda pod: store.delete("pods", "kubecoderun", pod), "sleep:30"),
            "SidecarLost": (end_sidecar, "sleep:30"),
            "RuntimeLost": (lambda pod: node.kill_container(pod, "runtime", "Error", 137), "sleep:0.1 lost"),
            "NodeLost": (node.fall_silent, "sleep:30"),
        }
        for reason, (strike, code) in strikes.items():
            session = await lost(system, strike, code)
            assert system.status(session)["reason"] == reason
            found = await posted(system, reason)
            assert found["message"].startswith(f"session {session['metadata']['name']}: ")


# --- not more than that -------------------------------------------------------------------------------


async def test_what_comes_again_is_counted_and_seldom_written() -> None:
    async with operating(event_pause_seconds=1.0) as system:
        system.pool(replicas=4)
        await system.ready(4)
        sessions = [
            await lost(system, lambda pod: system.api.store.delete("pods", "kubecoderun", pod))
            for _ in range(4)
        ]
        found = await posted(system, "PodLost", 4)
        assert sessions[-1]["metadata"]["name"] in found["message"]
        written = [entry for entry in system.api.writes() if entry.resource == "events"]
        assert 2 <= len(written) <= 4
        assert [entry.verb for entry in written] == ["create"] + ["patch"] * (len(written) - 1)


async def test_an_event_that_the_api_server_has_forgotten_is_made_anew() -> None:
    async with operating(event_pause_seconds=0.2) as system:
        system.pool(replicas=4)
        await system.ready(4)
        await lost(system, lambda pod: system.api.store.delete("pods", "kubecoderun", pod))
        before = await posted(system, "PodLost")
        system.api.store.delete("events", "kubecoderun", before["metadata"]["name"])
        await lost(system, lambda pod: system.api.store.delete("pods", "kubecoderun", pod))
        await posted(system, "PodLost", 2)


async def test_events_that_cannot_be_posted_harm_nobody() -> None:
    async with operating() as system:
        system.api.faults.append(Fault("create", "events", times=100, status=403))
        system.pool()
        await system.ready(2)
        await lost(system, lambda pod: system.api.store.delete("pods", "kubecoderun", pod))
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"
        assert events(system) == []


async def test_normal_sessions_and_pools_make_none() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        for code in ("print:x", "exit:1", "signal:SIGSEGV", "timeout"):
            await system.ended(system.session(code))
        running = system.session("sleep:30")
        await asyncio.sleep(0.3)
        system.cancel(running)
        await system.ended(running)
        system.edit_pool(replicas=0)
        await system.until(lambda: not system.pods(), "no pods")
        system.edit_pool(replicas=1)
        await system.ready(1)
        assert events(system) == []


async def test_a_new_operator_does_not_repeat_what_stands_there() -> None:
    async with operating() as system:
        system.node.unschedulable = "0/3 nodes are available"
        system.pool()
        await posted(system, "Unschedulable")
        await system.conditions(Progressing="False Unschedulable")
        await system.stop(system.apps[0][0])
        await system.start()
        await asyncio.sleep(1.0)
        assert len(events(system)) == 1

"""Operators that end in the middle, and two at once. What a new one finds, and what it makes of it."""

import asyncio
import copy
from typing import Any

import pytest

from contract.fakes.node import moment
from contract.fakes.rival import overtaken
from contract.fakes.system import SHORT_LEASE, System, operating, running, system
from kubecoderun_crds import names
from kubecoderun_sidecar.protocol import Captured, RunResult, Usage


async def test_a_run_survives_its_operator() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:1.5 print:done")
        await on.kill(first)
        await on.start()
        status = await on.ended(session)
        assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "done")
        assert (status["attempts"], status["epoch"]) == (1, 2)
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.starts == 1
        await on.until(lambda: not on.used_pods() and len(on.ready_pods()) == 2, "a full pool")


async def test_a_run_that_ended_while_nobody_looked_has_its_result() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:0.2 print:done")
        await on.kill(first)
        await asyncio.sleep(0.5)
        await on.start()
        assert (await on.ended(session))["result"]["stdout"] == "done"


async def test_killed_between_prepare_and_the_status_that_names_the_pod() -> None:
    """No status names a pod: the session never started, and runs in another pod. The prepared one is no use
    to others, and is found out and removed."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        on.api.held["patch", "executionsessions/status"] = asyncio.Event()
        session = on.session("print:x")
        uid = session["metadata"]["uid"]
        await on.until(lambda: on.node.of_session(uid), "prepared")
        await on.kill(first)
        del on.api.held["patch", "executionsessions/status"]
        await on.start()
        status = await on.ended(session)
        assert status["phase"] == "Succeeded"
        others = [on.session("print:y") for _ in range(4)]
        for other in others:
            assert (await on.ended(other))["phase"] == "Succeeded"
        assert sum(sidecar.starts for sidecar in on.node.of_session(uid)) == 1


async def test_killed_between_the_status_and_the_start() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = on.session("print:x")
        uid = session["metadata"]["uid"]
        held = asyncio.Event()
        original = on.node.__class__._answer

        async def slow(node: Any, request: Any) -> Any:
            if request.path == "/v1/start" and not held.is_set():
                await held.wait()
            return await original(node, request)

        on.node._answer = slow.__get__(on.node)  # type: ignore[method-assign]
        await on.until(lambda: on.used_pods(), "named")
        await on.kill(first)
        held.set()
        await on.start()
        status = await on.ended(session)
        assert (status["phase"], status["attempts"]) == ("Succeeded", 1)
        assert sum(sidecar.starts for sidecar in on.node.of_session(uid)) == 1


async def test_a_named_pod_that_was_never_prepared_is_used() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        for sidecar in on.node.sidecars.values():
            sidecar.deaf = True
        session = on.session("print:x")
        await on.until(lambda: on.used_pods(), "named")
        await on.kill(first)
        for sidecar in on.node.sidecars.values():
            sidecar.deaf = False
        assert not on.node.of_session(session["metadata"]["uid"]), "nothing was prepared"
        await on.start()
        status = await on.ended(session)
        assert status["phase"] == "Succeeded"


async def test_a_session_whose_pod_vanished_while_nobody_watched_does_not_run_again() -> None:
    """Its status names the pod: the program may have run there."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:0.3 print:x")
        waiting = on.session("print:y", pool="none")
        await on.kill(first)
        (pod,) = on.used_pods()
        on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        await on.start()
        status = await on.ended(session)
        assert (status["reason"], status["pod"]["name"]) == ("PodLost", pod["metadata"]["name"])
        assert sum(side.starts for side in on.node.of_session(session["metadata"]["uid"])) == 1
        assert (await on.ended(waiting))["reason"] == "PoolNotFound"


async def test_sessions_that_nobody_can_have_started_run() -> None:
    """Made before the operator ended, but not yet given a pod; and made while there was none."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool(replicas=0, maxPods=1)
        on.node.unschedulable = "0/1 nodes"
        early = on.session("print:early")
        await on.until(lambda: on.pods(), "a pod is made for it")
        await on.kill(first)
        late = on.session("print:late")
        on.node.unschedulable = ""
        for pod in on.pods():
            on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        await on.start()
        assert (await on.ended(early))["result"]["stdout"] == "early"
        assert (await on.ended(late))["result"]["stdout"] == "late"


async def test_a_running_session_without_a_pod_is_lost() -> None:
    async with system(**SHORT_LEASE, running_after_seconds=0.1) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        await on.until(lambda: on.status(session).get("phase") == "Running", "written")
        await on.kill(first)
        (pod,) = on.used_pods()
        on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        await on.start()
        status = await on.ended(session)
        assert (status["phase"], status["reason"]) == ("Failed", "PodLost")
        assert status["pod"]["name"] == pod["metadata"]["name"]


def store_result(on: System, session: dict[str, Any], started: str, stdout: str) -> None:
    """As the sidecar does at the end of a run of more than a second, before it tells anybody."""
    result = RunResult(
        "Succeeded", 0, None, started, moment(), moment(), Captured(stdout), Captured(), True, Usage()
    )
    key = f"/kubecoderun/kubecoderun/kubecoderun/{session['metadata']['name']}/result.json"
    on.objects.objects[key] = result.to_json()


async def test_a_run_that_ended_before_its_pod_was_lost_has_its_result() -> None:
    """Nobody was there to hear it: the operator was gone, and then the pod."""
    async with system(**SHORT_LEASE, running_after_seconds=0.1) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        await on.until(lambda: on.status(session).get("phase") == "Running", "written")
        await on.kill(first)
        (pod,) = on.used_pods()
        store_result(on, session, moment(), "done")
        on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        await on.start()
        status = await on.ended(session)
        assert (status["reason"], status["result"]["stdout"]) == ("Succeeded", "done")
        assert status["pod"]["name"] == pod["metadata"]["name"]


async def test_a_result_is_read_when_the_pod_is_lost_while_the_operator_looks() -> None:
    async with operating(running_after_seconds=0.1) as on:
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        await on.until(lambda: on.status(session).get("phase") == "Running", "written")
        (pod,) = on.used_pods()
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        store_result(on, session, sidecar.started_at, "done")
        on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        status = await on.ended(session, seconds=5)
        assert (status["reason"], status["result"]["stdout"]) == ("Succeeded", "done")


async def test_a_result_is_read_when_the_node_has_fallen_silent() -> None:
    async with operating(running_after_seconds=0.1) as on:
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        pod = on.status(session)["pod"]["name"]
        store_result(on, session, on.node.sidecar(pod).started_at, "done")
        on.node.fall_silent(pod)
        status = await on.ended(session, seconds=20)
        assert (status["reason"], status["result"]["stdout"]) == ("Succeeded", "done")


@pytest.mark.parametrize("broken", ["other run", "not a result", "store is down"])
async def test_a_result_that_cannot_be_trusted_or_read_is_none(broken: str) -> None:
    """A session of the same name may have been there before, and its result still is."""
    async with operating(running_after_seconds=0.1) as on:
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        await on.until(lambda: on.status(session).get("phase") == "Running", "written")
        (pod,) = on.used_pods()
        store_result(on, session, "2020-01-01T00:00:00.000000Z", "of yesterday")
        if broken == "not a result":
            for key in on.objects.objects:
                on.objects.objects[key] = b"<xml/>"
        elif broken == "store is down":
            on.objects.statuses = [503] * 100
        on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        status = await on.ended(session, seconds=5)
        assert status["reason"] == "PodLost"
        assert "result" not in status


async def test_a_named_pod_that_is_silent_is_lost() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        await on.kill(first)
        (pod,) = on.used_pods()
        on.node.cut_off(pod["metadata"]["name"])
        await on.start()
        status = await on.ended(session, seconds=10)
        assert (status["phase"], status["reason"]) == ("Failed", "SidecarLost")
        await on.until(lambda: not on.used_pods(), "removed")


async def test_a_free_looking_pod_of_a_session_that_is_over_is_removed() -> None:
    """The operator ended between the answer and the removal, or the session was deleted meanwhile."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:30")
        (pod,) = on.used_pods()
        await on.kill(first)
        on.api.store.delete(names.SESSION_PLURAL, "kubecoderun", session["metadata"]["name"])
        await on.start()
        await on.until(lambda: pod["metadata"]["name"] not in on.pod_names(), "removed")
        await on.ready(2)


async def test_the_status_of_an_earlier_operator_that_lands_late_decides() -> None:
    """It names another pod than the one this operator has chosen, which has not started anything yet."""
    async with system(**SHORT_LEASE) as on:
        session, early = await overtaken(on, "print:x")
        uid = session["metadata"]["uid"]
        status = await on.ended(session)
        assert (status["phase"], status["pod"]["uid"], status["attempts"]) == ("Succeeded", early.pod_uid, 1)
        assert sum(side.starts for side in on.node.sidecars.values()) == 1
        await on.until(lambda: not {side.pod_uid for side in on.node.of_session(uid)} & _uids(on), "removed")
        await on.ready(3)


def _uids(on: System) -> set[str]:
    return {pod["metadata"]["uid"] for pod in on.pods()}


async def test_waiting_sessions_go_on_waiting() -> None:
    async with system(**SHORT_LEASE, queued_after_seconds=0.05) as on:
        first = await on.start()
        on.node.unschedulable = "0/1 nodes"
        on.pool(replicas=0)
        session = on.session("print:x")
        await on.until(lambda: on.status(session).get("phase") == "Queued", "queued")
        await on.kill(first)
        on.node.unschedulable = ""
        for pod in on.pods():
            on.api.store.delete("pods", "kubecoderun", pod["metadata"]["name"])
        await on.start()
        status = await on.ended(session)
        assert (status["phase"], status["startType"]) == ("Succeeded", "Waited")


async def test_a_restart_changes_nothing_that_is_in_order() -> None:
    async with system() as on:
        first = await on.start()
        on.pool(replicas=5)
        await on.ready(5)
        before = {pod["metadata"]["uid"] for pod in on.pods()}
        await on.stop(first)
        mark = len(on.api.log)
        await on.start()
        await asyncio.sleep(0.7)
        assert on.api.writes(since=mark) == []
        assert {pod["metadata"]["uid"] for pod in on.pods()} == before


async def test_nothing_is_removed_before_sessions_are_taken_over() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool(replicas=2)
        await on.ready(2)
        session = await running(on, "sleep:0.8 print:x")
        await on.kill(first)
        on.edit_pool(replicas=0)
        mark = len(on.api.log)
        await on.start()
        assert (await on.ended(session))["phase"] == "Succeeded"
        order = [(entry.verb, entry.resource) for entry in on.api.log[mark:]]
        assert order.index(("list", names.SESSION_PLURAL)) < order.index(("delete", "pods"))


async def test_the_operator_waits_for_its_kinds() -> None:
    async with system() as on:
        on.api.kinds_served = False
        app = await on.start(wait=False)
        await asyncio.sleep(0.3)
        assert not app.ready.is_set()
        on.api.kinds_served = True
        await asyncio.wait_for(app.ready.wait(), 5)
        on.pool()
        await on.ready(2)


async def test_an_etcd_restored_from_a_backup() -> None:
    """Sessions and pods of then are there again, those since then are not, and the Lease has an older count
    than sidecars have seen. Nothing runs twice that had ended then, and new sessions are served."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool(replicas=3)
        await on.ready(3)
        ended = on.session("print:old")
        await on.ended(ended)
        await on.ready(3)
        backup = {name: copy.deepcopy(each.objects) for name, each in on.api.store.collections.items()}
        await on.stop(first)
        for _ in range(3):
            await on.stop(await on.start())
        last = await on.start()
        since = on.session("print:new")
        await on.ended(since)
        await on.stop(last)
        started = len([side for side in on.node.sidecars.values() if side.starts])

        for name, collection in on.api.store.collections.items():
            collection.objects = backup[name]
        # What the node has of these pods has another owner by now, or is not there any more.
        assert on.pods()
        await on.start()
        assert on.status(ended)["reason"] == "Succeeded"
        status = await on.ended(on.session("print:x"), seconds=20)
        assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "x")
        assert len([side for side in on.node.sidecars.values() if side.starts]) == started + 1
        await on.ready(3, seconds=20)

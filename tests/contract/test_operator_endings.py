"""Sessions that do not run to their end: refused, waiting, cancelled, deleted, lost; and what is deleted
when."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from contract.fakes.system import System, operating
from kubecoderun_crds import names


async def one_running(system: System, code: str = "sleep:30") -> tuple[dict, str]:  # type: ignore[type-arg]
    """A session whose program has started, and the name of its pod."""
    session = system.session(code)
    uid = session["metadata"]["uid"]
    await system.until(lambda: any(side.starts for side in system.node.of_session(uid)), "the program runs")
    return session, system.pod_of(session)["metadata"]["name"]


# --- refused ------------------------------------------------------------------------------------------


async def test_refusals() -> None:
    async with operating() as system:
        system.pool(limits={"maxTimeoutSeconds": 60})
        await system.ready(2)
        refused = {
            "PoolNotFound": system.session(pool="none"),
            "LanguageNotInPool": system.session(language="rs"),
            "InvalidRequest": system.session(args=[7]),
        }
        for reason, session in refused.items():
            status = await system.ended(session)
            assert (status["phase"], status["reason"]) == ("Failed", reason)
            assert "pod" not in status
        assert len(system.ready_pods()) == 2


async def test_a_pool_that_events_have_not_shown_yet_is_asked_for() -> None:
    async with operating() as system:
        system.api.watch_delay = lambda resource: 0.5 if resource == names.POOL_PLURAL else 0.0
        system.pool()
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"


# --- waiting ------------------------------------------------------------------------------------------


async def test_sessions_wait_in_their_order_and_pods_are_made_for_them() -> None:
    async with operating(queued_after_seconds=0.05) as system:
        system.node.ready_after = 0.3
        system.pool(replicas=0, maxPods=2)
        await system.until(system.pool_status, "the pool is known")
        sessions = [system.session(f"sleep:0.1 print:{number}") for number in range(5)]
        await system.until(lambda: system.status(sessions[4]).get("phase") == "Queued", "queued")
        assert system.status(sessions[4])["reason"] == "WaitingForPod"
        await system.until(lambda: system.condition("Starved").get("status") == "True", "starved")
        found, most = [], [0]
        for session in sessions:
            found.append(await system.ended(session))
            most.append(len(system.pods()))
        assert [status["phase"] for status in found] == ["Succeeded"] * 5
        assert {status["startType"] for status in found} == {"Waited"}
        starts = [status["timings"]["started"] for status in found]
        assert starts == sorted(starts)
        assert max(most) <= 2


async def test_a_short_wait_costs_no_write() -> None:
    async with operating() as system:
        system.node.ready_after = 0.2
        system.pool(replicas=0)
        session = system.session("print:x")
        assert (await system.ended(session))["startType"] == "Waited"
        written = [entry for entry in system.api.writes() if entry.name == session["metadata"]["name"]]
        assert [entry.body[1]["value"]["phase"] for entry in written] == ["Running", "Succeeded"]


async def test_an_empty_pool_that_rejects() -> None:
    async with operating() as system:
        system.pool(replicas=1, onEmpty={"policy": "Reject"})
        await system.ready(1)
        first, second = system.session("sleep:0.5"), system.session("print:x")
        status = await system.ended(second)
        assert (status["phase"], status["reason"]) == ("Failed", "PoolEmpty")
        assert (await system.ended(first))["phase"] == "Succeeded"


async def test_a_wait_that_expires() -> None:
    async with operating() as system:
        system.node.unschedulable = "0/1 nodes are available: insufficient cpu"
        system.pool(replicas=0, onEmpty={"waitSeconds": 1})
        session = system.session("print:x")
        status = await system.ended(session)
        assert (status["phase"], status["reason"]) == ("Failed", "WaitExpired")
        await system.until(lambda: not system.pods(), "the pod made for it is gone")


async def test_a_pool_that_is_deleted_while_sessions_wait() -> None:
    async with operating() as system:
        system.pool(replicas=1, maxPods=1)
        await system.ready(1)
        running, _ = await one_running(system, "sleep:0.5 print:x")
        waiting = system.session("print:y")
        await asyncio.sleep(0.1)
        system.api.store.delete(names.POOL_PLURAL, "kubecoderun", "python")
        assert (await system.ended(waiting))["reason"] == "PoolNotFound"
        assert (await system.ended(running))["phase"] == "Succeeded"
        await system.until(lambda: not system.pods(), "no pods")


# --- cancelled and deleted ------------------------------------------------------------------------------


async def test_cancelling() -> None:
    async with operating() as system:
        system.pool(replicas=1, maxPods=1)
        await system.ready(1)
        running, pod = await one_running(system)
        waiting = system.session("print:x")
        await asyncio.sleep(0.05)
        system.cancel(waiting)
        status = await system.ended(waiting)
        assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
        assert "pod" not in status
        system.cancel(running)
        status = await system.ended(running)
        assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
        assert status["pod"]["name"] == pod
        await system.until(
            lambda: pod not in [found["metadata"]["name"] for found in system.pods()], "removed"
        )


async def test_a_session_that_is_cancelled_before_it_is_seen_gets_no_pod() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        system.api.watch_delay = lambda resource: 0.2 if resource == names.SESSION_PLURAL else 0.0
        mark = len(system.api.log)
        session = system.session("print:x")
        system.cancel(session)
        await system.ended(session)
        # The first event still says nothing of it: the pod may have been taken, but nothing has started.
        assert all(side.starts <= 1 for side in system.node.sidecars.values())
        assert system.api.writes(since=mark)


async def test_a_session_that_is_deleted_takes_its_pod_along() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session, pod = await one_running(system)
        system.api.store.delete(names.SESSION_PLURAL, "kubecoderun", session["metadata"]["name"])
        await system.until(
            lambda: pod not in [found["metadata"]["name"] for found in system.pods()], "removed"
        )
        await system.ready(2)


async def test_a_waiting_session_that_is_deleted_frees_its_place() -> None:
    async with operating() as system:
        system.pool(replicas=1, maxPods=1)
        await system.ready(1)
        first, _ = await one_running(system, "sleep:0.4")
        second, third = system.session("print:second"), system.session("print:third")
        await asyncio.sleep(0.1)
        system.api.store.delete(names.SESSION_PLURAL, "kubecoderun", second["metadata"]["name"])
        assert (await system.ended(first))["phase"] == "Succeeded"
        assert (await system.ended(third))["phase"] == "Succeeded"
        assert not system.node.of_session(second["metadata"]["uid"])


# --- lost ---------------------------------------------------------------------------------------------


async def test_a_pod_that_is_deleted_while_its_program_runs() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session, pod = await one_running(system)
        system.api.store.delete("pods", "kubecoderun", pod)
        status = await system.ended(session, seconds=5)
        assert (status["phase"], status["reason"]) == ("Failed", "PodLost")
        assert status["pod"]["name"] == pod


@pytest.mark.parametrize(
    ("container", "ending", "code", "reason"),
    [
        ("runtime", "OOMKilled", "sleep:0.1 lost", "OOMKilled"),
        ("runtime", "Error", "sleep:0.1 lost", "RuntimeLost"),
        ("sidecar", "Error", "sleep:30", "SidecarLost"),
    ],
)
async def test_a_container_that_ends(container: str, ending: str, code: str, reason: str) -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session, pod = await one_running(system, code)
        await asyncio.sleep(0.2)
        if container == "sidecar":
            system.node.cut_off(pod)
        system.node.kill_container(pod, container, ending, 137)
        status = await system.ended(session)
        assert (status["phase"], status["reason"]) == ("Failed", reason)
        assert status["pod"]["name"] == pod
        await system.until(
            lambda: pod not in [found["metadata"]["name"] for found in system.pods()], "removed"
        )


async def test_a_sidecar_that_falls_silent() -> None:
    async with operating(sidecar_silence_seconds=0.3, sidecar_attempts=3) as system:
        system.pool()
        await system.ready(2)
        session = system.session("sleep:30")
        uid = session["metadata"]["uid"]
        await system.until(
            lambda: any(side.starts for side in system.node.of_session(uid)), "the program runs"
        )
        (sidecar,) = system.node.of_session(uid)
        sidecar.unreachable = True
        status = await system.ended(session)
        assert (status["phase"], status["reason"]) == ("Failed", "SidecarLost")


async def test_a_node_that_falls_silent() -> None:
    """Nothing breaks and nobody says anything: neither the connection nor the API server."""
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session, pod = await one_running(system)
        system.node.fall_silent(pod)
        status = await system.ended(session, seconds=20)
        assert (status["phase"], status["reason"]) == ("Failed", "NodeLost")
        assert status["message"] == "node node-1 does not answer"
        assert status["pod"]["name"] == pod


async def test_a_pause_of_the_sidecar_costs_nothing_but_time() -> None:
    """As on a node that is busy beyond measure: its kernel takes connections, its processes do nothing."""
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session, pod = await one_running(system, "sleep:1 print:x")
        sidecar = system.node.sidecar(pod)
        sidecar.frozen = True
        await asyncio.sleep(7)
        assert system.status(session).get("phase") in (None, "Running")
        sidecar.frozen = False
        status = await system.ended(session)
        assert (status["phase"], status["result"]["stdout"]) == ("Succeeded", "x")
        assert (status["attempts"], sidecar.starts) == (1, 1)


# --- deleted when their time has come -------------------------------------------------------------------


def expiring(system: System, seconds: float, **request: object) -> dict:  # type: ignore[type-arg]
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return system.session("print:x", expires_at=at, **request)  # type: ignore[arg-type]


def exists(system: System, session: dict) -> bool:  # type: ignore[type-arg]
    key = ("kubecoderun", session["metadata"]["name"])
    return key in system.api.store.collections[names.SESSION_PLURAL].objects


async def test_a_session_is_deleted_when_it_says() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session = expiring(system, 1.0)
        await system.ended(session)
        assert exists(system, session)
        await system.until(lambda: not exists(system, session), "deleted", seconds=3)


async def test_an_expiry_that_is_moved_counts() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session = expiring(system, 0.8)
        await system.ended(session)
        system.edit_session(session, expiresAt=(datetime.now(UTC) + timedelta(seconds=60)).isoformat())
        await asyncio.sleep(1.2)
        assert exists(system, session)


async def test_finished_sessions_of_an_earlier_process_are_found_and_deleted() -> None:
    async with operating(sweep_sessions_seconds=0.2) as system:
        system.pool()
        session = system.session("print:x")
        await system.ended(session)
        await system.stop(system.apps[0][0])

        def age(found: dict) -> dict:  # type: ignore[type-arg]
            found["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
            found["status"]["timings"]["completed"] = "2020-01-01T00:00:00Z"
            return found

        store = system.api.store
        name = session["metadata"]["name"]
        store.collections[names.SESSION_PLURAL].objects["kubecoderun", name] = age(
            store.get(names.SESSION_PLURAL, "kubecoderun", name)
        )
        await system.start()
        await system.until(lambda: not exists(system, session), "deleted")

"""Workspaces: the real operator between a fake API server and a fake node."""

import asyncio
import itertools
from typing import Any

import pytest

from contract.fakes.store import Json
from contract.fakes.system import SHORT_LEASE, System, operating, system
from kubecoderun_crds import names
from kubecoderun_sidecar.protocol import Refusal


async def active(on: System, workspace: Json) -> Json:
    """Its status, once it has its pod."""
    await on.until(lambda: on.status(workspace).get("phase") == "Active", "the workspace is active")
    return on.status(workspace)


async def started(on: System, run: Json) -> None:
    uid = run["metadata"]["uid"]
    await on.until(
        lambda: any(uid in side.started for side in on.node.sidecars.values()), "the program has started"
    )


def starts(on: System, *runs: Json) -> list[int]:
    """How often each was started, in all pods."""
    return [
        sum(side.started.count(run["metadata"]["uid"]) for side in on.node.sidecars.values()) for run in runs
    ]


def pod_of(on: System, session: Json) -> str:
    return str(on.status(session)["pod"]["name"])


async def test_runs_take_turns_in_one_pod() -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        runs = [on.run_in("mine", f"sleep:0.05 print:{number}") for number in range(4)]
        answers = [await on.ended(run) for run in runs]
        assert [answer["result"]["stdout"] for answer in answers] == ["0", "1", "2", "3"], "each its own"
        assert {answer["pod"]["name"] for answer in answers} == {pod_of(on, workspace)}
        assert sorted(answer["workspaceRun"]["number"] for answer in answers) == [1, 2, 3, 4]
        assert {answer["workspaceRun"]["uid"] for answer in answers} == {workspace["metadata"]["uid"]}
        times = sorted((a["timings"]["started"], a["timings"]["finished"]) for a in answers)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
        assert starts(on, *runs) == [1, 1, 1, 1]
        status = await active(on, workspace)
        assert "completed" not in status["timings"]
        await on.until(lambda: on.status(workspace)["workspace"]["runs"] == 4, "the status counts them")
        (pod,) = on.pods("assigned")
        assert pod["metadata"]["labels"][names.LABEL_SESSION] == "mine"
        assert pod["spec"]["activeDeadlineSeconds"] > 43_200


async def test_the_pod_is_marked_for_life_before_anything_runs_in_it() -> None:
    """Other runs' pods get their label after a second. This one stays, so it has to be found by its label."""
    async with operating() as on:
        on.pool()
        await on.ready(2)
        on.api.held["patch", "pods"] = asyncio.Event()
        workspace, run = on.workspace(), on.run_in("mine", "print:x")
        await on.until(
            lambda: any(side.reserved for side in on.node.sidecars.values()), "a sidecar is reserved"
        )
        await asyncio.sleep(0.3)
        assert starts(on, run) == [0]
        on.api.held.pop(("patch", "pods")).set()
        assert (await on.ended(run))["result"]["stdout"] == "x"
        (pod,) = on.pods("assigned")
        assert pod["metadata"]["labels"][names.LABEL_SESSION_UID] == workspace["metadata"]["uid"]


async def test_a_run_need_not_come_after_its_workspace_is_known() -> None:
    async with system() as on:
        on.pool()
        run = on.run_in("mine", "print:x")
        workspace = on.workspace()
        await on.start()
        assert (await on.ended(run))["result"]["stdout"] == "x"
        assert (await active(on, workspace))["attempts"] == 1


async def test_the_pool_makes_another_pod_and_the_workspace_keeps_its_own() -> None:
    async with operating() as on:
        on.pool(replicas=1)
        workspace = on.workspace()
        await active(on, workspace)
        await on.until(lambda: len(on.pods("assigned")) == 1, "the pod is the workspace's")
        await on.ready(1)
        on.edit_pool(replicas=0)
        await on.until(lambda: not on.ready_pods(), "no warm pod")
        assert (await on.ended(on.run_in("mine", "print:1")))["phase"] == "Succeeded"


async def test_another_tenants_workspace_does_not_exist() -> None:
    async with operating() as on:
        on.pool()
        await active(on, on.workspace(tenant="a"))
        for tenant in ({"tenant": "b"}, {}):
            status = await on.ended(on.run_in("mine", "print:1", **tenant))
            assert (status["phase"], status["reason"]) == ("Failed", "WorkspaceNotFound")
        assert (await on.ended(on.run_in("mine", "print:1", tenant="a")))["phase"] == "Succeeded"
        assert (await on.ended(on.run_in("other", "print:1")))["reason"] == "WorkspaceNotFound"


async def test_a_run_that_names_another_pool_is_refused() -> None:
    async with operating() as on:
        on.pool()
        await active(on, on.workspace())
        status = await on.ended(on.run_in("mine", "print:1", poolRef={"name": "other"}))
        assert status["reason"] == "InvalidRequest"
        same = on.run_in("mine", "print:1", poolRef={"name": "python"})
        assert (await on.ended(same))["phase"] == "Succeeded"


async def test_a_program_that_calls_tools_has_its_turn_all_the_while() -> None:
    async with operating() as on:
        on.pool(workspaces={"max": 5, "idleTimeoutSeconds": 5})
        workspace = on.workspace()
        run, other = on.run_in("mine", "call:1 print:end", tools=["add"]), on.run_in("mine", "print:1")
        await on.until(lambda: on.status(run).get("toolCalls"), "a call in the status")
        assert (on.status(run)["phase"], on.status(run)["reason"]) == ("Running", "WaitingForTools")
        assert starts(on, run, other) == [1, 0]
        await asyncio.sleep(6)
        assert on.status(workspace)["phase"] == "Active", "waiting for a tool is no idle time"
        on.edit_session(run, toolResults={"call_001": {"value": "1"}})
        ended = await on.ended(run)
        assert (ended["result"]["stdout"], ended["workspaceRun"]["number"]) == ("1,end", 1)
        assert (await on.ended(other))["workspaceRun"]["number"] == 2
        assert starts(on, run, other) == [1, 1]


async def test_an_operator_ends_while_a_program_in_a_workspace_waits_for_tools() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        on.workspace()
        run, other = on.run_in("mine", "call:2 print:end", tools=["add"]), on.run_in("mine", "print:1")
        await on.until(lambda: on.status(run).get("toolCalls"), "calls in the status")
        await on.kill(first)
        on.edit_session(run, toolResults={"call_001": {"value": "1"}, "call_002": {"error": "no"}})
        await on.start()
        assert (await on.ended(run))["result"]["stdout"] == "1,no,end"
        assert (await on.ended(other))["phase"] == "Succeeded"
        assert starts(on, run, other) == [1, 1]


async def test_it_ends_when_nobody_uses_it_and_not_before() -> None:
    async with operating() as on:
        on.pool(workspaces={"max": 5, "idleTimeoutSeconds": 5})
        workspace = on.workspace()
        long = on.run_in("mine", "sleep:6 print:still")
        status = await on.ended(long, 15)
        assert status["result"]["stdout"] == "still", "its idle time does not run while a run does"
        assert on.status(workspace)["phase"] == "Active"
        over = await on.ended(workspace, 15)
        assert (over["phase"], over["reason"]) == ("TimedOut", "IdleTimeout")
        await on.until(lambda: not on.pods("assigned"), "its pod is gone")
        late = await on.ended(on.run_in("mine", "print:1"))
        assert (late["reason"], starts(on, long)) == ("WorkspaceEnded", [1])


async def test_its_longest_life_lets_a_run_come_to_its_end() -> None:
    async with operating() as on:
        on.pool(workspaces={"max": 5, "maxLifetimeSeconds": 10})
        workspace = on.workspace()
        await active(on, workspace)
        await asyncio.sleep(8.5)
        last = on.run_in("mine", "sleep:2.5 print:done")
        await started(on, last)
        late = on.run_in("mine", "print:late")
        assert (await on.ended(last))["result"]["stdout"] == "done"
        assert (await on.ended(late))["reason"] == "WorkspaceEnded"
        assert (await on.ended(workspace))["reason"] == "MaxLifetime"


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_the_end_of_a_workspace_is_the_end_of_its_runs(how: str) -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:30")
        await started(on, going)
        waiting = on.run_in("mine", "print:never")
        await on.until(lambda: on.status(waiting).get("phase") == "Queued", "it waits for its turn")
        assert on.status(waiting)["reason"] == "WaitingForTurn"
        if how == "cancel":
            on.cancel(workspace)
            assert (await on.ended(workspace))["reason"] == "Cancelled"
        else:
            on.delete(workspace)
        assert (await on.ended(going))["reason"] in ("Cancelled", "PodLost")
        assert (await on.ended(waiting))["reason"] == "WorkspaceEnded"
        assert starts(on, waiting) == [0]
        await on.until(lambda: not on.pods("assigned"), "the pod is gone")


@pytest.mark.parametrize("how", ["cancel", "delete"])
async def test_the_end_of_a_run_is_not_the_end_of_its_workspace(how: str) -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:30")
        await started(on, going)
        waiting, last = on.run_in("mine", "print:no"), on.run_in("mine", "print:yes")
        for run in (waiting, going):
            if how == "cancel":
                on.cancel(run)
                assert (await on.ended(run))["reason"] == "Cancelled"
            else:
                on.delete(run)
        assert (await on.ended(last))["result"]["stdout"] == "yes"
        assert starts(on, going, waiting, last) == [1, 0, 1]
        assert (await active(on, workspace))["phase"] == "Active"


async def test_a_pod_that_is_lost_between_runs_ends_the_workspace() -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        await on.ended(on.run_in("mine", "print:1"))
        on.api.store.delete("pods", "kubecoderun", pod_of(on, workspace))
        over = await on.ended(workspace)
        assert (over["phase"], over["reason"]) == ("Failed", "PodLost")
        assert (await on.ended(on.run_in("mine", "print:1")))["reason"] == "WorkspaceEnded"


async def test_a_pod_that_is_lost_during_a_run() -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:30")
        await started(on, going)
        waiting = on.run_in("mine", "print:never")
        on.api.store.delete("pods", "kubecoderun", pod_of(on, workspace))
        assert (await on.ended(going))["reason"] == "PodLost"
        assert (await on.ended(waiting))["reason"] == "WorkspaceEnded"
        assert (await on.ended(workspace))["reason"] == "PodLost"
        assert starts(on, going, waiting) == [1, 0]


async def test_a_runtime_that_ended_is_found_by_the_next_run() -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        await active(on, workspace)
        side = on.node.sidecar(pod_of(on, workspace))
        side.refuse_prepare = (503, Refusal("runtime_lost"))
        assert (await on.ended(on.run_in("mine", "print:1")))["reason"] == "WorkspaceEnded"
        assert (await on.ended(workspace))["reason"] == "RuntimeLost"


async def test_a_sidecar_that_does_not_answer_for_a_moment_costs_nothing() -> None:
    async with operating(sidecar_answer_seconds=0.5) as on:
        on.pool()
        workspace = on.workspace()
        await active(on, workspace)
        pod = pod_of(on, workspace)
        on.node.sidecar(pod).unreachable = True
        run = on.run_in("mine", "print:1")
        await on.until(lambda: on.status(run).get("phase") == "Running", "it is its turn")
        await asyncio.sleep(0.2)
        on.node.sidecar(pod).unreachable = False
        assert (await on.ended(run))["result"]["stdout"] == "1"
        assert starts(on, run) == [1]
        assert on.status(workspace)["phase"] == "Active"


async def test_a_run_that_cannot_be_delivered_costs_nobody_else_anything() -> None:
    async with operating() as on:
        on.pool()
        workspace = on.workspace()
        await active(on, workspace)
        side = on.node.sidecar(pod_of(on, workspace))
        side.refuse_prepare = (422, Refusal("inputs_too_large", "too much"))
        assert (await on.ended(on.run_in("mine", "print:1")))["reason"] == "InvalidRequest"
        side.refuse_prepare = None
        assert (await on.ended(on.run_in("mine", "print:2")))["result"]["stdout"] == "2"
        assert on.status(workspace)["phase"] == "Active"


async def test_more_workspaces_than_the_pool_allows() -> None:
    async with operating() as on:
        on.pool(workspaces={"max": 1})
        first = on.workspace("first")
        await active(on, first)
        second = on.workspace("second")
        run = on.run_in("second", "print:1")
        assert (await on.ended(second))["reason"] == "PoolEmpty"
        assert (await on.ended(run))["reason"] in ("PoolEmpty", "WorkspaceEnded")
        on.cancel(first)
        await on.ended(first)
        await active(on, on.workspace("third"))


async def test_cancelled_while_its_status_is_written() -> None:
    async with operating(pool_status_seconds=0.5, api_attempt_seconds=10) as on:
        on.pool()
        workspace = on.workspace()
        await active(on, workspace)
        assert (await on.ended(on.run_in("mine", "print:1")))["reason"] == "Succeeded"
        # The use of the workspace is written half a second after it became active.
        on.api.held["patch", "executionsessions/status"] = asyncio.Event()
        await asyncio.sleep(0.7)
        on.cancel(workspace)
        await asyncio.sleep(0.3)
        on.api.held.pop(("patch", "executionsessions/status")).set()
        assert (await on.ended(workspace))["reason"] == "Cancelled"


async def test_a_pool_without_pods_ends_workspace_and_run_with_its_reason() -> None:
    async with operating() as on:
        on.pool(replicas=0, maxPods=1, onEmpty={"policy": "Reject"})
        workspace, run = on.workspace(), on.run_in("mine", "print:1")
        assert (await on.ended(workspace))["reason"] == "PoolEmpty"
        assert (await on.ended(run))["reason"] in ("PoolEmpty", "WorkspaceEnded")


async def test_too_many_runs_wait() -> None:
    async with operating() as on:
        on.pool(onEmpty={"policy": "Wait", "waitSeconds": 2})
        on.workspace()
        going = on.run_in("mine", "sleep:4 print:x")
        await started(on, going)
        runs = [on.run_in("mine", "print:1") for _ in range(20)]
        answers = [await on.ended(run, 15) for run in runs]
        assert {answer["reason"] for answer in answers} == {"WorkspaceBusy"}
        assert sum(starts(on, *runs)) == 0
        assert (await on.ended(going))["result"]["stdout"] == "x"


async def test_sidecars_of_an_earlier_version_are_passed_over() -> None:
    async with operating() as on:
        on.pool(replicas=1)
        await on.ready(1)
        (old,) = on.pod_names("warm")
        on.node.sidecar(old).outdated = True
        workspace = on.workspace()
        status = await on.ended(on.run_in("mine", "print:1"))
        assert (status["phase"], status["pod"]["name"] != old) == ("Succeeded", True)
        assert (await active(on, workspace))["attempts"] == 2


# --- other operator processes ---------------------------------------------------------------------


async def test_a_workspace_survives_its_operator() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        workspace = on.workspace()
        await on.ended(on.run_in("mine", "print:1"))
        pod = pod_of(on, workspace)
        await on.kill(first)
        await on.start()
        status = await on.ended(on.run_in("mine", "print:2"))
        assert (status["result"]["stdout"], status["pod"]["name"]) == ("2", pod)
        assert status["workspaceRun"]["number"] == 2
        assert (await active(on, workspace))["attempts"] == 1


async def test_a_run_in_progress_survives_its_operator_and_comes_before_others() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:2 print:going")
        await started(on, going)
        waiting = [on.run_in("mine", f"print:{number}") for number in range(3)]
        await on.kill(first)
        await on.start()
        assert (await on.ended(going))["result"]["stdout"] == "going"
        answers = [await on.ended(run) for run in waiting]
        assert [answer["result"]["stdout"] for answer in answers] == ["0", "1", "2"]
        assert starts(on, going, *waiting) == [1, 1, 1, 1]
        assert on.status(workspace)["phase"] == "Active"


async def test_a_run_that_ended_while_nobody_looked_has_its_result_although_others_wait() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        on.workspace()
        going = on.run_in("mine", "sleep:0.3 print:done")
        await started(on, going)
        await on.kill(first)
        others = [on.run_in("mine", "print:other") for _ in range(3)]
        await asyncio.sleep(0.6)
        await on.start()
        assert (await on.ended(going))["result"]["stdout"] == "done"
        assert [(await on.ended(run))["result"]["stdout"] for run in others] == ["other"] * 3
        assert starts(on, going, *others) == [1] * 4


async def test_the_pod_is_lost_while_there_is_no_operator() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:30")
        await on.until(lambda: on.status(going).get("phase") == "Running", "its status says so")
        await started(on, going)
        pod = pod_of(on, workspace)
        await on.kill(first)
        waiting = on.run_in("mine", "print:never")
        on.api.store.delete("pods", "kubecoderun", pod)
        await on.until(lambda: pod not in on.pod_names(), "the pod is gone")
        await on.start()
        assert (await on.ended(workspace))["reason"] == "PodLost"
        assert (await on.ended(going))["reason"] == "PodLost"
        assert (await on.ended(waiting))["reason"] == "WorkspaceEnded"
        assert starts(on, going, waiting) == [1, 0]


async def test_a_run_that_may_have_started_is_never_said_not_to_have() -> None:
    """Whoever hears that it was not started runs it again elsewhere."""
    async with system(**SHORT_LEASE) as on:
        first = await on.start(sidecar_answer_seconds=0.5)
        on.pool()
        workspace = on.workspace()
        going = on.run_in("mine", "sleep:30")
        await on.until(lambda: on.status(going).get("phase") == "Running", "its status says so")
        await started(on, going)
        await on.kill(first)
        on.node.sidecar(pod_of(on, workspace)).fetching = asyncio.Event()  # no prepare is answered any more
        waiting = on.run_in("mine", "print:never")
        await on.start(sidecar_answer_seconds=0.5)
        assert (await on.ended(going, 20))["reason"] == "SidecarLost"
        assert (await on.ended(waiting))["reason"] == "WorkspaceEnded"
        assert (await on.ended(workspace))["reason"] == "SidecarLost"
        assert starts(on, going, waiting) == [1, 0]


@pytest.mark.parametrize("held", [("patch", "pods"), ("patch", "executionsessions/status")])
async def test_killed_on_the_way_to_the_pod(held: tuple[str, str]) -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool()
        await on.ready(2)
        on.api.held[held] = asyncio.Event()
        workspace, run = on.workspace(), on.run_in("mine", "print:x")
        await on.until(
            lambda: any(side.reserved for side in on.node.sidecars.values()), "a sidecar is reserved"
        )
        await asyncio.sleep(0.1)
        await on.kill(first)
        on.api.held.clear()
        await on.start()
        status = await on.ended(run, 15)
        assert (status["result"]["stdout"], starts(on, run)) == ("x", [1])
        await active(on, workspace)
        await on.until(lambda: len(on.pods("assigned")) == 1, "one pod is assigned")


async def test_idle_time_goes_on_over_a_restart() -> None:
    async with system(**SHORT_LEASE) as on:
        first = await on.start()
        on.pool(workspaces={"max": 5, "idleTimeoutSeconds": 6})
        workspace = on.workspace()
        await on.ended(on.run_in("mine", "print:1"))
        await on.until(lambda: on.status(workspace)["workspace"]["runs"] == 1, "the status counts it")
        await on.kill(first)
        await asyncio.sleep(3)
        await on.start()
        over = await on.ended(workspace, 15)
        assert over["reason"] == "IdleTimeout"


def test_nothing_of_a_workspace_is_in_the_store() -> None:
    from kubecoderun_operator import lifetimes, orders

    raw: dict[str, Any] = {
        "metadata": {"namespace": "n", "name": "w", "uid": "u"},
        "spec": {"request": {"mode": "Workspace", "poolRef": {"name": "p"}}},
        "status": {"phase": "Active", "pod": {"name": "p-1", "uid": "x"}},
    }
    assert not lifetimes.may_have_objects(orders.session(raw))

"""The lease: two operators of which one acts, one that gives it up, and one that loses it."""

import asyncio
from typing import Any

import pytest

from contract.fakes.apiserver import Fault
from contract.fakes.store import RefusedError
from contract.fakes.system import System, operating, running, system
from kubecoderun_crds import names
from kubecoderun_operator.app import App
from kubecoderun_sidecar.protocol import Owner


def task_of(on: System, app: App) -> asyncio.Task[None]:
    return next(task for found, task in on.apps if found is app)


async def test_on_sigterm_the_next_leader_goes_on_at_once() -> None:
    async with system() as on:
        first = await on.start()
        second = await on.start(wait=False)
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:1 print:x")
        assert not second.ready.is_set()
        await on.stop(first)
        await asyncio.wait_for(second.ready.wait(), 1.0)
        assert (await on.ended(session))["phase"] == "Succeeded"
        (sidecar,) = on.node.of_session(session["metadata"]["uid"])
        assert sidecar.starts == 1


async def test_only_one_of_two_operators_acts() -> None:
    async with system() as on:
        await on.start()
        await on.start(wait=False)
        on.pool(replicas=3)
        await on.ready(3)
        sessions = [on.session("print:x") for _ in range(6)]
        for session in sessions:
            assert (await on.ended(session))["phase"] == "Succeeded"
        lease = on.api.store.get("leases", "kubecoderun-system", "kubecoderun-operator")
        assert lease["spec"]["holderIdentity"] == "operator-0"
        creates = [entry for entry in on.api.writes() if (entry.verb, entry.resource) == ("create", "pods")]
        assert len(creates) == 9


async def test_an_operator_that_loses_its_lease_writes_nothing_more() -> None:
    async with system() as on:
        app = await on.start()
        on.pool()
        await on.ready(2)
        session = await running(on, "sleep:1.2 print:x")

        def steal(found: dict[str, Any]) -> dict[str, Any]:
            found["spec"]["holderIdentity"] = "somebody"
            return found

        on.api.store.change("leases", "kubecoderun-system", "kubecoderun-operator", steal)
        task = task_of(on, app)
        await asyncio.wait({task}, timeout=5)
        assert type(task.exception()).__name__ == "NotLeadingError"
        mark = len(on.api.log)
        await asyncio.sleep(1.0)
        assert on.api.writes(since=mark, leases=True) == []
        assert on.status(session)["phase"] == "Running"
        # The pod is still the session's: whoever leads next goes on.
        assert on.node.of_session(session["metadata"]["uid"])[0].owner == Owner(
            "session", session["metadata"]["uid"]
        )


async def test_a_late_leader_cannot_overwrite_the_answer() -> None:
    """The API server refuses a status of a lower epoch, and any change of an ended session."""
    async with operating() as on:
        on.pool()
        await on.ready(2)
        session = on.session("print:x")
        await on.ended(session)
        name = session["metadata"]["name"]

        def reopen(found: dict[str, Any]) -> dict[str, Any]:
            found["status"] = {**found["status"], "phase": "Running"}
            return found

        with pytest.raises(RefusedError):
            on.api.store.change(names.SESSION_PLURAL, "kubecoderun", name, reopen, "status")
        assert on.status(session)["phase"] == "Succeeded"


async def test_a_lapse_that_somebody_noticed_ends_the_operator_even_if_a_late_renewal_succeeds() -> None:
    """What was to write in between has ended. A process that went on would lead without it, for instance
    without the worker of its pool, and nobody would make a pod any more."""
    async with system() as on:
        app = await on.start(lease_seconds=40.0, lease_renew_deadline=3.0, api_attempt_seconds=30.0)
        on.pool()
        await on.ready(2)
        refusal = Fault("update", "leases", 1000)
        on.api.faults.append(refusal)
        await asyncio.sleep(2.0)
        # The renewal that is in flight when the lease lapses began before, and will count.
        arrives = on.api.held["update", "leases"] = asyncio.Event()
        on.api.faults.remove(refusal)
        await on.until(lambda: not app.elector.leading, "the lease has lapsed")
        session = on.session("print:x")
        await on.until(lambda: on.node.of_session(session["metadata"]["uid"]), "the session has a pod")
        assert on.status(session) == {}
        arrives.set()
        task = task_of(on, app)
        await asyncio.wait({task}, timeout=20)
        assert task.done()
        assert type(task.exception()).__name__ == "NotLeadingError"
        await on.start()
        assert (await on.ended(session))["phase"] == "Succeeded"
        await on.ready(2)

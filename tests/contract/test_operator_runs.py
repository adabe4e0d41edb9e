"""Sessions that run: the real operator between a fake API server and fake sidecars."""

import asyncio
import base64

from contract.fakes.apiserver import Fault
from contract.fakes.node import MISSING
from contract.fakes.store import RefusedError
from contract.fakes.system import operating
from kubecoderun_crds import names
from kubecoderun_sidecar.protocol import Owner, Refusal, ResultTarget, StoredCode


async def test_a_run_takes_four_writes_of_the_operator() -> None:
    async with operating(pool_status_seconds=2.0) as system:
        system.pool()
        await system.ready(2)
        mark = len(system.api.log)
        status = await system.ended(system.session("print:hello"))
        assert (status["phase"], status["reason"], status["startType"]) == ("Succeeded", "Succeeded", "Warm")
        assert (status["result"]["stdout"], status["attempts"], status["epoch"]) == ("hello", 1, 1)
        steps = [
            status["timings"][step] for step in ("queued", "patched", "started", "finished", "completed")
        ]
        assert steps == sorted(steps)
        assert status["timings"]["queued"] <= status["timings"]["prepared"] <= status["timings"]["started"]
        await system.until(lambda: len(system.ready_pods()) == 2 and len(system.pods()) == 2, "a replacement")
        # The pool's status is back to what is written before its time has come.
        await asyncio.sleep(2.5)
        done = [(entry.verb, entry.resource) for entry in system.api.writes(since=mark)]
        assert sorted(done) == [
            ("create", "pods"),
            ("delete", "pods"),
            ("patch", "executionsessions/status"),
            ("patch", "executionsessions/status"),
        ]


async def test_the_status_names_the_pod_before_anything_starts() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        held = system.api.held["patch", "executionsessions/status"] = asyncio.Event()
        session = system.session("print:x")
        uid = session["metadata"]["uid"]
        await system.until(lambda: system.node.of_session(uid), "prepared")
        (sidecar,) = system.node.of_session(uid)
        await asyncio.sleep(0.1)
        assert sidecar.calls == ["prepare"]
        held.set()
        status = await system.ended(session)
        assert sidecar.calls == ["prepare", "start"]
        first = next(
            entry.body[1]["value"]
            for entry in system.api.writes()
            if (entry.verb, entry.resource) == ("patch", "executionsessions/status")
        )
        assert (first["phase"], first["pod"]["name"]) == ("Running", status["pod"]["name"])
        assert sidecar.target is not None
        assert isinstance(sidecar.target.result, ResultTarget)
        assert (
            f"/kubecoderun/kubecoderun/{session['metadata']['name']}/result.json" in sidecar.target.result.url
        )


async def test_a_run_that_goes_on_is_written_down_in_its_pod() -> None:
    """So that kubectl shows it, the pod goes with its session, and the node ends it at its deadline."""
    async with operating(running_after_seconds=0.1) as system:
        system.pool()
        await system.ready(2)
        session = system.session("sleep:0.6 print:x")
        await system.until(lambda: system.pods("assigned"), "labelled")
        (pod,) = system.pods("assigned")
        assert pod["metadata"]["name"] == system.status(session)["pod"]["name"]
        assert pod["metadata"]["labels"][names.LABEL_SESSION] == session["metadata"]["name"]
        (owner,) = pod["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("ExecutionSession", session["metadata"]["uid"])
        assert pod["spec"]["activeDeadlineSeconds"] > 60
        assert (await system.ended(session))["phase"] == "Succeeded"


async def test_the_replacement_does_not_hold_up_the_run() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        held = system.api.held["create", "pods"] = asyncio.Event()
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"
        held.set()
        await system.until(lambda: len(system.ready_pods()) == 2, "a replacement")


async def test_endings_of_programs() -> None:
    async with operating() as system:
        system.pool(replicas=6)
        await system.ready(6)
        words = {
            "exit:3": ("Failed", "NonZeroExit"),
            "signal:SIGSEGV": ("Failed", "Signalled"),
            "timeout": ("TimedOut", "TimeLimit"),
            f"raw:{base64.b64encode(bytes([255])).decode()}": ("Succeeded", "Succeeded"),
            "escape": ("Succeeded", "Succeeded"),
        }
        sessions = {word: system.session(word) for word in words}
        found = {word: await system.ended(session) for word, session in sessions.items()}
        assert {word: (status["phase"], status["reason"]) for word, status in found.items()} == words
        assert found["exit:3"]["result"]["exitCode"] == 3
        assert found["signal:SIGSEGV"]["result"]["signal"] == "SIGSEGV"
        assert found["escape"]["result"]["stdoutBase64"] == base64.b64encode(b"\x1b[31m").decode()


async def test_a_conflict_does_not_cost_a_result() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        system.api.faults.append(Fault("patch", "executionsessions/status", 3, 409, reason="Conflict"))
        status = await system.ended(system.session("print:hello"))
        assert (status["reason"], status["result"]["stdout"]) == ("Succeeded", "hello")


async def test_a_pod_that_is_bound_elsewhere_is_given_up_for_the_next() -> None:
    """Of a session that is over or gone: nobody needs the pod any more."""
    async with operating(sweep_pods_seconds=0.3) as system:
        system.pool()
        await system.ready(2)
        first, second = (pod["metadata"]["name"] for pod in system.ready_pods())
        for name in (first, second):
            system.node.sidecar(name).refuse_prepare = None
        system.node.sidecar(first).owner = Owner("session", "somebody")
        status = await system.ended(system.session("print:x"))
        assert status["phase"] == "Succeeded"
        if status["pod"]["name"] == second:
            assert status["attempts"] == 2
            await system.until(
                lambda: first not in [pod["metadata"]["name"] for pod in system.pods()], "removed"
            )


async def test_a_pod_that_is_being_deleted_is_not_started_in() -> None:
    """Its sidecar may still answer for a while."""
    async with operating() as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        held = system.api.held["patch", "executionsessions/status"] = asyncio.Event()
        session = system.session("print:x")
        await system.until(lambda: system.node.of_session(session["metadata"]["uid"]), "prepared")

        def going(found: dict) -> dict:  # type: ignore[type-arg]
            found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return found

        system.api.store.change("pods", "kubecoderun", pod["metadata"]["name"], going)
        await asyncio.sleep(0.1)
        held.set()
        status = await system.ended(session)
        assert (status["phase"], status["attempts"]) == ("Succeeded", 2)
        assert status["pod"]["uid"] != pod["metadata"]["uid"]


async def test_an_unreachable_sidecar_costs_a_session_nothing_but_time() -> None:
    async with operating() as system:
        system.pool(replicas=3)
        await system.ready(3)
        names_before = [pod["metadata"]["name"] for pod in system.ready_pods()]
        for name in names_before[:2]:
            system.node.cut_off(name)
        sessions = [system.session("print:x") for _ in range(3)]
        for session in sessions:
            assert (await system.ended(session))["phase"] == "Succeeded"
        await system.until(
            lambda: not set(names_before) & {pod["metadata"]["name"] for pod in system.pods()}, "gone"
        )


async def test_a_lost_answer_to_the_first_status_is_found_out() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        system.api.faults.append(Fault("patch", "executionsessions/status", times=1, status=500, after=True))
        status = await system.ended(system.session("print:x"))
        assert (status["phase"], status["attempts"]) == ("Succeeded", 1)
        assert len([side for side in system.node.sidecars.values() if "prepare" in side.calls]) == 1


async def test_results_survive_a_struggling_api_server() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        system.api.faults += [
            Fault("patch", "executionsessions/status", times=2, status=500),
            Fault("patch", "executionsessions/status", times=1, status=429, headers=(("Retry-After", "1"),)),
            Fault("patch", "executionsessions/status", times=1, status=503, after=True),
        ]
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"


async def test_stored_code_comes_by_a_presigned_url() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session = system.session(code=None, codeRef={"bytes": 20_000, "sha256": "a" * 64})
        assert (await system.ended(session))["phase"] == "Succeeded"
        (sidecar,) = system.node.of_session(session["metadata"]["uid"])
        code = sidecar.request.code  # type: ignore[union-attr]
        assert isinstance(code, StoredCode)
        assert code.url.startswith(
            f"{system.objects.url}/kubecoderun/kubecoderun/kubecoderun/{session['metadata']['name']}/code?"
        )


async def test_missing_code_ends_the_session_and_its_pod() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        session = system.session(code=None, codeRef={"bytes": 20_000, "sha256": MISSING})
        status = await system.ended(session)
        assert (status["phase"], status["reason"]) == ("Failed", "CodeUnavailable")
        assert "started" not in status["timings"]
        await system.until(lambda: not system.used_pods() and len(system.ready_pods()) == 2, "a fresh pool")


async def test_without_a_store_stored_code_is_refused() -> None:
    async with operating(store_endpoint="") as system:
        system.pool()
        await system.ready(2)
        status = await system.ended(system.session(code=None, codeRef={"bytes": 9, "sha256": "a" * 64}))
        assert status["reason"] == "StoreUnavailable"
        assert (await system.ended(system.session("print:x")))["phase"] == "Succeeded"


async def test_a_broken_stream_is_taken_up_again_and_nothing_starts_twice() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        for pod in system.ready_pods():
            system.node.sidecar(pod["metadata"]["name"]).drops = 3
        session = system.session("sleep:0.3 print:x")
        assert (await system.ended(session))["result"]["stdout"] == "x"
        (sidecar,) = system.node.of_session(session["metadata"]["uid"])
        assert sidecar.starts == 1
        assert sidecar.calls.count("start") == 4


async def test_a_long_run_is_written_as_running() -> None:
    async with operating(running_after_seconds=0.1) as system:
        system.pool()
        await system.ready(2)
        session = system.session("sleep:0.6 print:x")
        await system.until(lambda: system.status(session).get("phase") == "Running", "running")
        assert system.status(session)["pod"]["name"]
        assert (await system.ended(session))["phase"] == "Succeeded"


async def test_a_session_whose_result_is_refused_still_gets_an_answer() -> None:
    async with operating() as system:
        system.pool()
        await system.ready(2)
        check = system.api.store.check

        def refuse(resource: str, before: dict, after: dict) -> None:  # type: ignore[type-arg]
            if (after.get("status") or {}).get("phase") == "Succeeded":
                raise RefusedError(422, "Invalid", "status.result.stdout: Too long")
            check(resource, before, after)

        system.api.store.check = refuse
        status = await system.ended(system.session("print:x"))
        assert (status["phase"], status["reason"]) == ("Failed", "OperatorError")
        assert "Too long" in status["message"]


async def test_a_session_of_the_same_name_never_gets_the_other_ones_result() -> None:
    async with operating() as system:
        system.pool(replicas=4)
        await system.ready(4)
        system.api.watch_delay = lambda resource: 0.3 if resource == names.SESSION_PLURAL else 0.0
        first = system.session("sleep:0.5 print:first", name="hello")
        await system.until(lambda: system.node.of_session(first["metadata"]["uid"]), "the first one runs")
        system.api.store.delete(names.SESSION_PLURAL, "kubecoderun", "hello")
        second = system.session("sleep:1 print:second", name="hello")
        status = await system.ended(second)
        assert status["result"]["stdout"] == "second"
        await system.until(lambda: not system.used_pods(), "both pods are gone")


async def test_a_stale_epoch_is_raised() -> None:
    """Somebody deleted the Lease, so its count began again below what a pod has seen."""
    async with operating() as system:
        system.pool(replicas=1)
        await system.ready(1)
        (pod,) = system.ready_pods()
        system.node.sidecar(pod["metadata"]["name"]).epoch = 9
        status = await system.ended(system.session("print:x"))
        assert status["phase"] == "Succeeded"
        lease = system.api.store.get("leases", "kubecoderun-system", "kubecoderun-operator")
        assert lease["spec"]["leaseTransitions"] == 10


async def test_many_sessions_at_once_each_have_a_pod_of_their_own() -> None:
    async with operating() as system:
        system.pool(replicas=20, maxPods=60, onEmpty={"policy": "Wait", "waitSeconds": 120})
        await system.ready(20, 60)
        sessions = [system.session(f"sleep:0.05 print:{number}") for number in range(50)]
        pods = set()
        for number, session in enumerate(sessions):
            status = await system.ended(session, seconds=120)
            assert status["reason"] == "Succeeded", status
            assert status["result"]["stdout"] == str(number)
            pods.add(status["pod"]["uid"])
        assert len(pods) == 50
        assert all(sidecar.starts <= 1 for sidecar in system.node.sidecars.values())
        await system.until(lambda: len(system.pods()) == len(system.ready_pods()) == 20, "a full pool", 60)


async def test_a_sidecar_that_is_not_warm_is_passed_over() -> None:
    async with operating() as system:
        system.pool(replicas=2)
        await system.ready(2)
        first = system.ready_pods()[0]["metadata"]["name"]
        system.node.sidecar(first).refuse_prepare = (503, Refusal("not_warm"))
        sessions = [system.session("print:x"), system.session("print:x")]
        for session in sessions:
            assert (await system.ended(session))["phase"] == "Succeeded"
        assert first not in [pod["metadata"]["name"] for pod in system.pods()]

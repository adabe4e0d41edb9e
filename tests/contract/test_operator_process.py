"""The operator as a process: SIGKILL, SIGTERM, health, metrics, its log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contract.fakes.process import OperatorProcess
from contract.fakes.system import System, system


@asynccontextmanager
async def process(
    on: System, folder: Path, identity: str = "one", *, standby: bool = False
) -> AsyncIterator[OperatorProcess]:
    made = OperatorProcess(on, folder, identity)
    try:
        await made.start(standby=standby)
        yield made
    finally:
        await made.end()


async def test_killed_in_the_middle_of_a_run(tmp_path: Path) -> None:
    async with system() as on:
        async with process(on, tmp_path) as first:
            on.pool()
            await on.ready(2, seconds=60)
            session = on.session("sleep:4 print:done")
            uid = session["metadata"]["uid"]
            await on.until(lambda: any(side.starts for side in on.node.of_session(uid)), "the program runs")
            await first.kill()
        async with process(on, tmp_path, "two") as second:
            status = await on.ended(session, seconds=60)
            assert (status["phase"], status["result"]["stdout"], status["epoch"]) == ("Succeeded", "done", 2)
            assert sum(side.starts for side in on.node.of_session(uid)) == 1
            assert await second.terminate() == 0


async def test_sigterm_releases_the_lease_and_exits_with_zero(tmp_path: Path) -> None:
    async with system() as on, process(on, tmp_path) as operator:
        on.pool()
        await on.ready(2, seconds=60)
        assert await operator.terminate() == 0
        lease = on.api.store.get("leases", "kubecoderun-system", "kubecoderun-operator")
        assert lease["spec"]["holderIdentity"] == ""
        assert len(on.pods()) == 2


async def test_after_a_lost_lease_the_same_process_stands_by_and_leads_again(tmp_path: Path) -> None:
    """An exit would be a crash to the kubelet, which waits longer before each restart of such a container."""
    async with system() as on, process(on, tmp_path) as operator:

        def hold(identity: str) -> None:
            def edit(found: dict) -> dict:  # type: ignore[type-arg]
                found["spec"]["holderIdentity"] = identity
                return found

            on.api.store.change("leases", "kubecoderun-system", "kubecoderun-operator", edit)

        hold("somebody")
        await on.until(lambda: "beginning again" in operator.messages(), "the process gives up", 10)
        on.pool()
        session = on.session("print:x")
        await asyncio.sleep(0.5)
        assert on.status(session) == {}
        hold("")
        assert (await on.ended(session, seconds=60))["phase"] == "Succeeded"
        assert operator.alive
        assert await operator.terminate() == 0


async def test_a_watch_that_fails_ends_nothing(tmp_path: Path) -> None:
    """The API server may report any error in a watch; kopf ends with it."""
    async with system() as on, process(on, tmp_path) as operator:
        on.pool()
        await on.ready(2, seconds=60)
        session = on.session("sleep:1.5 print:done")
        uid = session["metadata"]["uid"]
        await on.until(lambda: any(side.starts for side in on.node.of_session(uid)), "the program runs")
        on.api.fail_watches("executionpools")
        await on.until(lambda: "beginning again" in operator.messages(), "the process begins again", 10)
        assert (await on.ended(session, seconds=60))["phase"] == "Succeeded"
        assert sum(side.starts for side in on.node.of_session(uid)) == 1
        assert operator.alive
        assert await operator.terminate() == 0


async def test_health_metrics_and_log(tmp_path: Path) -> None:
    async with system() as on, process(on, tmp_path) as operator:
        on.pool()
        await on.ready(2, seconds=60)
        secret = "top-secret-text"
        session = on.session(f"print:{secret}", stdin=secret, args=[secret])
        assert (await on.ended(session))["result"]["stdout"] == secret
        assert await operator.get("/healthz") == (200, "leading")
        assert await operator.get("/readyz") == (200, "leading")
        code, page = await operator.get("/metrics")
        assert code == 200
        labels = 'namespace="kubecoderun",pool="python",reason="Succeeded",start_type="Warm"'
        assert f"kubecoderun_sessions_total{{{labels}}} 1.0" in page
        assert "kubecoderun_leader 1.0" in page
        assert session["metadata"]["name"] not in page
        assert await operator.terminate() == 0
        (line,) = [entry for entry in operator.lines() if entry["message"] == "session ended"]
        assert line["session"] == session["metadata"]["name"]
        assert line["reason"] == "Succeeded"
        text = operator.log.read_text()
        assert secret not in text
        assert "X-Amz-Signature" not in text
        assert not [entry for entry in operator.lines() if entry["level"] in ("WARNING", "ERROR")]


async def test_a_standby_is_healthy_and_takes_over(tmp_path: Path) -> None:
    async with (
        system() as on,
        process(on, tmp_path) as first,
        process(on, tmp_path, "two", standby=True) as second,
    ):
        assert await second.get("/readyz") == (200, "standing by")
        assert await first.terminate() == 0
        on.pool()
        await on.ready(2, seconds=60)
        assert (await on.ended(on.session("print:x")))["phase"] == "Succeeded"

"""What happens when the API server is slow, forgetful or away while somebody waits."""

import asyncio

import pytest

from contract.fakes_api.apiserver import ended, succeeded
from contract.fakes_api.system import running
from kubecoderun_api import cluster
from kubecoderun_api.pools import PoolBook
from kubecoderun_crds import names

SESSIONS = names.SESSION_PLURAL


async def test_there_is_one_watch_with_the_replicas_label_and_no_phase() -> None:
    async with running(replica_uid="replica-7") as system:
        assert f"{names.LABEL_FRONT_END}=replica-7" in system.api.selectors
        assert not any("phase" in selector for selector in system.api.selectors)
        system.api.answer = lambda session: succeeded()
        for _ in range(5):
            await system.exec()
        assert system.api.requests[f"watch {SESSIONS}"] == 1
        assert system.api.requests[f"get {SESSIONS}"] == 0
        assert system.api.requests[f"list {SESSIONS}"] == 1


@pytest.mark.parametrize("expired", [False, True], ids=["reconnect", "410"])
async def test_an_end_during_a_gap_is_found(expired: bool) -> None:
    async with running() as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        await asyncio.sleep(0.05)
        system.api.watch_statuses = [503, 503]
        system.api.break_watches()
        system.api.finish(session, succeeded("found"))
        if expired:
            system.api.forget_history()
        assert (await asyncio.wait_for(task, 5)).json["stdout"] == "found"
        assert system.metric("watch_breaks_total", kind=SESSIONS, cause="503") == 2
        if expired:
            assert system.api.requests[f"get {SESSIONS}"] == 1
            assert system.metric("watch_breaks_total", kind=SESSIONS, cause="410") == 1


async def test_after_a_gap_every_open_session_is_read_once_and_failed_reads_again() -> None:
    async with running() as system:
        tasks = [system.start_exec() for _ in range(30)]
        await system.api.created(30)
        await asyncio.sleep(0.05)
        system.api.get_statuses = [500, 503]
        system.api.break_watches()
        await system.api.until(lambda: system.metric("session_rechecks_total") == 30)
        assert system.api.requests[f"get {SESSIONS}"] == 32
        for session in system.api.sessions():
            system.api.finish(session["metadata"]["name"], succeeded("x"))
        assert {reply.json["stdout"] for reply in await asyncio.gather(*tasks)} == {"x"}


async def test_a_session_deleted_during_a_gap_is_told() -> None:
    async with running() as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        await asyncio.sleep(0.05)
        system.api.watch_statuses = [503]
        system.api.break_watches()
        system.api.delete(SESSIONS, session)
        system.api.forget_history()
        assert (await asyncio.wait_for(task, 5)).json["error"] == "session_deleted"


async def test_planned_ends_of_a_watch_are_no_gaps() -> None:
    async with running(watch_seconds=1) as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        await asyncio.sleep(2.3)
        system.api.finish(session, succeeded("x"))
        assert (await task).json["stdout"] == "x"
        assert system.api.requests[f"watch {SESSIONS}"] >= 2
        assert system.api.requests[f"list {SESSIONS}"] == 1
        assert system.api.requests[f"get {SESSIONS}"] == 0
        assert system.metric("watch_breaks_total", kind=SESSIONS, cause="short") == 0


async def test_a_post_that_landed_without_an_answer_counts_by_the_watch() -> None:
    async with running() as system:
        system.api.swallow_posts = 1
        system.api.answer = lambda session: succeeded("landed")
        reply = await system.exec()
        assert reply.json["stdout"] == "landed"
        assert reply.seconds < 3
        assert system.api.requests[f"create {SESSIONS}"] == 1


async def test_a_post_that_timed_out_after_it_landed_is_known_by_its_label() -> None:
    async with running(cluster_attempt_seconds=0.3) as system:
        system.api.deaf = True
        system.api.swallow_posts = 1
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        system.api.get_statuses = [503]
        await system.api.until(lambda: system.api.requests[f"create {SESSIONS}"] == 3)
        await system.api.until(lambda: system.api.requests[f"get {SESSIONS}"] == 2)
        system.api.deaf = False
        system.api.finish(session, succeeded("once"))
        assert (await asyncio.wait_for(task, 5)).json["stdout"] == "once"
        assert len(system.api.sessions()) == 1
        assert system.api.requests[f"create {SESSIONS}"] == 3


async def test_a_watch_that_hangs_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SILENT_SECONDS", 0.3)
    async with running() as system:
        system.api.deaf = True
        opened = system.api.requests[f"watch {SESSIONS}"]
        await system.api.until(lambda: system.api.requests[f"watch {SESSIONS}"] > opened)
        system.api.deaf = False
        system.api.answer = lambda session: succeeded("x")
        assert (await system.exec()).json["stdout"] == "x"


async def test_an_end_that_the_watch_never_told_is_found_out() -> None:
    async with running(recheck_seconds=0.3) as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        await system.api.until(lambda: system.api.requests[f"get {SESSIONS}"] >= 2)
        system.api.deaf = True
        system.api.finish(session, succeeded("unseen"))
        assert (await asyncio.wait_for(task, 3)).json["stdout"] == "unseen"


async def test_a_deletion_that_the_watch_never_told_is_found_out() -> None:
    async with running(recheck_seconds=0.3) as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        system.api.deaf = True
        system.api.delete(SESSIONS, session)
        reply = await asyncio.wait_for(task, 3)
        assert (reply.status, reply.json["error"]) == (503, "session_deleted")


async def test_a_conflict_about_something_else_passes() -> None:
    """With a quota on sessions, the API server answers 409 when its counter is contended."""
    async with running() as system:
        system.api.post_statuses = [409, 409]
        system.api.answer = lambda session: succeeded("x")
        assert (await system.exec()).json["stdout"] == "x"
        assert system.api.requests[f"create {SESSIONS}"] == 3


async def test_a_name_that_somebody_else_has_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "session_name", lambda: "a" * 21)
    async with running() as system:
        foreign = {"metadata": {"name": "a" * 21, "labels": {names.LABEL_FRONT_END: "other"}}, "spec": {}}
        system.api.put(SESSIONS, foreign)
        reply = await system.exec()
        assert (reply.status, reply.json["error"]) == (503, "cluster_refused")
        await asyncio.sleep(0.1)
        assert system.api.requests[f"patch {SESSIONS}"] == 0


@pytest.mark.parametrize("status", [0, 429, 500, 503, 504])
async def test_a_post_that_failed_is_tried_again(status: int) -> None:
    async with running() as system:
        system.api.post_statuses = [status, status]
        system.api.answer = lambda session: succeeded("x")
        assert (await system.exec()).json["stdout"] == "x"
        assert system.api.requests[f"create {SESSIONS}"] == 3


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (403, 503, "cluster_refused"),
        (404, 503, "cluster_refused"),
        (413, 400, "invalid_request"),
        (422, 400, "invalid_request"),
    ],
)
async def test_a_post_that_is_refused_is_not_repeated(status: int, answer: int, error: str) -> None:
    async with running() as system:
        system.api.post_statuses = [status]
        reply = await system.exec()
        assert (reply.status, reply.json["error"]) == (answer, error)
        assert system.api.requests[f"create {SESSIONS}"] == 1


async def test_a_cluster_that_stays_away_gets_503_in_time() -> None:
    async with running(create_seconds=0.5) as system:
        system.api.post_statuses = [503] * 100
        reply = await system.exec()
        assert (reply.status, reply.json["error"]) == (503, "cluster_unavailable")
        assert reply.seconds < 3


async def test_a_session_that_appears_after_we_gave_up_is_cancelled() -> None:
    async with running(create_seconds=0.2) as system:
        system.api.post_statuses = [503] * 100
        await system.exec()
        await system.api.until(lambda: system.api.requests[f"patch {SESSIONS}"] == 1)
        (name,) = system.services.sessions._disowned
        labels = {names.LABEL_FRONT_END: system.services.settings.replica_uid}
        system.api.put(SESSIONS, {"metadata": {"name": name, "labels": labels}, "spec": {}})
        await system.api.until(lambda: system.api.requests[f"patch {SESSIONS}"] == 2)
        assert system.api.sessions()[0]["spec"]["cancel"] is True


async def test_an_end_before_the_answer_of_the_post_and_a_failure_after_it() -> None:
    async with running() as system:
        system.api.answer = lambda session: ended("TimeLimit")
        reply = await system.exec()
        assert (reply.json["status"], reply.json["signal"]) == ("TO", "SIGKILL")


async def test_readiness_follows_the_watch_and_the_pools() -> None:
    async with running(ready=False) as system:
        await system.api.until(lambda: not system.services.unready())
        assert (await system.request("GET", "/readyz")).raw == b"OK"
        assert (await system.request("GET", "/health")).raw == b"OK"
        system.api.watch_statuses = [503] * 50
        system.api.break_watches()
        await system.api.until(lambda: bool(system.services.unready()))
        reply = await system.request("GET", "/readyz")
        assert reply.status == 503
        assert reply.json == {"error": "not_ready", "message": "session watch not established"}
        assert (await system.request("GET", "/healthz")).raw == b"OK"
        system.api.watch_statuses = []
        await system.api.until(lambda: not system.services.unready(), seconds=10)
        assert (await system.request("GET", "/readyz")).status == 200


async def test_exec_before_the_pools_are_known_gets_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolBook, "known", False)  # or a watch that is quick would know them
    async with running(ready=False) as system:
        reply = await system.exec()
        assert (reply.status, reply.json["error"]) == (503, "service_unavailable")

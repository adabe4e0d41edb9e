"""POST /exec from end to end: real front end, real HTTP server, fake API server and store."""

import asyncio
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from contract.fakes_api.apiserver import ended, pool, succeeded
from contract.fakes_api.system import running
from kubecoderun_crds import names


async def test_a_minimal_call_makes_one_session_and_returns_its_output() -> None:
    async with running(replica_uid="replica-1") as system:
        system.api.answer = lambda session: succeeded("1\n")
        before = system.api.requests.copy()
        reply = await system.exec("print(1)")
        assert reply.status == 200
        assert reply.json == {
            "session_id": reply.json["session_id"],
            "stdout": "1\n",
            "stderr": "",
            "files": [],
            "code": 0,
            "signal": None,
            "message": None,
            "status": None,
            "wall_time": 12,
            "cpu_time": 10,
            "memory": 1000,
        }
        assert reply.headers["content-type"] == "application/json"
        assert system.api.requests - before == {"create executionsessions": 1}
        (session,) = system.api.sessions()
        assert session["metadata"]["name"] == reply.json["session_id"]
        assert re.fullmatch("[a-z0-9]{21}", reply.json["session_id"])
        assert session["spec"] == {
            "request": {"poolRef": {"name": "python"}, "language": "py", "code": "print(1)"}
        }
        labels = session["metadata"]["labels"]
        assert labels[names.LABEL_FRONT_END] == "replica-1"
        last = datetime.now(UTC) + timedelta(seconds=60 + 30 + 60 + 600)
        assert labels[names.LABEL_EXPIRES] in {
            names.expiry_bucket(last),
            names.expiry_bucket(last - timedelta(seconds=30)),
        }


async def test_arguments_and_time_limit_reach_the_session() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded()
        await system.exec("x", args=["a", 1, True, {"b": None}], timeout=1500, session_id="nobody", extra=[1])
        request = system.api.sessions()[0]["spec"]["request"]
        assert request["args"] == ["a", "1", "true", '{"b": null}']
        assert request["timeoutSeconds"] == 2


async def test_a_time_limit_over_the_pools_maximum_is_clamped() -> None:
    async with running() as system:
        system.api.put_pool(pool(limits={"maxTimeoutSeconds": 40}))
        await system.api.until(lambda: system.services.pools.choose("py").max_timeout_seconds == 40)
        system.api.answer = lambda session: succeeded()
        assert (await system.exec("x", timeout=600_000)).status == 200
        assert system.api.sessions()[0]["spec"]["request"]["timeoutSeconds"] == 40


async def test_many_calls_at_once_get_each_its_own_answer() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded(session["spec"]["request"]["code"])
        replies = await asyncio.gather(*(system.exec(f"program {n}") for n in range(60)))
        assert [reply.json["stdout"] for reply in replies] == [f"program {n}" for n in range(60)]


@pytest.mark.parametrize("code", ["x = 1\n" * 4000, "# form feed \f here", "print('\0')"])
async def test_code_that_cannot_stand_in_a_session_goes_to_the_store(code: str) -> None:
    async with running(install_id="inst", store_bucket="things") as system:
        system.api.answer = lambda session: succeeded("ok")
        reply = await system.exec(code)
        assert reply.json["stdout"] == "ok"
        session = system.api.sessions()[0]
        digest = hashlib.sha256(code.encode()).hexdigest()
        assert session["spec"]["request"]["codeRef"] == {"bytes": len(code.encode()), "sha256": digest}
        assert "code" not in session["spec"]["request"]
        key = f"/things/inst/kubecoderun/{session['metadata']['name']}/code"
        assert system.store.objects == {key: code.encode()}
        assert "X-Amz-Signature" in system.store.queries[0]


async def test_a_busy_store_is_tried_again() -> None:
    async with running() as system:
        system.store.statuses = [503, 500]
        system.api.answer = lambda session: succeeded("ok")
        assert (await system.exec("#" * 20_000)).json["stdout"] == "ok"


@pytest.mark.parametrize("settings", [{"store_seconds": 0.2}, {"store_endpoint": None}])
async def test_without_a_store_big_code_gets_503_and_no_session(settings: dict[str, object]) -> None:
    async with running(**settings) as system:
        system.store.statuses = [503] * 100
        reply = await system.exec("#" * 20_000)
        assert (reply.status, reply.json["error"]) == (503, "store_unavailable")
        assert system.api.sessions() == []


async def test_output_beyond_the_preview_comes_from_the_store() -> None:
    async with running() as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        full = {
            "stdout": {"text": "long " * 10_000, "bytes": 50_000, "truncated": False},
            "stderr": {"base64": "gIE=", "bytes": 2, "truncated": False},
        }
        key = f"/kubecoderun/kubecoderun/kubecoderun/{session}/result.json"
        system.store.objects[key] = json.dumps(full).encode()
        status = succeeded("long [... 1 bytes omitted ...]")
        status["result"] |= {"stored": True, "stdoutTruncated": True, "stdoutBytes": 50_000}
        system.api.finish(session, status)
        reply = await task
        assert reply.json["stdout"] == "long " * 10_000
        assert reply.json["stderr"] == "\ufffd\ufffd"
        assert reply.json["status"] is None


async def test_a_stored_result_that_is_not_needed_is_not_fetched() -> None:
    async with running() as system:
        status = succeeded("short")
        status["result"]["stored"] = True
        system.api.answer = lambda session: status
        assert (await system.exec()).json["stdout"] == "short"
        assert system.store.queries == []


@pytest.mark.parametrize("stored", [None, b"not json", b"[]"])
async def test_a_stored_result_that_cannot_be_read_leaves_the_preview(stored: bytes | None) -> None:
    async with running(store_seconds=0.2) as system:
        task = system.start_exec()
        session = (await system.api.created())["metadata"]["name"]
        if stored is not None:
            system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{session}/result.json"] = stored
        status = succeeded("preview")
        status["result"] |= {"stored": True, "stdoutTruncated": True}
        system.api.finish(session, status)
        reply = await task
        assert reply.status == 200
        assert reply.json["stdout"] == "preview"
        assert reply.json["stderr"] == "[kubecoderun] Only part of the output could be read.\n"


FAILURES = [
    ("PoolEmpty", 429, "rate_limited"),
    ("WaitExpired", 429, "rate_limited"),
    ("PoolNotFound", 400, "unsupported_capability"),
    ("LanguageNotInPool", 400, "unsupported_capability"),
    ("InvalidRequest", 400, "invalid_request"),
    ("SidecarLost", 503, "execution_lost"),
    ("PodLost", 503, "execution_lost"),
    ("NodeLost", 503, "execution_lost"),
    ("CodeUnavailable", 503, "code_unavailable"),
    ("StoreUnavailable", 503, "store_unavailable"),
    ("OperatorError", 500, "internal_error"),
    ("SomethingNew", 503, "execution_failed"),
]


async def test_failures_without_a_result_are_json_errors() -> None:
    async with running(retry_after_seconds=7) as system:
        for reason, status, error in FAILURES:
            system.api.answer = lambda session, reason=reason: ended(reason)
            reply = await system.exec()
            assert (reply.status, reply.json["error"]) == (status, error)
            assert reply.json["message"]
            assert "detail" not in reply.json
            if status == 429:
                assert reply.headers["retry-after"] == "7"
                assert reply.json["retry_after_seconds"] == 7


async def test_a_deleted_session_is_told() -> None:
    async with running() as system:
        task = system.start_exec()
        session = await system.api.created()
        system.api.delete(names.SESSION_PLURAL, session["metadata"]["name"])
        reply = await task
        assert (reply.status, reply.json["error"]) == (503, "session_deleted")
        assert system.api.requests["patch executionsessions"] == 0


async def test_a_session_nobody_ends_gets_504_and_is_cancelled() -> None:
    async with running(wait_slack_seconds=0.3, heartbeat=False) as system:
        system.api.put_pool(
            pool(
                onEmpty={"policy": "Reject"},
                sessionDefaults={"timeoutSeconds": 1},
                limits={"maxTimeoutSeconds": 1},
            )
        )
        await system.api.until(lambda: not system.services.pools.choose("py").waits)
        reply = await system.exec()
        assert (reply.status, reply.json["error"]) == (504, "execution_timeout")
        assert reply.seconds > 1.2
        await system.api.until(lambda: bool(system.api.sessions()[0]["spec"].get("cancel")))


async def test_a_full_queue_gets_429_before_a_session_is_made() -> None:
    async with running(pod_refill_seconds=0.5) as system:
        crowded = pool(onEmpty={"waitSeconds": 10})
        crowded["status"]["waitingSessions"] = 30
        system.api.put_pool(crowded)
        await system.api.until(lambda: system.services.pools.choose("py").waiting == 30)
        reply = await system.exec()
        assert (reply.status, reply.headers["retry-after"]) == (429, "5")
        assert reply.json["error"] == "rate_limited"
        assert system.api.sessions() == []
    async with running(pod_refill_seconds=0) as system:
        system.api.put_pool(crowded)
        await system.api.until(lambda: system.services.pools.choose("py").waiting == 30)
        system.api.answer = lambda session: succeeded()
        assert (await system.exec()).status == 200


async def test_an_available_pool_is_preferred_and_a_missing_language_is_named() -> None:
    async with running() as system:
        system.api.put_pool(pool("aaa", "py", "bash", available=False))
        await system.api.until(lambda: "bash" in system.services.pools.languages())
        system.api.answer = lambda session: succeeded()
        await system.exec("1")
        await system.exec("1", lang="bash")
        used = [session["spec"]["request"]["poolRef"]["name"] for session in system.api.sessions()]
        assert used == ["python", "aaa"]
        reply = await system.exec("1", lang="golang")
        assert reply.status == 400
        assert reply.json == {
            "error": "unsupported_capability",
            "message": "No pool runs go. Languages available here: bash, py.",
        }


async def test_a_pool_that_is_deleted_or_not_understood_is_not_used() -> None:
    async with running() as system:
        system.api.put_pool(pool("broken", "go", limits={"maxTimeoutSeconds": -1}))
        system.api.put_pool(pool("dying", "rs") | {"metadata": {"name": "dying", "deletionTimestamp": "now"}})
        system.api.delete(names.POOL_PLURAL, "python")
        await system.api.until(lambda: system.services.pools.languages() == [])
        reply = await system.exec()
        assert reply.json["message"].endswith("Languages available here: none.")

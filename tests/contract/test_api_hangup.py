"""Silence and connections: spaces before slow answers, Connection: close, clients that leave."""

import asyncio
from typing import Any

import pytest

from contract.fakes_api.apiserver import ended, held, succeeded
from contract.fakes_api.client import Connection
from contract.fakes_api.forms import TYPE, file, form
from contract.fakes_api.system import KEY, System, running
from kubecoderun_crds import names

S = "s" * 13 + "session1"
F = "s" * 13 + "file0001"
FAST = {"heartbeat_after_seconds": 0.3, "heartbeat_every_seconds": 0.2}
HEADERS = {"X-API-Key": KEY}
BODY = b'{"lang":"py","code":"print(1)"}'


async def test_a_slow_answer_begins_with_spaces() -> None:
    async with running(**FAST) as system:
        task = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(1.0)
        system.api.finish(session["metadata"]["name"], succeeded("late\n"))
        reply = await task
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["transfer-encoding"] == "chunked"
        assert reply.json["stdout"] == "late\n"
        assert reply.raw.startswith(b"  ")
        assert 0.28 < reply.spaces[0] < 0.9
        gaps = [after - before for before, after in zip(reply.spaces, reply.spaces[1:], strict=False)]
        assert gaps
        assert all(0.15 < gap < 1.0 for gap in gaps)
        assert system.metric("heartbeat_answers_total") == 1


async def test_the_defaults_break_the_silence_before_four_seconds() -> None:
    async with running() as system:
        task = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(4.2)
        system.api.finish(session["metadata"]["name"], succeeded())
        reply = await task
        assert 1.9 < reply.spaces[0] < 2.6
        assert reply.spaces[1] - reply.spaces[0] < 2.0


async def test_a_quick_answer_is_plain() -> None:
    async with running(**FAST) as system:
        system.api.answer = lambda session: succeeded()
        reply = await system.exec()
        assert "content-length" in reply.headers
        assert reply.spaces == []


async def test_without_heartbeat_nothing_is_sent_early() -> None:
    async with running(heartbeat=False, **FAST) as system:
        task = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(0.8)
        system.api.finish(session["metadata"]["name"], ended("PodLost"))
        reply = await task
        assert (reply.status, reply.spaces) == (503, [])


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("WaitExpired", "No sandbox became free in time. Try again in 5 seconds."),
        ("PoolNotFound", "The sandbox pool for this language no longer exists."),
        ("PodLost", "The sandbox was removed while the program ran."),
        ("OperatorError", "The run failed for an internal reason."),
    ],
)
async def test_a_failure_after_the_first_space_is_text_in_stderr(reason: str, text: str) -> None:
    async with running(**FAST) as system:
        task = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(0.5)
        system.api.finish(session["metadata"]["name"], ended(reason))
        reply = await task
        assert reply.status == 200
        assert reply.json["stderr"] == f"[kubecoderun] {text}\n"
        assert reply.json["session_id"] == session["metadata"]["name"]
        assert (reply.json["stdout"], reply.json["files"], reply.json["code"]) == ("", [], None)


async def test_the_clock_starts_with_the_request_not_with_its_body() -> None:
    async with running(**FAST) as system, system.connection() as connection:
        await connection.send("POST", "/exec", BODY[:5], HEADERS | {"Content-Length": str(len(BODY))})
        await asyncio.sleep(0.5)
        connection.writer.write(BODY[5:])
        started = asyncio.get_running_loop().time()
        await connection.reader.readuntil(b"\r\n\r\n")
        assert asyncio.get_running_loop().time() - started < 0.28


async def _ask(connection: Connection, method: str, path: str, body: bytes = b"") -> bool:
    """One request; whether the server kept the connection. Checks that header and deed agree."""
    await connection.send(method, path, body, HEADERS)
    reply = await connection.reply(method)
    announced = reply.headers.get("connection", "").lower() == "close"
    closed = await connection.closed(0.3)
    assert closed == announced
    return not closed


@pytest.mark.parametrize("close", [True, False])
async def test_only_a_successful_exec_keeps_the_connection(close: bool) -> None:
    async with running(close_connections=close) as system:
        system.api.answer = lambda session: succeeded()
        for path in ("/exec", "/v1/exec", "//exec", "/v1//exec/"):
            async with system.connection() as connection:
                assert await _ask(connection, "POST", path, BODY)
        other = [
            ("POST", "/exec", b"{}"),
            ("GET", "/exec", b""),
            ("POST", "/upload", b"x"),
            ("GET", "/upload", b""),
            ("GET", "/files/abc?detail=summary", b""),
            ("GET", "/health", b""),
            ("HEAD", "/health", b""),
            ("GET", "/healthz", b""),
            ("GET", "/readyz", b""),
            ("GET", "/metrics", b""),
            ("GET", "/executable", b""),
            ("GET", "/", b""),
        ]
        for method, path, body in other:
            async with system.connection() as connection:
                assert await _ask(connection, method, path, body) is not close, path


FILE_ROUTES = [
    ("POST", "/upload", form(file("a.csv")), 200),
    ("POST", "/upload", form(file("../a.csv")), 400),
    ("POST", "/upload", b"nonsense", 400),
    ("POST", "/upload", form(file("a.csv", b"x" * 2000)), 413),
    ("GET", f"/files/{S}?detail=summary", b"", 200),
    ("GET", f"/files/{S}?detail=x", b"", 400),
    ("GET", f"/files/{'x' * 21}", b"", 200),
    ("GET", f"/sessions/{S}/objects/{F}", b"", 200),
    ("HEAD", f"/sessions/{S}/objects/{F}", b"", 200),
    ("GET", f"/sessions/{S}/objects/{'x' * 21}", b"", 404),
    ("HEAD", f"/sessions/{S}/objects/{'x' * 21}", b"", 404),
    ("GET", f"/download/{S}/{F}", b"", 200),
    ("HEAD", f"/download/{S}/{F}", b"", 200),
    ("GET", f"/download/{S}/{F}", b"", 206),
    ("GET", f"/download/{S}/{F}", b"", 416),
    ("GET", f"/download/{S}/{'x' * 21}", b"", 404),
    ("HEAD", f"/download/{S}/{'x' * 21}", b"", 404),
    ("GET", "/download/short/short", b"", 400),
    ("POST", f"/download/{S}/{F}", b"", 405),
    ("DELETE", f"/files/{S}/short", b"", 400),
    ("DELETE", f"/files/{S}/{F}", b"", 200),
    ("DELETE", f"/files/{S}/{F}", b"", 404),
]
RANGES = {206: {"Range": "bytes=0-9"}, 416: {"Range": "bytes=9999999-"}}


@pytest.mark.parametrize("close", [True, False])
async def test_no_route_for_files_keeps_the_connection(close: bool) -> None:
    async with running(close_connections=close, max_upload_bytes=1000) as system:
        system.api.put(
            names.SESSION_PLURAL,
            held(S, {"id": F, "path": "a.csv", "bytes": 400_000}, expiresAt="2099-01-01T00:00:00Z"),
        )
        system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{S}/{F}"] = b"x" * 400_000
        for method, path, body, status in FILE_ROUTES:
            async with system.connection() as connection:
                headers = HEADERS | {"Content-Type": TYPE} | RANGES.get(status, {})
                await connection.send(method, path, body, headers)
                reply = await connection.reply(method)
                assert reply.status == status, (method, path)
                assert (reply.headers.get("connection", "") == "close") is close, (method, path, status)
                assert await connection.closed(0.2) is close, (method, path, status)
            for headers in ({}, {"X-API-Key": "wrong"}):
                async with system.connection() as connection:
                    await connection.send(method, path, body, headers)
                    reply = await connection.reply(method)
                    assert reply.status in (401, 405)
                    assert await connection.closed(0.2) is close, (method, path, reply.status)


async def test_a_run_that_lacks_a_file_keeps_the_connection() -> None:
    """It is a 2xx of /exec."""
    async with running() as system, system.connection() as connection:
        body = b'{"lang":"py","code":"x","files":[{"id":"x","name":"a"}]}'
        await connection.send("POST", "/exec", body, HEADERS)
        reply = await connection.reply()
        assert (reply.status, reply.headers.get("connection")) == (200, None)
        assert not await connection.closed(0.2)


async def test_error_statuses_of_exec_close_the_connection() -> None:
    async with running() as system:
        for reason in ("WaitExpired", "PodLost", "OperatorError"):
            system.api.answer = lambda session, reason=reason: ended(reason)
            async with system.connection() as connection:
                assert not await _ask(connection, "POST", "/exec", BODY)


async def test_one_connection_serves_many_execs() -> None:
    async with running(**FAST) as system, system.connection() as connection:
        system.api.answer = lambda session: succeeded("x")
        for _ in range(3):
            await connection.send("POST", "/exec", BODY, HEADERS)
            assert (await connection.reply()).json["stdout"] == "x"
        system.api.answer = lambda session: None
        await connection.send("POST", "/exec", BODY, HEADERS)
        session = await system.api.created(4)
        await asyncio.sleep(0.5)
        system.api.finish(session["metadata"]["name"], succeeded("slow"))
        late = await connection.reply()
        assert late.json["stdout"] == "slow"
        assert "connection" not in late.headers
        system.api.answer = lambda session: succeeded("again")
        await connection.send("POST", "/exec", BODY, HEADERS)
        assert (await connection.reply()).json["stdout"] == "again"


async def _leave(system: System, after: float) -> str:
    """Begin a call and go away; the session's name."""
    async with system.connection() as connection:
        await connection.send("POST", "/exec", BODY, HEADERS)
        session = await system.api.created()
        await asyncio.sleep(after)
    return str(session["metadata"]["name"])


@pytest.mark.parametrize("after", [0.05, 0.6])
async def test_a_client_that_leaves_cancels_its_run(after: float) -> None:
    async with running(**FAST) as system:
        await _leave(system, after)
        await system.api.until(lambda: system.api.sessions()[0]["spec"].get("cancel") is True)
        assert system.metric("disconnects_total", action="cancel") == 1
        assert system.metric("requests_total", route="/exec", status="499") == 1
        assert system.metric("open_runs") == 0


async def test_with_finish_the_run_goes_on_unseen() -> None:
    async with running(on_disconnect="finish", **FAST) as system:
        name = await _leave(system, 0.05)
        await system.api.until(lambda: system.metric("disconnects_total", action="finish") == 1)
        assert system.metric("open_runs") == 1
        system.api.finish(name, succeeded())
        await system.api.until(lambda: system.metric("runs_total", language="py", reason="Succeeded") == 1)
        assert system.api.requests["patch executionsessions"] == 0
        assert not system.services.unseen


async def test_with_finish_the_end_of_the_front_end_does_not_end_the_run() -> None:
    async with running(on_disconnect="finish", **FAST) as system:
        await _leave(system, 0.05)
        await system.api.until(lambda: system.metric("disconnects_total", action="finish") == 1)
        await system.services.close()
        assert system.api.requests["patch executionsessions"] == 0


async def test_a_client_that_leaves_while_the_session_is_created_cancels_it_too() -> None:
    async with running() as system:
        system.api.swallow_posts = 1
        await _leave(system, 0.05)
        await system.api.until(lambda: system.api.sessions()[0]["spec"].get("cancel") is True)


async def test_a_cancellation_is_tried_again_until_it_succeeds() -> None:
    async with running() as system:
        system.api.patch_statuses = [503, 429, 500]
        await _leave(system, 0.05)
        await system.api.until(lambda: system.api.sessions()[0]["spec"].get("cancel") is True)


async def test_a_client_that_leaves_in_the_middle_of_its_body_starts_nothing() -> None:
    async with running() as system:
        async with system.connection() as connection:
            await connection.send("POST", "/exec", BODY[:5], HEADERS | {"Content-Length": str(len(BODY))})
        await system.api.until(lambda: system.metric("requests_total", route="/exec", status="499") == 1)
        assert system.api.sessions() == []


def _told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The facts of all log lines of one kind."""
    return [record.__dict__["facts"] for record in caplog.records if record.message == event]


@pytest.mark.parametrize("action", ["cancel", "finish"])
@pytest.mark.parametrize(("after", "late"), [(0.05, False), (0.7, True)])
async def test_the_log_says_who_left_and_when(
    action: str, after: float, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One line at once, and the line of the request with a status of its own, both with the session."""
    caplog.set_level("INFO", "kubecoderun_api")
    async with running(on_disconnect=action, **FAST) as system:
        name = await _leave(system, after)
        await system.api.until(lambda: bool(_told(caplog, "request")))
        (left,), (request,) = _told(caplog, "client_left"), _told(caplog, "request")
        assert (left["session"], left["action"]) == (name, action)
        assert after <= left["seconds"] < after + 3
        assert (request["status"], request["path"], request["session"]) == (499, "/exec", name)
        assert request.get("late", False) is late
        assert "reason" not in request, "nobody knows yet how the run ends"
        assert system.metric("disconnects_total", action=action) == 1
        assert system.metric("heartbeat_answers_total") == int(late)


async def test_a_client_that_stays_is_not_said_to_have_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kubecoderun_api")
    async with running(**FAST) as system:
        task = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(0.6)
        system.api.finish(session["metadata"]["name"], succeeded())
        await task
        await system.api.until(lambda: bool(_told(caplog, "request")))
        assert [line["status"] for line in _told(caplog, "request")] == [200]
        assert _told(caplog, "client_left") == []
        assert system.metric("disconnects_total", action="cancel") == 0


async def test_the_seconds_run_from_the_headers_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kubecoderun_api")
    async with running() as system:
        async with system.connection() as connection:
            await connection.send("POST", "/exec", BODY[:5], HEADERS | {"Content-Length": str(len(BODY))})
            await asyncio.sleep(0.5)
            connection.writer.write(BODY[5:])
            await system.api.created()
        await system.api.until(lambda: bool(_told(caplog, "client_left")))
        assert _told(caplog, "client_left")[0]["seconds"] >= 0.5


async def test_leaving_in_the_middle_of_the_body_is_logged_without_a_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "kubecoderun_api")
    async with running() as system:
        async with system.connection() as connection:
            await connection.send("POST", "/exec", BODY[:5], HEADERS | {"Content-Length": str(len(BODY))})
        await system.api.until(lambda: bool(_told(caplog, "request")))
        (request,) = _told(caplog, "request")
        assert request["status"] == 499
        assert "session" not in request

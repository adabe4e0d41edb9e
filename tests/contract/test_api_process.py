"""The program as a container starts it: `python -m kubecoderun_api` with variables, ended by a signal."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.client import Connection
from contract.fakes_api.forms import TYPE, file, form
from contract.fakes_api.program import program
from contract.fakes_api.store import object_store
from kubecoderun_api.__main__ import main


async def test_it_serves_and_ends_on_a_signal(tmp_path: Path) -> None:
    async with program(tmp_path) as front_end:
        front_end.api.answer = lambda session: succeeded("1\n")
        reply = await front_end.post()
        assert reply.json["stdout"] == "1\n"
        assert "server" not in reply.headers
        front_end.process.terminate()
        assert await front_end.ended() in (0, -signal.SIGTERM)
    assert [name for name in front_end.events() if name != "library"] == [
        "started",
        "request",
        "stopping",
        "stopped",
    ]
    (request,) = [line for line in front_end.lines if line["event"] == "request"]
    assert set(request) == {
        "ts",
        "level",
        "event",
        "method",
        "path",
        "status",
        "ms",
        "session",
        "language",
        "pool",
        "reason",
    }


async def test_open_calls_are_finished_before_the_end(tmp_path: Path) -> None:
    async with program(tmp_path) as front_end:
        call = asyncio.create_task(front_end.post())
        session = (await front_end.api.created())["metadata"]["name"]
        front_end.process.terminate()
        with pytest.raises(OSError):  # noqa: PT012, PT011 - refused or reset
            async with asyncio.timeout(5):
                while True:
                    async with Connection("127.0.0.1", front_end.port):
                        await asyncio.sleep(0.05)
        front_end.api.finish(session, succeeded("finished"))
        assert (await call).json["stdout"] == "finished"
        assert await front_end.ended() in (0, -signal.SIGTERM)


async def test_calls_still_open_at_the_limit_get_an_error_and_are_cancelled(tmp_path: Path) -> None:
    async with program(tmp_path, KCR_SHUTDOWN_SECONDS="0.5") as front_end:
        call = asyncio.create_task(front_end.post())
        await front_end.api.created()
        front_end.process.terminate()
        reply = await call
        assert (reply.status, reply.json["error"]) == (503, "shutting_down")
        assert await front_end.ended() in (0, -signal.SIGTERM)
        assert front_end.api.sessions()[0]["spec"]["cancel"] is True


async def test_an_upload_that_is_open_at_the_limit_leaves_nothing(tmp_path: Path) -> None:
    async with object_store() as store:
        settings = {
            "KCR_STORE_ENDPOINT": store.url,
            "KCR_STORE_ACCESS_KEY": "access",
            "KCR_STORE_SECRET_KEY": "secret",
            "KCR_SHUTDOWN_SECONDS": "0.5",
        }
        async with (
            program(tmp_path, **settings) as front_end,
            Connection("127.0.0.1", front_end.port) as connection,
        ):
            body = form(file("a.csv"), file("b.csv", b"x" * 10 * 1024 * 1024))
            headers = {"Content-Type": TYPE, "Content-Length": str(len(body))}
            await connection.send("POST", "/upload", body[:-500], headers)
            await front_end.api.until(lambda: bool(store.objects) and bool(store.uploads))
            front_end.process.terminate()
            reply = await connection.reply()
            assert (reply.status, reply.json["error"]) == (503, "shutting_down")
            assert await front_end.ended() in (0, -signal.SIGTERM)
            assert store.empty
            assert front_end.api.sessions() == []


async def test_while_draining_it_is_not_ready_but_serves(tmp_path: Path) -> None:
    async with program(tmp_path, KCR_DRAIN_SECONDS="3") as front_end:
        front_end.api.answer = lambda session: succeeded("x")
        front_end.process.terminate()
        await asyncio.sleep(0.4)
        async with Connection("127.0.0.1", front_end.port) as connection:
            await connection.send("GET", "/readyz")
            assert (await connection.reply()).json["message"] == "shutting down"
        assert (await front_end.post()).json["stdout"] == "x"
        assert await front_end.ended() in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KCR_PORT", "http"),
        ("KCR_ON_DISCONNECT", "explode"),
        ("KCR_NAMESPACE", "../x"),
        ("KCR_STORE_ENDPOINT", "http://user:hush-hush@host"),
        ("KCR_HEARTBEAT_EVERY_SECONDS", "0"),
    ],
)
def test_settings_that_make_no_sense_are_named_without_their_value(
    variable: str, value: str, bare_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare_process.setenv("KCR_AUTH", "none")
    bare_process.setenv(variable, value)
    assert main() == 2
    output = capsys.readouterr().out
    (line,) = [json.loads(text) for text in output.splitlines()]
    assert (line["event"], line["setting"]) == ("bad_setting", variable)
    assert value == "0" or value not in output


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "KCR_API_KEYS_FILE"),
        ({"KCR_AUTH": "none", "KCR_STORE_ENDPOINT": "http://s"}, "KCR_STORE_ACCESS_KEY"),
    ],
    ids=str,
)
def test_settings_that_need_each_other(
    given: dict[str, str], missing: str, bare_process: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in given.items():
        bare_process.setenv(name, value)
    assert main() == 2
    assert missing in capsys.readouterr().out


@pytest.fixture
def bare_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """No KCR_ variables, and the logging of the test run given back at the end."""
    for name in [name for name in os.environ if name.startswith("KCR_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield monkeypatch
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("kubecoderun_api").setLevel(logging.NOTSET)

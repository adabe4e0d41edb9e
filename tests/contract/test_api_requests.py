"""Bad input, sizes, paths: JSON errors of one shape, never a 500, never anything of the framework's."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, System, running
from kubecoderun_crds.fields import LANGUAGES

HEADERS = {"X-API-Key": KEY}
UNSUPPORTED = "unsupported_capability"


def assert_error(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.raw
    assert reply.headers["content-type"].startswith("application/json")
    assert isinstance(reply.json["error"], str)
    assert reply.json["error"]
    assert isinstance(reply.json["message"], str)
    assert reply.json["message"]
    assert set(reply.json) <= {"error", "message", "code", "retry_after_seconds"}
    assert len(reply.raw) < 600
    assert b"Traceback" not in reply.raw


async def _all(system: System, bodies: list[bytes], status: int) -> None:
    for body in bodies:
        assert_error(await system.request("POST", "/exec", body, HEADERS), status)
    assert system.api.sessions() == []


async def test_bodies_that_are_no_json_object() -> None:
    async with running() as system:
        bodies = [
            b"",
            b"{",
            b"null",
            b"[]",
            b'"text"',
            b"\xff\xfe{}",
            b'{"lang":"py","code":NaN}',
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"lang":"py","code":"x","n":' + b"9" * 5000 + b"}",
            b"lang=py&code=x",
        ]
        await _all(system, bodies, 400)


SENSELESS: list[dict[str, Any]] = [
    {"lang": None},
    {"lang": 5},
    {"lang": ["py"]},
    {"code": None},
    {"code": ""},
    {"code": 5},
    {"code": ["print(1)"]},
    {"code": {"a": 1}},
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": "5000"},
    {"timeout": True},
    {"timeout": []},
    {"args": ["a"] * 65},
    {"args": ["a" * 4097]},
    {"args": ["a" * 4000] * 10},
    {"args": ["nul\0"]},
    {"args": "\x1b[31m"},
]


async def test_fields_that_make_no_sense() -> None:
    async with running() as system:
        for fields in SENSELESS:
            body = {"lang": "py", "code": "print(1)", **fields}
            sent = {name: value for name, value in body.items() if value is not None}
            await _all(system, [json.dumps(sent).encode()], 400)


async def test_text_without_a_utf8_form() -> None:
    async with running() as system:
        await _all(
            system,
            [b'{"lang":"py","code":"\\ud800"}', b'{"lang":"py","code":"x","args":["\\udfff"]}'],
            400,
        )


async def test_languages_nobody_knows_or_has() -> None:
    async with running() as system:
        for lang, error in (("cobol", "Unsupported language: cobol"), ("\ud800", "Unsupported language: ?")):
            reply = await system.exec("x", lang=lang)
            assert_error(reply, 400)
            assert (reply.json["error"], reply.json["code"]) == (error, UNSUPPORTED)
        reply = await system.exec("x", lang="x" * 10_000)
        assert_error(reply, 400)
        for lang in set(LANGUAGES) - {"py"}:
            reply = await system.exec("x", lang=lang)
            assert_error(reply, 400)
            assert reply.json["error"] == UNSUPPORTED
            assert "py" in reply.json["message"]


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
async def test_a_body_over_the_limit_gets_413_and_can_be_read(length: bool) -> None:
    async with running(max_body_bytes=100_000) as system:
        system.api.answer = lambda session: succeeded()
        body = b'{"lang":"py","code":"' + b"#" * 99_977 + b'"}'
        assert len(body) == 100_000
        assert (await system.request("POST", "/exec", body, HEADERS, length=length)).status == 200
        reply = await system.request("POST", "/exec", body + b" ", HEADERS, length=length)
        assert_error(reply, 413)
        reply = await system.request("POST", "/exec", body + b" " * 90_000, HEADERS, length=length)
        assert_error(reply, 413)
        assert reply.headers["connection"] == "close"


async def test_a_client_that_waits_for_100_continue_is_refused_without_sending() -> None:
    async with running(max_body_bytes=1024) as system, system.connection() as connection:
        declared = {"Content-Length": "9999999", "Expect": "100-continue"}
        await connection.send("POST", "/exec", b"", HEADERS | declared)
        assert_error(await asyncio.wait_for(connection.reply(), 2), 413)


async def test_a_body_that_does_not_end_gets_408() -> None:
    async with running(body_seconds=0.3) as system, system.connection() as connection:
        await connection.send("POST", "/exec", b"{", HEADERS | {"Content-Length": "50"})
        assert_error(await connection.reply(), 408)


async def test_fifty_megabytes_pass() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("big")
        body = b'{"lang":"py","code":"' + b"#" * (50 * 1024 * 1024 - 100) + b'"}'
        assert (await system.request("POST", "/exec", body, HEADERS)).json["stdout"] == "big"


PATHS = ["/exec", "/v1/exec", "//exec", "/v1//exec", "//v1//exec//", "/exec/", "/exec?a=b"]


async def test_spellings_of_the_path() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("1")
        for path in PATHS:
            assert (await system.exec(path=path)).json["stdout"] == "1"
            for probe in ("health", "healthz", "readyz", "metrics"):
                other = path.partition("?")[0].replace("exec", probe)
                assert (await system.request("GET", other)).status == 200


async def test_unknown_paths_and_methods() -> None:
    async with running() as system:
        for path in (
            "/",
            "/v1",
            "/v1/v1/exec",
            "/upload/x",
            "/files",
            "/files/a/b/c",
            "/sessions/a",
            "/download/a",
            "/%2e",
        ):
            assert_error(await system.request("GET", path), 404)
        assert_error(await system.request("POST", "/upload/x", b"x" * 100_000), 404)
        reply = await system.request("GET", "/exec")
        assert_error(reply, 405)
        assert reply.headers["allow"] == "POST"
        assert_error(await system.request("DELETE", "/health"), 405)
        assert_error(await system.request("GET", "/upload"), 405)


async def test_a_fault_of_ours_is_a_json_500_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as system:
        monkeypatch.setattr(system.services.pools, "choose", lambda language: 1 / 0)
        assert_error(await system.exec(), 500)
        monkeypatch.undo()
        monkeypatch.setattr(system.services.sessions, "_create", lambda *_: 1 / 0)
        reply = await system.exec()
        assert_error(reply, 500)
        assert reply.json["error"] == "internal_error"
        assert system.metric("runs_total", language="py", reason="InternalError") == 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "lang": st.sampled_from(["py", "python", "js", "nope"]) | JSON_VALUES,
        "code": st.text() | JSON_VALUES,
        "args": JSON_VALUES,
        "timeout": JSON_VALUES,
        "files": JSON_VALUES,
        "session_id": JSON_VALUES,
        "api_key": JSON_VALUES,
    },
)


def test_whatever_comes_is_answered_with_200_or_a_clean_4xx() -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        body=FIELDS.map(json.dumps).map(str.encode)
        | st.binary()
        | JSON_VALUES.map(json.dumps).map(str.encode)
    )
    def ask(body: bytes) -> None:
        reply = runner.run(system.request("POST", "/exec", body, HEADERS))
        if reply.status == 200:
            assert reply.json["stdout"] == "ok"
        else:
            assert 400 <= reply.status < 500
            assert_error(reply, reply.status)

    with asyncio.Runner() as runner:
        context = running()
        system = runner.run(context.__aenter__())
        system.api.answer = lambda session: succeeded("ok")
        try:
            ask()
        finally:
            runner.run(context.__aexit__(None, None, None))

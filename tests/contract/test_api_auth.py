"""Who may run programs: every place a key can stand in, and that no key is ever written anywhere."""

import json
import logging
from typing import Any

import pytest

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.system import KEY, running
from kubecoderun_api.log import JsonLines

BODY = {"lang": "py", "code": "print(1)"}

MATRIX: list[tuple[int, dict[str, str], dict[str, Any]]] = [
    (200, {"X-API-Key": KEY}, {}),
    (200, {"x-api-key": f"  {KEY} "}, {}),
    (200, {"Authorization": f"Bearer {KEY}"}, {}),
    (200, {"Authorization": f"bearer   {KEY}"}, {}),
    (200, {"Authorization": f"ApiKey {KEY}"}, {}),
    (200, {}, {"LIBRECHAT_CODE_API_KEY": KEY}),
    (200, {}, {"api_key": KEY}),
    (200, {}, {"apiKey": KEY}),
    (200, {"X-API-Key": KEY}, {"LIBRECHAT_CODE_API_KEY": KEY, "apiKey": KEY}),
    (200, {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"}, {}),
    (200, {"X-API-Key": KEY}, {"api_key": "", "apiKey": None}),
    (200, {"X-API-Key": KEY}, {"api_key": 5}),
    (200, {"X-API-Key": "", "Authorization": f"Bearer {KEY}"}, {}),
    (401, {}, {}),
    (401, {}, {"apiKey": ""}),
    (401, {}, {"apiKey": [KEY]}),
    (401, {"X-API-Key": "wrong"}, {}),
    (401, {"X-API-Key": KEY.upper()}, {}),
    (401, {"X-API-Key": KEY + "x"}, {}),
    (401, {"X-API-Key": KEY[:-1]}, {}),
    (401, {"Authorization": KEY}, {}),
    (401, {"Authorization": f"Basic {KEY}"}, {}),
    (401, {"Authorization": "Bearer"}, {}),
    (401, {"Authorization": "Bearer a.b.c"}, {}),
    (401, {}, {"apiKey": "\ud800"}),
    (400, {"X-API-Key": KEY}, {"api_key": "other"}),
    (400, {"X-API-Key": "wrong"}, {"api_key": KEY}),
    (400, {"X-API-Key": KEY, "Authorization": "Bearer other"}, {}),
    (400, {"X-API-Key": KEY, "Authorization": f"Basic {KEY}"}, {}),
    (400, {}, {"api_key": KEY, "apiKey": "other"}),
]


async def test_every_place_of_a_key() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded()
        for expected, headers, fields in MATRIX:
            before = len(system.api.sessions())
            reply = await system.request("POST", "/exec", BODY | fields, headers)
            assert reply.status == expected, (headers, fields, reply.raw)
            if expected == 200:
                assert KEY not in json.dumps(system.api.sessions())
            else:
                assert len(system.api.sessions()) == before
                assert set(reply.json) == {"error", "message"}
                assert KEY.encode() not in reply.raw


async def test_strangers_do_not_learn_what_is_wrong_with_their_body() -> None:
    async with running() as system:
        for body in (b"{", b"[]", b'{"lang":"nope"}', b'{"lang":"py"}'):
            assert (await system.request("POST", "/exec", body)).status == 401
            assert (await system.request("POST", "/exec", body, {"X-API-Key": "x"})).status == 401
            assert (await system.request("POST", "/exec", body, {"X-API-Key": KEY})).status == 400
        assert system.metric("authentication_failures_total", kind="missing") == 4
        assert system.metric("authentication_failures_total", kind="wrong") == 4


async def test_a_big_body_may_carry_its_key_inside() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("big")
        body = BODY | {"code": "#" * 1_100_000, "LIBRECHAT_CODE_API_KEY": KEY}
        assert (await system.request("POST", "/exec", body)).json["stdout"] == "big"
        assert (await system.request("POST", "/exec", body | {"LIBRECHAT_CODE_API_KEY": "x"})).status == 401


async def test_probes_and_unknown_paths_need_no_key() -> None:
    async with running() as system:
        for path in ("/health", "/healthz", "/readyz", "/metrics"):
            assert (await system.request("GET", path)).status == 200
        assert (await system.request("GET", "/nothing")).status == 404


async def test_keys_are_read_again_when_their_file_changes() -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded()

        async def status(key: str) -> int:
            return (await system.request("POST", "/exec", BODY, {"X-API-Key": key})).status

        assert (await status(KEY), await status("second")) == (200, 401)
        system.keys_file.write_text("second\n\n# a comment\n third \n")
        assert (await status(KEY), await status("second"), await status("third")) == (401, 200, 200)
        new = system.keys_file.with_name(
            "new"
        )  # as the kubelet swaps a Secret: another file at the same path
        new.write_text("fourth")
        new.replace(system.keys_file)
        assert (await status("third"), await status("fourth")) == (401, 200)
        system.keys_file.unlink()
        assert await status("fourth") == 401
        system.keys_file.write_text("fourth")
        assert await status("fourth") == 200


async def test_without_authentication_everybody_may() -> None:
    async with running(auth="none", api_keys_file=None) as system:
        system.api.answer = lambda session: succeeded()
        assert (await system.request("POST", "/exec", BODY)).status == 200
        assert (await system.request("POST", "/exec", BODY, {"X-API-Key": "any"})).status == 200
        big = BODY | {"code": "#" * 1_100_000}
        assert (await system.request("POST", "/exec", big)).status == 200


async def test_no_line_holds_a_key_code_output_or_a_signed_url(caplog: pytest.LogCaptureFixture) -> None:
    secrets = [
        KEY,
        "wrong-key",
        "SECRET_CODE",
        "SECRET_OUTPUT",
        "Signature",
        "access/",
        "secret-of-the-store",
    ]
    with caplog.at_level(logging.DEBUG):
        async with running(store_seconds=0.2, cluster_attempt_seconds=0.3, create_seconds=0.5) as system:
            system.api.answer = lambda session: succeeded("SECRET_OUTPUT")
            await system.exec("SECRET_CODE", api_key=KEY, args=["SECRET_CODE"])
            await system.exec("SECRET_CODE" * 2000)
            system.store.statuses = [500] * 100
            await system.exec("SECRET_CODE" * 2000)
            system.store.statuses = []
            await system.request("POST", "/exec", BODY, {"X-API-Key": "wrong-key"})
            await system.request("POST", f"/exec?key={KEY}", b'{"code": SECRET_CODE', {"X-API-Key": KEY})
            await system.exec("SECRET_CODE", lang="SECRET_CODE")
            system.api.post_statuses = [0] * 100
            await system.exec("SECRET_CODE")
            system.services.pools.choose = lambda language: 1 / len("SECRET_CODE"[:0])  # type: ignore[method-assign]
            await system.exec("SECRET_CODE")
    written = "\n".join(
        JsonLines().format(record) for record in caplog.records if record.name != "aiohttp.access"
    )
    assert '"event": "request"' in written
    assert '"event": "request_failed"' in written
    for secret in secrets:
        assert secret not in written

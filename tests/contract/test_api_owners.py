"""What belongs to a tenant is there for nobody else; and no credential gets into a resource."""

import json
import logging
from typing import Any

import pytest

from contract.fakes_api import forms
from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.forms import form
from contract.fakes_api.system import System, running
from kubecoderun_api.log import JsonLines

A, A2, B, NOBODY = "key-of-acme-1", "key-of-acme-2", "key-of-bolt", "key-of-nobody"
FILE = f"{A} tenant=acme label=chat\n{A2} tenant=acme\n{B} tenant=bolt\n{NOBODY}\n"


async def call(system: System, key: str, method: str, path: str, body: Any = b"", **headers: str) -> Reply:
    return await system.request(method, path, body, {"X-API-Key": key, **headers})


async def upload(system: System, key: str, **headers: str) -> tuple[str, str]:
    body = form(forms.file("a.csv", b"1,2"))
    reply = await call(system, key, "POST", "/upload", body, **{"Content-Type": forms.TYPE, **headers})
    assert reply.status == 200, reply.raw
    return reply.json["session_id"], reply.json["files"][0]["fileId"]


def paths(session: str, file: str) -> list[tuple[str, str]]:
    return [
        ("GET", f"/sessions/{session}/objects/{file}"),
        ("HEAD", f"/sessions/{session}/objects/{file}"),
        ("GET", f"/download/{session}/{file}"),
        ("HEAD", f"/download/{session}/{file}"),
        ("DELETE", f"/files/{session}/{file}"),
    ]


async def test_a_file_of_another_tenant_does_not_exist() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        system.api.answer = lambda session: succeeded() if "code" in session["spec"]["request"] else None
        for owner, strangers in ((A, (B, NOBODY)), (NOBODY, (A, B))):
            session, file = await upload(system, owner)
            reference = {"id": file, "session_id": session, "name": "a.csv"}
            program = {"lang": "py", "code": "x", "files": [reference]}
            for stranger in strangers:
                for method, path in paths(session, file):
                    reply = await call(system, stranger, method, path)
                    assert reply.status == 404, (method, path)
                    missing = await call(system, stranger, method, path.replace(session, "z" * 21))
                    assert (missing.status, missing.raw) == (reply.status, reply.raw), "tells that it exists"
                assert (await call(system, stranger, "GET", f"/files/{session}?detail=full")).json == []
                for hint in (session, "z" * 21):  # also when the file is looked for by its id
                    program["files"] = [reference | {"session_id": hint}]
                    answer = (await call(system, stranger, "POST", "/exec", program)).json
                    assert answer["code"] is None
                    assert "does not exist" in answer["stderr"]
            assert not any("inputs" in one["spec"]["request"] for one in system.api.sessions())
            program["files"] = [reference]
            assert (await call(system, owner, "POST", "/exec", program)).json["code"] == 0
            system.api.objects.pop(("executionsessions", system.api.sessions()[-1]["metadata"]["name"]))
            for method, path in paths(session, file):
                assert (await call(system, owner, method, path)).status == 200


async def test_two_keys_of_one_tenant_share_its_files() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        session, file = await upload(system, A)
        assert (await call(system, A2, "GET", f"/download/{session}/{file}")).raw == b"1,2"


async def test_sessions_carry_tenant_and_user() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        system.api.answer = lambda session: succeeded()
        await call(system, A, "POST", "/exec", {"lang": "py", "code": "x", "user_id": "u@example.org"})
        made = system.api.sessions()[-1]
        assert made["spec"]["request"]["tenant"] == "acme"
        assert made["metadata"]["labels"]["kubecoderun.io/tenant"] == "acme"
        assert made["metadata"]["labels"]["kubecoderun.io/user"].startswith("x-")
        assert "example.org" not in json.dumps(made)
        await upload(system, A, **{"User-Id": "65f0c0ffee"})
        assert system.api.sessions()[-1]["metadata"]["labels"]["kubecoderun.io/user"] == "65f0c0ffee"
        await call(
            system, NOBODY, "POST", "/exec", {"lang": "py", "code": "x", "user_id": 5, "tenant": "acme"}
        )
        made = system.api.sessions()[-1]
        assert "tenant" not in made["spec"]["request"]
        assert not {"kubecoderun.io/tenant", "kubecoderun.io/user"} & set(made["metadata"]["labels"])


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ((), True),
        ((("kind", "user"),), True),
        ((("kind", "agent"), ("id", "a1")), False),
        ((("entity_id", "a1"),), False),
    ],
)
async def test_files_of_an_agent_belong_to_no_single_user(
    fields: tuple[tuple[str, str], ...], user: bool
) -> None:
    async with running() as system:
        texts = [forms.text(name, value) for name, value in fields]
        body = form(*texts, forms.file("a.csv", b"1"))
        headers = {"Content-Type": forms.TYPE, "User-Id": "u1", "X-API-Key": "correct-horse"}
        assert (await system.request("POST", "/upload", body, headers)).status == 200
        assert ("kubecoderun.io/user" in system.api.sessions()[-1]["metadata"]["labels"]) is user


LEAKS: list[dict[str, Any]] = [
    {"LIBRECHAT_CODE_API_KEY": A},
    {"apiKey": A, "api_key": A},
    {"codeSessionKey": A, "settings": {"deep": [{"apiKey": A}]}, A: A},
    {"files": [], "tools": [{"name": "x", "apiKey": A}], "session_id": A, "entity_id": A},
    {"user_id": "someone", "env": {"KEY": A}, "stdin": A, "tenant": A, "cancel": A},
]
REPEATS: list[dict[str, Any]] = [
    {"args": [A]},
    {"args": {"nested": [{"apiKey": A}]}},
    {"code": f"print('{A}')"},
    {"user_id": A},
]


async def test_a_leaked_key_gets_neither_into_a_resource_nor_into_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with running() as system:
            system.keys_file.write_text(FILE)
            system.api.answer = lambda session: succeeded()
            session, file = await upload(system, A)
            reference = {"id": file, "session_id": session, "name": "a", "apiKey": A, "metadata": {"k": A}}
            for extra in [*LEAKS, {"files": [reference]}]:
                reply = await call(system, A, "POST", "/exec", {"lang": "py", "code": "x"} | extra)
                assert (reply.status, reply.json["code"]) == (200, 0), (extra, reply.raw)
            made = len(system.api.sessions())
            for extra in REPEATS:
                reply = await call(system, A, "POST", "/exec", {"lang": "py", "code": "x"} | extra)
                assert (reply.status, reply.json["error"]) == (400, "credential_in_request"), extra
                assert A.encode() not in reply.raw
            body = form(forms.file(f"{A}.csv", b"1"))
            reply = await call(system, A, "POST", "/upload", body, **{"Content-Type": forms.TYPE})
            assert (reply.status, reply.json["error"]) == (400, "credential_in_request")
            assert len(system.api.sessions()) == made
            assert A not in json.dumps(system.api.sessions())
            assert A not in json.dumps(system.api.patches)
    lines = [JsonLines().format(record) for record in caplog.records if record.name != "aiohttp.access"]
    assert any('"event": "request"' in line for line in lines)
    assert not [line for line in lines if A in line]

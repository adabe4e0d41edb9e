"""Tokens before the real front end: keys in a folder and at an address, changed without a restart."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.serving import serve
from contract.fakes_api.system import KEY, System, running

ED, RSA = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
BODY = {"lang": "py", "code": "print(1)"}


def pem(private: Any) -> bytes:
    return bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def jwk(private: Any, kid: str, algorithm: str) -> dict[str, Any]:
    return json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key())) | {"kid": kid}


def token(private: Any = ED, kid: str = "k1", algorithm: str = "EdDSA", **changed: Any) -> str:
    now = int(time.time())
    claims = {"iss": "librechat", "aud": "codeapi", "sub": "user-1", "iat": now, "nbf": now, "exp": now + 60}
    return jwt.encode(claims | changed, private, algorithm, headers={"kid": kid})


async def send(system: System, bearer: str, **fields: Any) -> Reply:
    return await system.request("POST", "/exec", BODY | fields, {"Authorization": f"Bearer {bearer}"})


@asynccontextmanager
async def with_folder(tmp_path: Path, **settings: Any) -> AsyncIterator[System]:
    (tmp_path / "k1.pem").write_bytes(pem(ED))
    (tmp_path / "k2.pub").write_bytes(pem(RSA))
    (tmp_path / "set.json").write_text(json.dumps({"keys": [jwk(ED, "k3", "EdDSA")]}))
    (tmp_path / "broken.pem").write_text("no key")
    async with running(jwt_keys_dir=tmp_path, **settings) as system:
        system.api.answer = lambda session: succeeded()
        yield system


async def test_tokens_beside_keys(tmp_path: Path) -> None:
    async with with_folder(tmp_path) as system:
        for good in (token(), token(RSA, "k2", "RS256"), token(kid="k3")):
            assert (await send(system, good)).status == 200
        assert (await system.exec()).status == 200  # API keys go on to work
        for bad in (
            token(Ed25519PrivateKey.generate()),
            token(kid="k9"),
            token(kid="broken"),
            token(kid="../k1"),
            token(aud="other"),
            token(iss="other"),
            token(exp=int(time.time()) + 301),
            token(exp=int(time.time()) - 31, iat=int(time.time()) - 91),
            jwt.encode({"sub": "x"}, "s" * 40, "HS256", headers={"kid": "k1"}),
        ):
            reply = await send(system, bad)
            assert (reply.status, reply.json["error"]) == (401, "Invalid bearer token")
        assert system.metric("authentication_failures_total", kind="token") == 9
        good = token()
        assert (await send(system, good, api_key=KEY)).status == 400  # two different credentials
        assert (await send(system, good, api_key=good)).status == 200
        assert good not in json.dumps(system.api.sessions())


async def test_a_token_says_who_it_is(tmp_path: Path) -> None:
    async with with_folder(tmp_path) as system:
        await send(system, token(tenant_id="Acme Inc."), user_id="somebody-else")
        made = system.api.sessions()[-1]
        assert made["spec"]["request"]["tenant"].startswith("sha256-")
        assert made["metadata"]["labels"]["kubecoderun.io/user"] == "user-1"
        await send(system, token())
        assert "tenant" not in system.api.sessions()[-1]["spec"]["request"]


async def test_what_settings_ask_of_tokens(tmp_path: Path) -> None:
    now = int(time.time())
    wanted = {
        "jwt_issuer": "me",
        "jwt_audience": "you",
        "jwt_algorithms": "RS256",
        "jwt_max_seconds": 20,
        "jwt_leeway_seconds": 0,
        "jwt_tenant_claim": "org",
        "jwt_tenant_required": True,
        "api_keys_file": None,
    }
    good: dict[str, Any] = {"iss": "me", "aud": "you", "org": "acme", "iat": now, "exp": now + 20}
    async with with_folder(tmp_path, **wanted) as system:
        assert (await send(system, token(RSA, "k2", "RS256", **good))).status == 200
        assert system.api.sessions()[-1]["spec"]["request"]["tenant"] == "acme"
        for changed in (
            {"iss": "librechat"},
            {"aud": "codeapi"},
            {"org": None},
            {"exp": now + 21},
            {"iat": now - 20, "exp": now - 1},
        ):
            assert (await send(system, token(RSA, "k2", "RS256", **good | changed))).status == 401, changed
        assert (await send(system, token(**good))).status == 401


class KeyServer:
    """A JWKS address."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk(ED, "k1", "EdDSA")]
        self.status = 200
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)


@asynccontextmanager
async def key_server() -> AsyncIterator[tuple[KeyServer, str]]:
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/jwks", server.answer)
    async with serve(app) as url:
        yield server, f"{url}/jwks"


async def test_keys_at_an_address_and_their_rotation() -> None:
    async with key_server() as (server, url), running(jwt_jwks_url=url, jwt_key_seconds=2) as system:
        system.api.answer = lambda session: succeeded()
        assert [(await send(system, token())).status for _ in range(5)] == [200] * 5
        assert server.asked == 1
        assert [(await send(system, token(RSA, "k2", "RS256"))).status for _ in range(5)] == [401] * 5
        assert server.asked <= 3, "strangers must not make us ask for every request"
        server.keys = [jwk(RSA, "k2", "RS256")]
        async with asyncio.timeout(20):
            while (await send(system, token(RSA, "k2", "RS256"))).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            while (await send(system, token())).status != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        server.status = 500
        asked = server.asked
        async with asyncio.timeout(20):
            while server.asked < asked + 2:
                assert (await send(system, token(RSA, "k2", "RS256"))).status == 200, "old keys stay good"
                await asyncio.sleep(0.1)


async def test_without_any_keys_nobody_knows() -> None:
    async with key_server() as (server, url), running(jwt_jwks_url=url) as system:
        server.status = 500
        reply = await send(system, token())
        assert (reply.status, reply.json["error"]) == (503, "authentication_unavailable")
        assert (await send(system, "no-token")).status == 401
        assert (await system.request("GET", f"/files/{'a' * 21}", b"", {"X-API-Key": KEY})).status == 200


@pytest.mark.parametrize(("networks", "expected"), [("127.0.0.0/8", 200), ("10.0.0.0/8", 401)])
async def test_a_network_beside_keys(networks: str, expected: int) -> None:
    async with running(open_networks=networks) as system:
        system.api.answer = lambda session: succeeded()
        for headers in (
            {},
            {"X-Forwarded-For": "10.0.0.1"},
            {"X-Real-IP": "10.0.0.1", "Forwarded": "for=10.0.0.1"},
        ):
            assert (await system.request("POST", "/exec", BODY, headers)).status == expected
        big = BODY | {"code": "#" * 1_100_000}
        assert (await system.request("POST", "/exec", big)).status == expected
        assert (await system.request("POST", "/exec", BODY, {"X-API-Key": "wrong"})).status == 401
        assert (await system.exec()).status == 200


async def test_without_authentication_only_some_networks_are_served() -> None:
    async with running(auth="none", open_networks="10.0.0.0/8") as system:
        for headers in ({}, {"X-Forwarded-For": "10.0.0.1"}, {"X-API-Key": KEY}):
            reply = await system.request("POST", "/exec", BODY, headers)
            assert (reply.status, reply.json["error"]) == (403, "Forbidden")

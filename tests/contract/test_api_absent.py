"""Addresses of the official service that KubeCodeRun does not have."""

import pytest

from contract.fakes_api.system import KEY, running

ANSWERS = [
    ("POST", "/v1/workspace-tools/execute", 404, "unsupported_capability"),
    ("POST", "/v1/hosted-apps", 404, "hosted_apps_disabled"),
    ("GET", "/v1/hosted-apps/app-1?runtime_session_hint=x", 404, "hosted_apps_disabled"),
    ("DELETE", "/hosted-apps/app-1", 404, "hosted_apps_disabled"),
    ("POST", "/v1/sandbox/npm-unit", 503, "disabled"),
    ("GET", "/v1/bridge/workers", 404, "not_found"),
]


@pytest.mark.parametrize(("method", "path", "status", "error"), ANSWERS)
async def test_the_answer_is_definite(method: str, path: str, status: int, error: str) -> None:
    async with running() as system:
        reply = await system.request(method, path, b"{}" if method == "POST" else b"", {"X-API-Key": KEY})
        assert (reply.status, reply.json["error"]) == (status, error)
        assert reply.headers["connection"] == "close"


async def test_strangers_learn_nothing() -> None:
    async with running() as system:
        assert (await system.request("POST", "/hosted-apps", b"{}")).status == 401

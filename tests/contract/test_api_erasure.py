"""DELETE /users/{user}: everything of one user, and nothing of anybody else."""

from pathlib import Path

import pytest

from contract.fakes_api import forms
from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.system import System, running
from contract.test_api_tokens import token, with_folder

ADMIN, PLAIN, OTHER = "admin-of-acme", "plain-of-acme", "admin-of-bolt"
FILE = f"""{ADMIN} tenant=acme role=admin
{PLAIN} tenant=acme
{OTHER} tenant=bolt role=admin
admin-of-none role=admin
"""


async def upload(system: System, user: str, key: str = PLAIN) -> tuple[str, str]:
    headers = {"Content-Type": forms.TYPE, "User-Id": user, "X-API-Key": key}
    reply = await system.request("POST", "/upload", forms.form(forms.file("a.csv")), headers)
    return reply.json["session_id"], reply.json["files"][0]["fileId"]


async def erase(system: System, user: str, key: str = ADMIN) -> tuple[int, dict[str, object]]:
    reply = await system.request("DELETE", f"/users/{user}", b"", {"X-API-Key": key})
    return reply.status, reply.json


async def test_everything_of_a_user_goes() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        system.api.answer = lambda session: succeeded() if "language" in session["spec"]["request"] else None
        mine, file = await upload(system, "u1")
        await upload(system, "u1")
        body = {"lang": "py", "code": "#" * 20_000, "user_id": "u1"}
        await system.request("POST", "/exec", body, {"X-API-Key": PLAIN})
        yours, _ = await upload(system, "u2")
        theirs, _ = await upload(system, "u1", OTHER)
        status, answer = await erase(system, "u1")
        assert (status, answer["sessions"], answer["objects"], answer["complete"]) == (200, 3, 3, True)
        assert {one["metadata"]["name"] for one in system.api.sessions()} == {yours, theirs}
        assert len(system.store.objects) == 2
        reply = await system.request("GET", f"/download/{mine}/{file}", b"", {"X-API-Key": PLAIN})
        assert reply.status == 404
        assert (await erase(system, "u1"))[1]["sessions"] == 0


async def test_a_user_without_a_tenant_and_with_an_odd_id() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        await upload(system, "u@example.org", "admin-of-none")
        kept, _ = await upload(system, "u@example.org")
        assert (await erase(system, "u%40example.org", "admin-of-none"))[1]["sessions"] == 1
        assert [one["metadata"]["name"] for one in system.api.sessions()] == [kept]


async def test_only_admins_may() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        await upload(system, "u1")
        assert (await erase(system, "u1", PLAIN))[0] == 403
        assert (await erase(system, "u1", "stranger"))[0] == 401
        assert (await erase(system, "x" * 300))[0] == 400
        assert (await erase(system, "u1", OTHER))[1]["sessions"] == 0
        assert len(system.api.sessions()) == 1


@pytest.mark.parametrize(
    ("claims", "status"), [({}, 200), ({"sub": "user-2"}, 403), ({"sub": "boss", "role": "ADMIN"}, 200)]
)
async def test_with_a_token_users_may_delete_what_is_theirs(
    claims: dict[str, str], status: int, tmp_path: Path
) -> None:
    async with with_folder(tmp_path) as system:
        headers = {"Authorization": f"Bearer {token(**claims)}"}
        assert (await system.request("DELETE", "/users/user-1", b"", headers)).status == status


async def test_faults_of_the_cluster_and_the_store() -> None:
    async with running(store_seconds=0.3) as system:
        system.keys_file.write_text(FILE)
        await upload(system, "u1")
        system.api.delete_statuses = [500, 503]
        system.store.fail = lambda operation: 500
        status, answer = await erase(system, "u1")
        assert (status, answer["sessions"], answer["complete"]) == (200, 1, False)
        system.store.fail = lambda operation: None
        await upload(system, "u1")
        system.api.delete_statuses = [403]
        status, answer = await erase(system, "u1")
        assert (status, answer["error"]) == (503, "cluster_refused")
        assert (await erase(system, "u1"))[1]["sessions"] == 1

"""runtime_session_hint and profiles: real front end and HTTP server, the test in the operator's place."""

import asyncio
from typing import Any

import pytest

from contract.fakes_api.apiserver import Json, ended, pool, succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.system import KEY, System, beside, running
from kubecoderun_crds import names

PROFILE = "x-codeapi-execution-profile"
HINT = "v2:conversation:0123456789abcdef0123456789abcdef"


class Operator:
    """Answers runs of workspaces as the operator would."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.runs: dict[str, int] = {}
        """How many there were, by uid of the workspace."""
        self.lose: set[str] = set()
        """Names of workspaces that end before their next run."""
        system.api.answer = self.answer

    def answer(self, session: Json) -> Json | None:
        request = session["spec"]["request"]
        if request.get("mode") == "Workspace":
            return {"phase": "Active"}
        if "workspaceRef" not in request:
            return succeeded("alone\n")
        name = request["workspaceRef"]["name"]
        workspace = self.system.api.objects.get((names.SESSION_PLURAL, name))
        if workspace is None:
            return ended("WorkspaceNotFound")
        if name in self.lose:
            self.lose.discard(name)
            self.system.api.finish(name, ended("PodLost"))
        if (workspace := self.system.api.objects[names.SESSION_PLURAL, name])["status"]["phase"] != "Active":
            return ended("WorkspaceEnded")
        uid = workspace["metadata"]["uid"]
        self.runs[uid] = self.runs.get(uid, 0) + 1
        return succeeded("there\n", workspaceRun={"uid": uid, "number": self.runs[uid]})


def workspaces(system: System) -> list[Json]:
    return [one for one in system.api.sessions() if one["spec"]["request"].get("mode") == "Workspace"]


async def test_runs_with_one_hint_share_a_workspace() -> None:
    async with running() as system:
        Operator(system)
        first = await system.exec(runtime_session_hint=HINT)
        second = await system.exec(runtime_session_hint=HINT)
        assert (first.json["runtime_status"], second.json["runtime_status"]) == ("new", "reused")
        assert first.json["runtime_session_id"] == second.json["runtime_session_id"]
        assert first.json["session_id"] != second.json["session_id"]
        assert first.headers[PROFILE] == "stateful"
        (workspace,) = workspaces(system)
        assert workspace["spec"]["request"] == {"mode": "Workspace", "poolRef": {"name": "python"}}
        name = workspace["metadata"]["name"]
        assert name.startswith("ws-")
        assert HINT not in str(system.api.objects), "a hint goes nowhere"
        runs = [one for one in system.api.sessions() if one is not workspace and "workspaceRef" in str(one)]
        assert {one["spec"]["request"]["workspaceRef"]["name"] for one in runs} == {name}


async def test_runs_that_nobody_waits_for() -> None:
    """Handed in, they run in the workspace of their hint; later they are answered as /exec would."""
    async with running() as system:
        Operator(system)
        headers = {"X-API-Key": KEY}
        call = {"lang": "py", "code": "x" * 20_000, "runtime_session_hint": HINT}
        first = await system.request("POST", "/exec", call, headers | {"Prefer": "respond-async"})
        assert first.status == 202
        second = await system.exec(runtime_session_hint=HINT)
        told = (await system.request("GET", first.json["result"], headers=headers)).json
        assert (told["stdout"], told["runtime_status"]) == ("there\n", "new")
        assert told["runtime_session_id"] == second.json["runtime_session_id"]
        assert second.json["runtime_status"] == "reused"
        again = await system.request("GET", f"/exec/{second.json['session_id']}", headers=headers)
        assert again.json == second.json
        (workspace,) = workspaces(system)
        unknown = await system.request("GET", f"/exec/{workspace['metadata']['name']}", headers=headers)
        assert unknown.status == 400, "a workspace is no run"


async def test_another_hint_is_another_workspace_and_none_is_no_workspace() -> None:
    async with running() as system:
        Operator(system)
        for hint in ("a", "b"):
            assert (await system.exec(runtime_session_hint=hint)).json["runtime_status"] == "new"
        assert len(workspaces(system)) == 2
        alone = await system.exec()
        assert alone.json["stdout"] == "alone\n"
        assert "runtime_status" not in alone.json
        assert alone.headers[PROFILE] == "default"


async def test_calls_at_the_same_time_make_one_workspace() -> None:
    async with running() as system:
        Operator(system)
        replies = await asyncio.gather(*(system.exec(runtime_session_hint=HINT) for _ in range(10)))
        assert [reply.status for reply in replies] == [200] * 10
        assert len(workspaces(system)) == 1
        assert sorted(reply.json["runtime_status"] for reply in replies) == ["new"] + ["reused"] * 9


@pytest.mark.parametrize("reason", ["IdleTimeout", "PodLost", "Cancelled"])
async def test_a_workspace_that_has_ended_is_replaced(reason: str) -> None:
    async with running() as system:
        Operator(system)
        await system.exec(runtime_session_hint=HINT)
        (before,) = workspaces(system)
        system.api.finish(before["metadata"]["name"], ended(reason))
        again = await system.exec(runtime_session_hint=HINT)
        assert again.json["runtime_status"] == "new"
        (after,) = workspaces(system)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["metadata"]["name"] == before["metadata"]["name"]


async def test_one_that_ends_before_the_turn_costs_the_caller_nothing() -> None:
    async with running() as system:
        operator = Operator(system)
        await system.exec(runtime_session_hint=HINT)
        operator.lose = {workspaces(system)[0]["metadata"]["name"]}
        reply = await system.exec("x" * 20_000, runtime_session_hint=HINT)
        assert (reply.status, reply.json["runtime_status"]) == (200, "new")
        assert reply.headers["kcr-session-id"] == reply.json["session_id"]
        last = system.api.objects[names.SESSION_PLURAL, reply.json["session_id"]]
        assert last["spec"]["request"]["codeRef"]["bytes"] == 20_000


async def test_replicas_that_replace_it_at_the_same_time() -> None:
    """The other one has deleted it and made a new one between our look and our deletion."""
    async with running() as system:
        Operator(system)
        await system.exec(runtime_session_hint=HINT)
        (before,) = workspaces(system)
        name = before["metadata"]["name"]
        system.api.finish(name, ended("IdleTimeout"))

        def other_replica() -> None:
            system.api.before_delete = lambda: None
            metadata = {**before["metadata"], "uid": "made-by-the-other"}
            system.api.delete(names.SESSION_PLURAL, name)
            system.api.put(
                names.SESSION_PLURAL, {**before, "metadata": metadata, "status": {"phase": "Active"}}
            )

        system.api.before_delete = other_replica
        assert (await system.exec(runtime_session_hint=HINT)).status == 200
        (now,) = workspaces(system)
        assert now["metadata"]["uid"] == "made-by-the-other"


async def test_the_api_server_fails_for_a_while() -> None:
    async with running() as system:
        Operator(system)
        system.api.get_statuses, system.api.post_statuses = [500, 429], [0, 503]
        assert (await system.exec(runtime_session_hint=HINT)).json["runtime_status"] == "new"
        system.api.get_statuses = [403]
        refused = await system.exec(runtime_session_hint=HINT)
        assert (refused.status, refused.json["error"]) == (503, "cluster_refused")


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [("WorkspaceBusy", 409, "runtime_session_busy"), ("PoolEmpty", 429, "rate_limited")],
    ids=["busy", "too many"],
)
async def test_a_run_that_gets_no_turn(reason: str, status: int, error: str) -> None:
    async with running() as system:
        operator = Operator(system)

        def without_a_turn(session: Json) -> Json | None:
            made = operator.answer(session)
            return ended(reason) if "workspaceRef" in session["spec"]["request"] else made

        system.api.answer = without_a_turn
        reply = await system.exec(runtime_session_hint=HINT)
        assert (reply.status, reply.json["error"]) == (status, error)


async def test_a_hint_that_is_none() -> None:
    async with running() as system:
        reply = await system.exec(runtime_session_hint="a b")
        assert (reply.status, reply.json["error"]) == (400, "invalid_request")
        assert not system.api.sessions()


# --- whose they are -------------------------------------------------------------------------------

A, A2, B, NOBODY = "key-of-acme-1", "key-of-acme-2", "key-of-bolt", "key-of-nobody"
FILE = f"{A} tenant=acme\n{A2} tenant=acme\n{B} tenant=bolt\n{NOBODY}\n"


async def call_as(system: System, key: str, **fields: Any) -> Reply:
    body = {"lang": "py", "code": "x", "runtime_session_hint": HINT, **fields}
    return await system.request("POST", "/exec", body, {"X-API-Key": key})


async def test_nobody_gets_into_the_workspace_of_another_tenant_or_user() -> None:
    """All of them say the same hint; only the two keys of one tenant mean the same workspace."""
    async with running() as system:
        system.keys_file.write_text(FILE)
        Operator(system)
        first = await call_as(system, A, user_id="alice")
        others = [
            await call_as(system, B, user_id="alice"),
            await call_as(system, NOBODY, user_id="alice"),
            await call_as(system, A, user_id="bob"),
            await call_as(system, A),
        ]
        told = [reply.json for reply in (first, *others)]
        assert [one["runtime_status"] for one in told] == ["new"] * 5
        assert len({one["runtime_session_id"] for one in told}) == 5
        assert len(workspaces(system)) == 5
        again = await call_as(system, A2, user_id="alice")
        assert again.json["runtime_status"] == "reused"
        assert again.json["runtime_session_id"] == first.json["runtime_session_id"]


async def test_a_workspace_belongs_to_tenant_and_user_as_its_runs_do() -> None:
    async with running() as system:
        system.keys_file.write_text(FILE)
        Operator(system)
        reply = await call_as(system, A, user_id="alice")
        (workspace,) = workspaces(system)
        run = system.api.objects[names.SESSION_PLURAL, reply.json["session_id"]]
        for made in (workspace, run):
            assert made["spec"]["request"]["tenant"] == "acme"
            assert made["metadata"]["labels"][names.LABEL_TENANT] == "acme"
            assert made["metadata"]["labels"][names.LABEL_USER] == names.label_value("alice")
        nobody = await call_as(system, NOBODY)
        assert nobody.status == 200
        free = [one for one in workspaces(system) if "tenant" not in one["spec"]["request"]]
        assert [one["metadata"]["labels"] for one in free] == [{}]


async def test_replicas_with_the_same_key_find_the_same_workspace() -> None:
    async with running(name_key="n1") as system:
        Operator(system)
        first = await system.exec(runtime_session_hint=HINT)
        async with beside(system, name_key="n1") as second:
            assert (await second.exec(runtime_session_hint=HINT)).json["runtime_status"] == "reused"
        async with beside(system, name_key="n2") as stranger:
            other = await stranger.exec(runtime_session_hint=HINT)
        assert other.json["runtime_status"] == "new"
        assert other.json["runtime_session_id"] != first.json["runtime_session_id"]


async def test_deleting_a_user_deletes_the_workspaces() -> None:
    async with running() as system:
        system.keys_file.write_text(f"{A} tenant=acme role=admin\n")
        Operator(system)
        for user in ("alice", "bob"):
            await call_as(system, A, user_id=user)
        reply = await system.request("DELETE", "/users/alice", b"", {"X-API-Key": A})
        assert reply.status == 200, reply.raw
        (left,) = workspaces(system)
        assert left["metadata"]["labels"][names.LABEL_USER] == names.label_value("bob")


async def test_no_credential_gets_into_a_workspace() -> None:
    async with running() as system:
        system.keys_file.write_text(f"{A} tenant=acme\n")
        Operator(system)
        reply = await call_as(system, A, user_id=A)
        assert (reply.status, reply.json["error"]) == (400, "credential_in_request")
        assert system.api.sessions() == []


# --- with an idempotency key ----------------------------------------------------------------------

SECRET = "a-secret-of-all-front-ends"


async def keyed(system: System, hint: str = HINT) -> Reply:
    body = {"lang": "py", "code": "x", "runtime_session_hint": hint}
    return await system.request("POST", "/exec", body, {"X-API-Key": KEY, "Idempotency-Key": "k"})


async def test_a_repeated_request_is_one_turn() -> None:
    async with running(idempotency_secret=SECRET) as system:
        operator = Operator(system)
        first = await keyed(system)
        async with beside(system, idempotency_secret=SECRET) as second:
            again = await keyed(second)
        assert again.json == first.json
        assert (first.json["runtime_status"], again.headers["idempotency-replayed"]) == ("new", "true")
        assert sum(operator.runs.values()) == 1
        other = await keyed(system, "another")
        assert (other.status, other.json["error"]) == (409, "idempotency_key_reused")


async def test_a_keyed_run_that_was_not_started_goes_to_the_next_workspace() -> None:
    async with running(idempotency_secret=SECRET) as system:
        operator = Operator(system)
        await system.exec(runtime_session_hint=HINT)
        operator.lose = {workspaces(system)[0]["metadata"]["name"]}
        first = await keyed(system)
        assert (first.status, first.json["runtime_status"]) == (200, "new")
        assert (await keyed(system)).json == first.json
        assert sum(operator.runs.values()) == 2


async def test_a_keyed_run_that_found_the_workspace_busy_may_be_sent_again() -> None:
    async with running(idempotency_secret=SECRET) as system:
        operator = Operator(system)

        def busy(session: Json) -> Json | None:
            made = operator.answer(session)
            return ended("WorkspaceBusy") if "workspaceRef" in session["spec"]["request"] else made

        system.api.answer = busy
        assert (await keyed(system)).json["error"] == "runtime_session_busy"
        system.api.answer = operator.answer
        assert (await keyed(system)).json["stdout"] == "there\n"


# --- profiles -------------------------------------------------------------------------------------


async def asserting(system: System, profile: str, path: str = "/exec", **fields: Any) -> Any:
    headers = {"X-API-Key": KEY, "X-CodeAPI-Expected-Profile": profile}
    return await system.request("POST", path, {"lang": "py", "code": "x", **fields}, headers)


async def test_both_profiles_are_served_at_one_address() -> None:
    async with running() as system:
        Operator(system)
        stateful = await asserting(system, "stateful", runtime_session_hint=HINT)
        assert (stateful.headers[PROFILE], stateful.json["runtime_status"]) == ("stateful", "new")
        plain = await asserting(system, "default", "/v1/exec", runtime_session_hint=HINT)
        assert (plain.headers[PROFILE], plain.json["stdout"]) == ("default", "alone\n")


async def test_every_answer_names_the_profile() -> None:
    async with running() as system:
        for method, path in (("GET", "/health"), ("GET", "/nothing"), ("GET", "/files/x"), ("POST", "/exec")):
            assert (await system.request(method, path)).headers[PROFILE] == "default"


async def test_assertions_that_do_not_hold() -> None:
    async with running(stateful=False) as system:
        system.api.answer = lambda session: succeeded()
        refused = await asserting(system, "stateful", runtime_session_hint=HINT)
        assert (refused.status, refused.json["error"]) == (409, "execution_profile_mismatch")
        assert refused.json["actual_profile"] == "default"
        wrong = await asserting(system, "other")
        assert (wrong.status, wrong.json["error"]) == (400, "invalid_execution_profile")
        assert not system.api.sessions()
        ignored = await system.exec(runtime_session_hint=HINT)
        assert (ignored.status, workspaces(system)) == (200, [])


async def test_programs_that_call_tools_run_there_too() -> None:
    async with running() as system:
        Operator(system)
        fields: dict[str, Any] = {"tools": [{"name": "t"}], "runtime_session_hint": HINT}
        for status in ("new", "reused"):
            told = await asserting(system, "stateful", "/exec/programmatic", **fields)
            assert (told.status, told.headers[PROFILE]) == (200, "stateful")
            assert (told.json["status"], told.json["runtime_status"]) == ("completed", status)
        assert len(workspaces(system)) == 1
        alone = await asserting(system, "default", "/exec/programmatic", **fields)
        assert (alone.headers[PROFILE], alone.json["stdout"]) == ("default", "alone\n")


async def test_a_program_that_calls_tools_comes_to_another_workspace() -> None:
    """The workspace ends before its turn. The client continues the program that runs, not the one that did
    not; and is told of the workspace at the end."""
    async with running() as system:
        operator = Operator(system)
        await system.exec(runtime_session_hint=HINT)
        operator.lose = {workspaces(system)[0]["metadata"]["name"]}
        calls = {"call_001": {"name": "t", "input": "{}"}}

        def answer(session: Json) -> Json | None:
            made = operator.answer(session)
            if "tools" not in session["spec"]["request"] or made is None or made["phase"] != "Succeeded":
                return made
            return {"phase": "Running", "reason": "WaitingForTools", "toolCalls": calls}

        system.api.answer = answer
        fields: dict[str, Any] = {"tools": [{"name": "t"}], "runtime_session_hint": HINT}
        asked = await asserting(system, "stateful", "/exec/programmatic", **fields)
        assert (asked.status, asked.json["status"]) == (200, "tool_call_required")
        name = asked.json["session_id"]
        assert system.api.objects[names.SESSION_PLURAL, name]["status"]["phase"] == "Running"
        body = {
            "continuation_token": asked.json["continuation_token"],
            "tool_results": [{"call_id": "call_001", "result": 1, "is_error": False}],
        }
        going_on = asyncio.create_task(system.request("POST", "/exec/programmatic", body, {"X-API-Key": KEY}))
        key = (names.SESSION_PLURAL, name)
        await system.api.until(lambda: "toolResults" in system.api.objects[key]["spec"])
        system.api.finish(name, succeeded("1\n", workspaceRun={"uid": "w", "number": 1}))
        told = await going_on
        assert (told.json["status"], told.json["stdout"]) == ("completed", "1\n")
        assert told.json["runtime_status"] == "new"
        assert told.json["runtime_session_id"].startswith("rt_")


async def test_no_pool_keeps_state() -> None:
    async with running() as system:
        system.api.put_pool(pool("python", workspaces={"max": 0}))
        await system.api.until(lambda: system.services.pools.choose_for_workspace("py") is None)
        system.api.answer = lambda session: succeeded()
        told = await asserting(system, "stateful", runtime_session_hint=HINT)
        assert (told.status, told.json["error"]) == (400, "stateful_workspace_unsupported")
        assert (await system.exec(runtime_session_hint=HINT)).status == 200
        assert not workspaces(system)

"""The conformance checklist of LibreChat's protocol, item by item (`test_c05_...` is of item 5), against the
real front end. What needs a real program, a real client or another part is proved elsewhere: `PROVED` says by
which tests, and that they exist is checked here.

 1 the least call · 2 unknown keys and odd arguments · 3 failures and time-outs are answers · 4 languages ·
 5 outputs, overwritten and unchanged inputs · 6 downloads · 7 lists · 8 descriptions · 9 uploads ·
10 batches · 11 references · 12 authentication · 13 programmatic tool calls · 14 the real packages ·
15 the hang-up · 16 spellings of paths · 17 too much at once
"""

import ast
import re
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from contract.fakes_api.apiserver import Json, ended, held, pool, ran, succeeded
from contract.fakes_api.client import Reply
from contract.fakes_api.forms import TYPE, file, form, text
from contract.fakes_api.system import KEY, System, running
from kubecoderun_crds import names

SESSIONS = names.SESSION_PLURAL
ID = re.compile(r"[A-Za-z0-9_-]{21}")
WITH_KEY = {"X-API-Key": KEY}
CLIENT_LANGUAGES = ["py", "js", "ts", "c", "cpp", "java", "php", "rs", "go", "d", "f90", "r", "bash"]
S, F = "s" * 21, "s" * 13 + "file0001"
R, G = "r" * 21, "r" * 13 + "file0002"
TESTS = Path(__file__).resolve().parents[1]

PROVED: dict[int, list[str]] = {
    1: ["e2e/test_exec_calls.py::test_minimal_call"],
    3: [
        "e2e/test_exec_calls.py::test_exception_is_an_answer",
        "e2e/test_exec_calls.py::test_time_limit_ends_every_process_and_keeps_the_output",
    ],
    5: [
        "e2e/test_files.py::test_a_file_on_its_way_through_two_programs",
        "e2e/test_files.py::test_a_changed_input_becomes_a_new_file",
    ],
    6: ["e2e/test_files.py::test_150_megabytes_in_and_out"],
    9: ["contract/test_api_memory.py::test_an_upload_of_150_megabytes"],
    10: ["contract/test_api_batch.py::test_a_file_that_cannot_be_kept_does_not_harm_the_others"],
    11: ["e2e/test_files.py::test_a_missing_input_is_named_and_nothing_runs"],
    12: [
        "contract/test_api_auth.py::test_every_place_of_a_key",
        "contract/test_api_auth.py::test_without_authentication_everybody_may",
        "contract/test_api_auth.py::test_no_line_holds_a_key_code_output_or_a_signed_url",
    ],
    13: [],
    14: ["client/test_librechat_client.py::test_hello"],
    15: ["client/test_hangup.py::test_case", "client/test_hangup_on_cluster.py::test_experiment"],
}
"""By item: tests elsewhere that prove it, or a part of it."""


def stored(system: System, session: str, file_id: str, content: bytes) -> None:
    system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{session}/{file_id}"] = content


async def furnish(system: System) -> None:
    """An upload and a run with a file each; programs end at once."""
    system.api.put(SESSIONS, held(S, {"id": F, "path": "in/a.csv", "bytes": 3}))
    system.api.put(SESSIONS, ran(R, {"id": G, "path": "out/zażółć ☃.png", "bytes": 4}))
    stored(system, S, F, b"a,b")
    stored(system, R, G, b"\x89PNG")
    system.api.answer = lambda session: succeeded("1\n")


async def get(system: System, path: str, **headers: str) -> Reply:
    return await system.request("GET", path, headers=WITH_KEY | headers)


async def upload(system: System, *parts: bytes, path: str = "/v1/upload", length: bool = True) -> Reply:
    headers = WITH_KEY | {"Content-Type": TYPE, "User-Id": "user-1", "User-Agent": "LibreChat/1.0"}
    return await system.request("POST", path, form(*parts), headers, length=length)


def last_inputs(system: System) -> list[Json]:
    found: list[Json] = system.api.sessions()[-1]["spec"]["request"].get("inputs", [])
    return found


# --- /exec ----------------------------------------------------------------------------------------------


async def test_c01_the_least_call_has_the_four_keys_and_ids_of_21_characters() -> None:
    async with running() as system:
        made = {"id": G, "path": "a.txt", "bytes": 1}
        system.api.answer = lambda session: succeeded("1\n", files=[made])
        reply = await system.request("POST", "/exec", {"lang": "py", "code": "print(1)"}, WITH_KEY)
        assert reply.status == 200
        answer = reply.json
        assert {"session_id", "stdout", "stderr", "files"} <= set(answer)
        assert ID.fullmatch(answer["session_id"])
        (output,) = answer["files"]
        assert ID.fullmatch(output["id"])
        assert output["storage_session_id"] == output["session_id"] == answer["session_id"]


@pytest.mark.parametrize(
    "fields",
    [
        {
            "intent": "x",
            "environmentId": {"deep": [1]},
            "codeSessionKey": None,
            "LIBRECHAT_CODE_API_KEY": KEY,
        },
        {"args": "one"},
        {"args": [1, True, {"a": 1}]},
        {"session_id": "n" * 21},
        {"session_id": "not an id"},
        {"user_id": "u", "entity_id": "agent_1", "shell_output_filter": "raw"},
    ],
    ids=str,
)
async def test_c02_odd_fields_are_no_reason_to_fail(fields: Json) -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("1\n")
        reply = await system.exec(**fields)
        assert (reply.status, reply.json["stdout"]) == (200, "1\n")


async def test_c03_what_a_program_does_is_an_answer() -> None:
    async with running() as system:
        trace = {"exitCode": 1, "stdout": "", "stderr": "ZeroDivisionError: division by zero\n"}
        system.api.answer = lambda session: ended("NonZeroExit", result=trace)
        reply = await system.exec("1/0")
        assert (reply.status, reply.json["files"], reply.json["status"]) == (200, [], None)
        assert "ZeroDivisionError" in reply.json["stderr"]
        so_far = {"stdout": "so far\n", "stdoutBytes": 7, "stderr": ""}
        system.api.answer = lambda session: ended("TimeLimit", result=so_far)
        reply = await system.exec("import time; print('so far'); time.sleep(99)")
        assert (reply.status, reply.json["status"], reply.json["signal"]) == (200, "TO", "SIGKILL")
        assert reply.json["stdout"] == "so far\n"
        assert reply.json["message"] == "Time limit exceeded"


@pytest.mark.parametrize("language", CLIENT_LANGUAGES)
async def test_c04_a_language_runs_or_is_definitely_not_there(language: str) -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("ran\n")
        if language != "py":
            reply = await system.request("POST", "/exec", {"lang": language, "code": "x"}, WITH_KEY)
            assert (reply.status, reply.json["error"]) == (400, "unsupported_capability")
        system.api.put(names.POOL_PLURAL, pool("all", *CLIENT_LANGUAGES))
        await system.api.until(lambda: language in system.services.pools.languages())
        reply = await system.request("POST", "/exec", {"lang": language, "code": "x"}, WITH_KEY)
        assert (reply.status, reply.json["stdout"]) == (200, "ran\n")


async def test_c05_nested_paths_new_ids_and_no_echo_to_legacy_references() -> None:
    async with running() as system:
        await furnish(system)
        changed = {"session": S, "id": F}

        def answer(session: Json) -> Json:
            prefix = session["metadata"]["name"][:13]
            return succeeded(
                files=[
                    {"id": f"{prefix}00000001", "path": "in/a.csv", "bytes": 9, "modifiedFrom": changed},
                    {"id": f"{prefix}00000002", "path": "deep/er/b.txt", "bytes": 1},
                ]
            )

        system.api.answer = answer
        legacy = [{"id": F, "session_id": S, "name": "in/a.csv"}, {"id": G, "session_id": R, "name": "b.png"}]
        reply = await system.exec(files=legacy)
        files = {entry["name"]: entry for entry in reply.json["files"]}
        assert set(files) == {"in/a.csv", "deep/er/b.txt"}, "an unchanged input is not told to old clients"
        assert files["in/a.csv"]["id"] != F
        assert files["in/a.csv"]["modified_from"] == {"id": F, "storage_session_id": S}


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["", "?kind=user&id=user-1", "?entity_id=agent_1", "?kind=skill&id=s&version=2"]
)
async def test_c06_a_download_with_and_without_a_query(query: str) -> None:
    async with running() as system:
        await furnish(system)
        reply = await get(system, f"/download/{R}/{G}{query}", **{"Accept-Encoding": "gzip, deflate, br"})
        assert (reply.status, reply.raw) == (200, b"\x89PNG")
        assert "content-encoding" not in reply.headers
        assert reply.headers["connection"] == "close"
        disposition = reply.headers["content-disposition"]
        _, _, encoded = disposition.partition("filename*=UTF-8''")
        assert unquote(encoded) == "out/zażółć ☃.png"
        assert disposition.isascii()
        part = await get(system, f"/download/{R}/{G}{query}", Range="bytes=1-3")
        assert (part.status, part.raw, part.headers["content-range"]) == (206, b"PNG", "bytes 1-3/4")


async def test_c07_lists_have_what_each_generation_reads_and_none_is_an_empty_list() -> None:
    async with running() as system:
        await furnish(system)
        started = time.monotonic()
        (summary,) = (await get(system, f"/v1/files/{S}?detail=summary")).json
        assert time.monotonic() - started < 5, "clients give up after that"
        assert summary["name"].startswith(f"{S}/{F}")
        assert datetime.fromisoformat(summary["lastModified"]).timestamp() > time.time() - 3600
        (full,) = (await get(system, f"/v1/files/{S}?detail=full")).json
        session, _, rest = full["name"].partition("/")
        assert (session, rest.split(".")[0]) == (S, F)
        assert full["metadata"]["original-filename"] == "in/a.csv"
        assert (full["id"], full["storage_session_id"], full["session_id"]) == (F, S, S)
        for detail in ("simple", "summary", "full", "normalized"):
            reply = await get(system, f"/v1/files/{'n' * 21}?detail={detail}")
            assert (reply.status, reply.json) == (200, [])


@pytest.mark.parametrize(
    "query", ["", "?entity_id=agent_1", "?kind=user&id=u1", "?kind=skill&id=s1&version=3"]
)
async def test_c08_one_file_is_described_or_404_in_json(query: str) -> None:
    async with running() as system:
        await furnish(system)
        told = (await get(system, f"/v1/sessions/{S}/objects/{F}{query}")).json
        assert told["originalFilename"] == "in/a.csv"
        assert datetime.fromisoformat(told["lastModified"])
        for session, file_id in ((S, G), ("n" * 21, F)):
            reply = await get(system, f"/v1/sessions/{session}/objects/{file_id}{query}")
            assert (reply.status, reply.json["error"]) == (404, "File not found")


NEW = [text("kind", "skill"), text("id", "s1"), text("version", "3"), text("read_only", "true")]


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("before", [[text("entity_id", "agent_1")], NEW, []], ids=["legacy", "new", "bare"])
async def test_c09_uploads_of_each_generation(before: list[bytes], length: bool) -> None:
    async with running() as system:
        reply = await upload(system, *before, file("skills/ą/données.csv", b"x"), length=length)
        answer = reply.json
        assert (reply.status, answer["message"]) == (200, "success")
        assert answer["storage_session_id"] == answer["session_id"]
        assert answer["files"][0]["filename"] == "skills/ą/données.csv"
        assert system.store.files[answer["files"][0]["fileId"]] == b"x"


async def test_c09_a_file_over_the_limit_is_413() -> None:
    async with running(max_upload_bytes=1000) as system:
        reply = await upload(system, file("a", b"x" * 1001))
        assert (reply.status, reply.json["error"]) == (413, "File size limit exceeded")


async def test_c10_a_batch_tells_of_each_file_by_its_own_name() -> None:
    async with running() as system:
        names_sent = ["skills/x/SKILL.md", "../out", "skills/x/ä.py"]
        reply = await upload(system, *NEW, *map(file, names_sent), path="/v1/upload/batch")
        assert (reply.status, reply.json["message"]) == (200, "partial_success")
        assert [entry["filename"] for entry in reply.json["files"]] == names_sent
        assert [entry["status"] for entry in reply.json["files"]] == ["success", "error", "success"]


REFERENCES: dict[str, tuple[Json, str]] = {
    "generations 1 to 3": ({"id": F, "session_id": S, "name": "x"}, S),
    "generations 4 and 5": (
        {"id": F, "resource_id": "u1", "name": "x", "storage_session_id": S, "kind": "user"},
        S,
    ),
    "a skill": (
        {"id": F, "resource_id": "s1", "name": "x", "storage_session_id": S, "kind": "skill", "version": 3},
        S,
    ),
    "its own id as resource": (
        {"id": G, "resource_id": G, "name": "x", "storage_session_id": R, "kind": "user"},
        R,
    ),
    "the wrong session": ({"id": F, "session_id": R, "name": "x"}, S),
    "no session": ({"id": F, "name": "x"}, S),
}


@pytest.mark.parametrize("shape", REFERENCES)
async def test_c11_references_of_each_generation(shape: str) -> None:
    reference, owner = REFERENCES[shape]
    async with running() as system:
        await furnish(system)
        reply = await system.exec(files=[reference])
        assert reply.status == 200
        assert last_inputs(system) == [{"path": "x", "session": owner, "id": reference["id"]}]


async def test_c11_duplicate_names_and_missing_ids() -> None:
    async with running() as system:
        await furnish(system)
        first = {"id": F, "session_id": S, "name": "x"}
        await system.exec(files=[first, {"id": G, "session_id": R, "name": "x"}])
        assert [one["id"] for one in last_inputs(system)] == [G]
        count = len(system.api.sessions())
        reply = await system.exec(
            files=[first, {"id": "s" * 13 + "nonexist", "session_id": S, "name": "y.csv"}]
        )
        assert (reply.status, reply.json["code"]) == (200, None)
        assert "y.csv" in reply.json["stderr"]
        assert len(system.api.sessions()) == count


# --- all of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/exec", "/v1/exec", "//exec", "/v1//exec", "//v1/exec/"])
async def test_c16_spellings_of_a_path(path: str) -> None:
    async with running() as system:
        system.api.answer = lambda session: succeeded("1\n")
        assert (await system.exec(path=path)).status == 200


async def test_c17_too_much_at_once() -> None:
    async with running(retry_after_seconds=7) as system:
        system.api.answer = lambda session: ended("PoolEmpty")
        reply = await system.exec()
        assert (reply.status, reply.headers["retry-after"]) == (429, "7")
        assert reply.json["error"] == "rate_limited"
        assert reply.json["retry_after_seconds"] == 7
        assert reply.json["message"]


# --- what is proved elsewhere ---------------------------------------------------------------------------


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_item_is_proved_and_every_named_test_exists() -> None:
    here = {int(name[6:8]) for name in functions(Path(__file__)) if re.match(r"test_c\d\d_", name)}
    for item, tests in PROVED.items():
        for test in tests:
            path, _, name = test.partition("::")
            assert name in functions(TESTS / path), f"item {item}: {test}"
    unproved = set(range(1, 18)) - here - {item for item, tests in PROVED.items() if tests}
    assert unproved <= {13}, "only programmatic tool calls may still be without a test"

"""What is told about files, their content, and their deletion, from end to end."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from contract.fakes_api.apiserver import Json, held, ran
from contract.fakes_api.client import Reply
from contract.fakes_api.forms import TYPE, file, form
from contract.fakes_api.system import KEY, System, running
from kubecoderun_api.log import JsonLines
from kubecoderun_crds import names

HEADERS = {"X-API-Key": KEY}
SESSIONS = names.SESSION_PLURAL
S = "s" * 13 + "session1"
F = "s" * 13 + "file0001"
G = "s" * 13 + "file0002"
KEY_OF_F = f"/kubecoderun/kubecoderun/kubecoderun/{S}/{F}"
ENTRY = {"id": F, "path": "données/é.csv", "bytes": 6}
SECOND = {"id": G, "path": "Makefile", "bytes": 1, "readOnly": True}
LONG_PAST = "2020-01-01T00:00:00Z"
FAR = "2099-01-01T00:00:00Z"


def put(system: System, resource: Json, **objects: bytes) -> None:
    system.api.put(SESSIONS, resource)
    for name, content in objects.items():
        system.store.objects[f"/kubecoderun/kubecoderun/kubecoderun/{S}/{name}"] = content


async def get(system: System, path: str, method: str = "GET", **headers: str) -> Reply:
    return await system.request(method, path, headers=HEADERS | headers)


def error(reply: Reply, status: int) -> str:
    assert reply.status == status, reply.raw
    assert set(reply.json) == {"error", "message"}
    assert reply.headers["connection"] == "close"
    return str(reply.json["error"])


# --- what is told -----------------------------------------------------------------------------------


async def test_a_list_in_every_detail() -> None:
    async with running() as system:
        resource = held(S, ENTRY, SECOND, expiresAt=in_hours(9.5))
        put(system, resource)
        uploaded = resource["metadata"]["creationTimestamp"]
        expected: dict[str, list[Any]] = {
            "": [f"{S}/{F}.csv", f"{S}/{G}"],
            "?detail=simple": [f"{S}/{F}.csv", f"{S}/{G}"],
            "?detail=summary&kind=user&id=u1": [
                {"name": f"{S}/{F}.csv", "size": 6, "lastModified": uploaded, "etag": f'"{F}"'},
                {"name": f"{S}/{G}", "size": 1, "lastModified": uploaded, "etag": f'"{G}"'},
            ],
            "?detail=normalized": [
                {
                    "id": F,
                    "name": "données/é.csv",
                    "storage_session_id": S,
                    "size": 6,
                    "contentType": "text/csv",
                    "lastModified": uploaded,
                },
                {
                    "id": G,
                    "name": "Makefile",
                    "storage_session_id": S,
                    "size": 1,
                    "contentType": "application/octet-stream",
                    "lastModified": uploaded,
                    "read_only": True,
                },
            ],
        }
        for query, elements in expected.items():
            reply = await get(system, f"/files/{S}{query}")
            assert (reply.status, reply.json) == (200, elements)
        full = (await get(system, f"/files/{S}?detail=full&entity_id=x")).json[0]
        assert full == {
            "id": F,
            "name": f"{S}/{F}.csv",
            "storage_session_id": S,
            "session_id": S,
            "size": 6,
            "lastModified": uploaded,
            "etag": f'"{F}"',
            "contentType": "text/csv",
            "versionId": None,
            "metadata": {"content-type": "text/csv", "original-filename": "données/é.csv"},
        }
        assert error(await get(system, f"/files/{S}?detail=everything"), 400) == "invalid_request"


async def test_one_file_is_described() -> None:
    async with running() as system:
        resource = held(S, ENTRY, SECOND, expiresAt=in_hours(9.5))
        put(system, resource)
        for query in ("", "?entity_id=a", "?kind=skill&id=s&version=2"):
            reply = await get(system, f"/sessions/{S}/objects/{G}{query}")
            assert reply.json == {
                "name": f"{S}/{G}",
                "originalFilename": "Makefile",
                "size": 1,
                "lastModified": resource["metadata"]["creationTimestamp"],
                "etag": f'"{G}"',
                "contentType": "application/octet-stream",
                "readOnly": True,
            }
        head = await get(system, f"/sessions/{S}/objects/{G}", "HEAD")
        assert (head.status, head.raw) == (200, b"")
        assert (await get(system, f"/sessions/{S}/objects/{G}", "HEAD")).headers["connection"] == "close"
        assert (await get(system, f"/sessions/{S}/objects/{'x' * 21}", "HEAD")).status == 404


async def test_outputs_of_a_run_date_from_its_end() -> None:
    async with running() as system:
        put(system, ran(S, ENTRY), **{F: b"123456"})
        ended = system.api.sessions()[0]["status"]["timings"]["completed"]
        assert (await get(system, f"/files/{S}?detail=summary")).json[0]["lastModified"] == ended
        assert (await get(system, f"/sessions/{S}/objects/{F}")).json["lastModified"] == ended
        assert (await get(system, f"/download/{S}/{F}")).raw == b"123456"


async def test_an_upload_can_be_listed_and_read_at_once() -> None:
    """Before anybody has written a status."""
    async with running() as system:
        reply = await system.request(
            "POST", "/upload", form(file("a/b.txt", b"hi")), HEADERS | {"Content-Type": TYPE}
        )
        session, stored = reply.json["session_id"], reply.json["files"][0]["fileId"]
        (listed,) = (await get(system, f"/files/{session}?detail=summary")).json
        assert listed["name"] == f"{session}/{stored}.txt"
        assert datetime.now(UTC) - datetime.fromisoformat(listed["lastModified"]) < timedelta(minutes=1)
        assert (await get(system, f"/download/{session}/{stored}")).raw == b"hi"


GONE: dict[str, Json | None] = {
    "no session": None,
    "removed": held(S, ENTRY, removedFiles=[F]),
    "expired": held(S, ENTRY, expiresAt=LONG_PAST),
    "being deleted": {
        **held(S, ENTRY),
        "metadata": {"name": S, "creationTimestamp": LONG_PAST, "deletionTimestamp": LONG_PAST},
    },
    "a run without files": ran(S),
    "a run in progress": {**ran(S, ENTRY), "status": {"phase": "Running"}},
    "a run nobody has seen": {
        "metadata": {"name": S, "creationTimestamp": LONG_PAST},
        "spec": ran(S)["spec"],
    },
}


@pytest.mark.parametrize("why", GONE)
async def test_what_is_gone_is_told_nowhere(why: str) -> None:
    async with running() as system:
        resource = GONE[why]
        if resource is not None:
            system.api.put(SESSIONS, json.loads(json.dumps(resource)))
        system.store.objects[KEY_OF_F] = b"still there"
        for detail in ("simple", "summary", "full", "normalized"):
            reply = await get(system, f"/files/{S}?detail={detail}")
            assert (reply.status, reply.json) == (200, [])
        assert error(await get(system, f"/sessions/{S}/objects/{F}"), 404) == "File not found"
        assert error(await get(system, f"/download/{S}/{F}"), 404) == "File not found"
        assert (await get(system, f"/download/{S}/{F}", "HEAD")).status == 404
        assert error(await get(system, f"/files/{S}/{F}", "DELETE"), 404) == "File not found"
        assert system.store.asked["get"] == 0


async def test_ids_of_others_lead_nowhere() -> None:
    """Ids that clients take for ids, but that are none of ours, are not even asked about."""
    async with running() as system:
        before = system.api.requests.copy()
        for session in ("A" * 21, "a_" + "b" * 19, "-" * 21):
            assert (await get(system, f"/files/{session}?detail=summary")).json == []
            error(await get(system, f"/sessions/{session}/objects/{F}"), 404)
            error(await get(system, f"/download/{session}/{F}"), 404)
            error(await get(system, f"/files/{session}/{F}", "DELETE"), 404)
        assert system.api.requests == before


BAD_IDS = ["x", "a" * 20, "a" * 22, "a" * 20 + ".", "a" * 20 + "%20", "a" * 20 + "%0A", "é" * 21]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_what_is_no_id_is_a_bad_request(bad: str) -> None:
    quoted = bad.replace("é", "%C3%A9")
    async with running() as system:
        for method, path in (
            ("GET", f"/files/{quoted}?detail=summary"),
            ("GET", f"/sessions/{quoted}/objects/{F}"),
            ("GET", f"/sessions/{S}/objects/{quoted}"),
            ("GET", f"/download/{quoted}/{F}"),
            ("GET", f"/download/{S}/{quoted}"),
            ("DELETE", f"/files/{quoted}/{F}"),
            ("DELETE", f"/files/{S}/{quoted}"),
        ):
            assert error(await get(system, path, method), 400) == "Bad request", path


ROUTES = [
    ("GET", f"/files/{S}"),
    ("GET", f"/sessions/{S}/objects/{F}"),
    ("HEAD", f"/sessions/{S}/objects/{F}"),
    ("GET", f"/download/{S}/{F}"),
    ("HEAD", f"/download/{S}/{F}"),
    ("DELETE", f"/files/{S}/{F}"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_needs_a_key(method: str, path: str) -> None:
    async with running() as system:
        put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
        for headers, status in (
            ({}, 401),
            ({"X-API-Key": "wrong"}, 401),
            ({"X-API-Key": KEY, "Authorization": "Bearer other"}, 400),
            ({"Authorization": f"ApiKey {KEY}"}, 200),
        ):
            assert (await system.request(method, path, headers=headers)).status == status
    async with running(auth="none", api_keys_file=None) as system:
        put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
        assert (await system.request(method, path)).status == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_cluster_that_is_away_gets_503(method: str, path: str) -> None:
    async with running() as system:
        put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
        system.api.get_statuses = [503, 500]
        assert (await get(system, path, method)).status == 200
        system.api.get_statuses = [403]
        reply = await get(system, path, method)
        assert reply.status == 503
        if method != "HEAD":
            assert error(reply, 503) == "cluster_unavailable"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_all_spellings_of_a_path(method: str, path: str) -> None:
    async with running() as system:
        for spelling in (path, f"/v1{path}", f"/{path}", f"/v1/{path}/"):
            put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
            assert (await get(system, spelling, method)).status == 200, spelling


# --- the content ------------------------------------------------------------------------------------


async def test_a_download_has_the_headers_that_clients_rely_on() -> None:
    async with running() as system:
        put(system, held(S, ENTRY, SECOND, expiresAt=FAR), **{F: b"123456", G: b"x"})
        reply = await get(system, f"/download/{S}/{F}?kind=user&id=u", **{"Accept-Encoding": "gzip, br"})
        assert (reply.status, reply.raw) == (200, b"123456")
        disposition = reply.headers.pop("content-disposition")
        assert disposition.startswith("attachment; filename=\"donn_es__.csv\"; filename*=UTF-8''")
        assert unquote(disposition.partition("''")[2]) == "données/é.csv"
        reply.headers.pop("date")
        assert reply.headers == {
            "content-type": "text/csv",
            "content-length": "6",
            "etag": f'"{F}"',
            "accept-ranges": "bytes",
            "cache-control": "private, no-cache",
            "x-content-type-options": "nosniff",
            "connection": "close",
            "x-codeapi-execution-profile": "default",
        }
        head = await get(system, f"/download/{S}/{F}", "HEAD")
        assert head.headers.pop("date")
        assert head.headers.pop("content-disposition") == disposition
        assert (head.status, head.headers) == (200, reply.headers)
        assert (await get(system, f"/download/{S}/{G}")).headers["x-read-only"] == "true"
        assert system.metric("download_bytes_total") == 7
        assert system.metric("downloads_total", outcome="sent") == 2


@pytest.mark.parametrize(
    ("wanted", "status", "content", "told"),
    [
        ("bytes=0-2", 206, b"012", "bytes 0-2/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=5-500", 206, b"56789", "bytes 5-9/10"),
        ("bytes=0-0,5-6", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=1-2\t", 206, b"12", "bytes 1-2/10"),
    ],
)
async def test_a_part_of_a_file(wanted: str, status: int, content: bytes, told: str | None) -> None:
    async with running() as system:
        put(system, held(S, {**ENTRY, "bytes": 10}), **{F: b"0123456789"})
        reply = await get(system, f"/download/{S}/{F}", Range=wanted)
        assert (reply.status, reply.raw, reply.headers.get("content-range")) == (status, content, told)
        assert reply.headers["content-length"] == str(len(content))
        assert reply.headers["connection"] == "close"


async def test_a_part_that_does_not_exist_and_a_condition() -> None:
    async with running() as system:
        put(system, held(S, {**ENTRY, "bytes": 10}), **{F: b"0123456789"})
        reply = await get(system, f"/download/{S}/{F}", Range="bytes=10-")
        assert error(reply, 416) == "range_not_satisfiable"
        assert reply.headers["content-range"] == "bytes */10"
        for etag, status in ((f'"{F}"', 206), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)):
            reply = await get(system, f"/download/{S}/{F}", Range="bytes=0-0", **{"If-Range": etag})
            assert reply.status == status


async def test_an_empty_file() -> None:
    async with running() as system:
        put(system, held(S, {**ENTRY, "bytes": 0}), **{F: b""})
        reply = await get(system, f"/download/{S}/{F}")
        assert (reply.status, reply.raw, reply.headers["content-length"]) == (200, b"", "0")
        for wanted in ("bytes=0-", "bytes=-1"):
            assert (await get(system, f"/download/{S}/{F}", Range=wanted)).status == 200


async def test_bytes_that_the_store_has_lost_are_not_found() -> None:
    async with running() as system:
        put(system, held(S, ENTRY))
        assert error(await get(system, f"/download/{S}/{F}"), 404) == "File not found"
        assert (await get(system, f"/download/{S}/{F}", "HEAD")).status == 404
        assert system.metric("downloads_total", outcome="lost") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_store_that_fails_gets_503(method: str) -> None:
    async with running(store_seconds=0.3) as system:
        put(system, held(S, ENTRY), **{F: b"123456"})
        system.store.statuses = [500]
        assert (await get(system, f"/download/{S}/{F}", method)).status == 200
        system.store.fail = lambda operation: 503
        reply = await get(system, f"/download/{S}/{F}", method)
        assert reply.status == 503
        assert reply.headers["connection"] == "close"


async def test_a_store_that_breaks_off_is_seen_by_the_client() -> None:
    async with running() as system:
        put(system, held(S, {**ENTRY, "bytes": 1_000_000}), **{F: b"x" * 1_000_000})
        system.store.cut_after = 300_000
        async with system.connection() as connection:
            await connection.send("GET", f"/download/{S}/{F}", headers=HEADERS)
            with pytest.raises(asyncio.IncompleteReadError):
                await connection.reply()
        system.store.cut_after = None
        assert len((await get(system, f"/download/{S}/{F}")).raw) == 1_000_000


async def test_a_slow_client_slows_the_store_and_is_given_up() -> None:
    size = 60_000_000
    async with running(download_stall_seconds=0.5) as system:
        put(system, held(S, {**ENTRY, "bytes": size}), **{F: b"x" * size})
        async with system.connection() as connection:
            await connection.send("GET", f"/download/{S}/{F}", headers=HEADERS)
            await connection.reader.readuntil(b"\r\n\r\n")
            connection.writer.transport.pause_reading()
            await asyncio.sleep(0.3)
            taken = system.metric("download_bytes_total")
            assert taken < size / 2
            await asyncio.sleep(0.1)
            assert system.metric("download_bytes_total") == taken
            await system.api.until(
                lambda: system.metric("requests_total", route="/download/{session}/{file}", status="200") == 1
            )


async def test_a_client_that_leaves_ends_the_download() -> None:
    size = 60_000_000
    async with running() as system:
        put(system, held(S, {**ENTRY, "bytes": size}), **{F: b"x" * size})
        async with system.connection() as connection:
            await connection.send("GET", f"/download/{S}/{F}", headers=HEADERS)
            await connection.reader.readexactly(1000)
            connection.abort()
        await system.api.until(
            lambda: system.metric("requests_total", route="/download/{session}/{file}", status="499") == 1
        )
        assert system.metric("download_bytes_total") < size


async def test_fifty_downloads_at_once() -> None:
    async with running() as system:
        entries = [{"id": f"{S[:13]}{n:08}", "path": f"f{n}", "bytes": 200_000} for n in range(50)]
        put(system, ran(S, *entries), **{e["id"]: str(n).encode() * 100_000 for n, e in enumerate(entries)})
        replies = await asyncio.gather(*(get(system, f"/download/{S}/{e['id']}") for e in entries))
        assert [reply.raw[:2] for reply in replies] == [(str(n) * 2).encode()[:2] for n in range(50)]


# --- deletion ---------------------------------------------------------------------------------------


async def test_a_deletion_is_written_down_and_then_done() -> None:
    async with running() as system:
        put(system, held(S, ENTRY, SECOND, expiresAt=FAR), **{F: b"123456", G: b"x"})
        system.store.early = lambda operation: order.append(
            list(system.api.objects[SESSIONS, S]["spec"].get("removedFiles", []))
        )
        order: list[list[str]] = []
        reply = await get(system, f"/files/{S}/{F}?kind=user&id=u", "DELETE")
        assert reply.json == {"message": "File deleted successfully", "session_id": S, "fileId": F}
        assert reply.headers["connection"] == "close"
        assert order == [[F]]
        assert system.store.files == {G: b"x"}
        assert [entry["name"] for entry in (await get(system, f"/files/{S}?detail=summary")).json] == [
            f"{S}/{G}"
        ]
        assert error(await get(system, f"/files/{S}/{F}", "DELETE"), 404) == "File not found"
        assert (await get(system, f"/files/{S}/{G}", "DELETE")).status == 200
        assert system.api.objects[SESSIONS, S]["spec"]["removedFiles"] == [F, G]
        assert system.store.empty


@pytest.mark.parametrize("first", [[], [G]], ids=["first", "later"])
async def test_what_others_remove_meanwhile_stays_removed(first: list[str]) -> None:
    third = {"id": S[:13] + "file0003", "path": "c", "bytes": 1}
    async with running() as system:
        marks = {"removedFiles": first} if first else {}
        put(system, held(S, ENTRY, SECOND, third, expiresAt=FAR, **marks), **{F: b"123456"})

        def somebody_else() -> None:
            system.api.before_patch = lambda: None
            resource = json.loads(json.dumps(system.api.objects[SESSIONS, S]))
            resource["spec"].setdefault("removedFiles", []).append(third["id"])
            system.api.put(SESSIONS, resource)

        system.api.before_patch = somebody_else
        assert (await get(system, f"/files/{S}/{F}", "DELETE")).status == 200
        assert system.api.objects[SESSIONS, S]["spec"]["removedFiles"] == [*first, third["id"], F]


async def test_a_file_that_somebody_else_removes_at_the_same_moment() -> None:
    async with running() as system:
        put(system, held(S, ENTRY, SECOND, expiresAt=FAR, removedFiles=[G]), **{F: b"123456"})

        def somebody_else() -> None:
            system.api.before_patch = lambda: None
            resource = json.loads(json.dumps(system.api.objects[SESSIONS, S]))
            resource["spec"]["removedFiles"].append(F)
            system.api.put(SESSIONS, resource)

        system.api.before_patch = somebody_else
        assert (await get(system, f"/files/{S}/{F}", "DELETE")).status == 200
        assert system.api.objects[SESSIONS, S]["spec"]["removedFiles"] == [G, F]
        assert system.store.empty


async def test_ten_deletions_at_once() -> None:
    entries = [{"id": f"{S[:13]}{n:08}", "path": f"f{n}", "bytes": 1} for n in range(10)]
    async with running() as system:
        put(system, held(S, *entries, expiresAt=FAR), **{entry["id"]: b"x" for entry in entries})
        replies = await asyncio.gather(*(get(system, f"/files/{S}/{e['id']}", "DELETE") for e in entries))
        assert {reply.status for reply in replies} == {200}
        removed = system.api.objects[SESSIONS, S]["spec"]["removedFiles"]
        assert sorted(removed) == sorted(entry["id"] for entry in entries)
        assert system.store.empty


async def test_a_deletion_that_cannot_be_written_down_deletes_nothing() -> None:
    async with running() as system:
        put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
        system.api.patch_statuses = [403]
        assert error(await get(system, f"/files/{S}/{F}", "DELETE"), 503) == "cluster_refused"
        system.api.patch_statuses = [409] * 8
        assert error(await get(system, f"/files/{S}/{F}", "DELETE"), 503) == "cluster_unavailable"
        assert system.store.files == {F: b"123456"}
        system.api.patch_statuses = [503, 409, 422]
        assert (await get(system, f"/files/{S}/{F}", "DELETE")).status == 200
        assert system.store.empty


async def test_bytes_that_could_not_be_deleted_are_deleted_by_the_next_call() -> None:
    async with running(store_seconds=0.3) as system:
        put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
        system.store.fail = lambda operation: 503
        assert error(await get(system, f"/files/{S}/{F}", "DELETE"), 503) == "store_unavailable"
        assert error(await get(system, f"/download/{S}/{F}"), 404) == "File not found"
        system.store.fail = lambda operation: None
        error(await get(system, f"/files/{S}/{F}", "DELETE"), 404)
        assert system.store.empty


# --- lives ------------------------------------------------------------------------------------------


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("path", [f"/files/{S}?detail=summary", f"/sessions/{S}/objects/{F}"])
@pytest.mark.parametrize(
    ("make", "hours", "moved"),
    [(held, 8.9, True), (held, 9.1, False), (held, 20, False), (ran, None, True)],
    ids=["due", "recent", "later", "run"],
)
async def test_a_session_that_is_told_about_lives_on(
    path: str, make: Callable[..., Json], hours: float | None, moved: bool
) -> None:
    ends = {} if hours is None else {"expiresAt": in_hours(hours)}
    async with running(files_ttl_seconds=36_000) as system:
        put(system, make(S, ENTRY, **ends))
        assert (await get(system, path)).status == 200
        await system.api.until(lambda: not system.services.chores._tasks)
        assert system.api.requests[f"patch {SESSIONS}"] == int(moved)
        if moved:
            session = system.api.objects[SESSIONS, S]
            expires = datetime.fromisoformat(session["spec"]["expiresAt"])
            assert abs(expires - datetime.now(UTC) - timedelta(hours=10)) < timedelta(seconds=30)
            assert session["metadata"]["labels"] == {names.LABEL_EXPIRES: names.expiry_bucket(expires)}
            assert (await get(system, path)).status == 200
            await system.api.until(lambda: not system.services.chores._tasks)
            assert system.api.requests[f"patch {SESSIONS}"] == 1


async def test_the_longest_life_is_not_exceeded() -> None:
    async with running(files_ttl_seconds=36_000, files_max_seconds=7200) as system:
        system.api.put(SESSIONS, held(S, {"id": F, "path": "a", "bytes": 1}, expiresAt=in_hours(0.5)))
        made = system.api.sessions()[0]["metadata"]["creationTimestamp"]
        assert (await get(system, f"/files/{S}")).status == 200
        await system.api.until(lambda: system.api.patches)
        end = datetime.fromisoformat(system.api.patches[0]["spec"]["expiresAt"])
        assert end - datetime.fromisoformat(made) == timedelta(hours=2)


@pytest.mark.parametrize("path", [f"/files/{S}?detail=summary", f"/sessions/{S}/objects/{F}"])
@pytest.mark.parametrize(
    ("made", "ends", "age"),
    [
        (-100, 24.5, 0.5),
        (-100, 3, 22),
        (-100, 0.5, 24.5),
        (-2, 5, 2),
        (-100, 60, 0),
        (-700, 20, 700),
    ],
    ids=[
        "just used",
        "used 22 hours ago",
        "used long ago",
        "new",
        "kept for long",
        "near its last end",
    ],
)
async def test_a_file_is_as_old_as_its_last_use(path: str, made: float, ends: float, age: float) -> None:
    """Files live 25 hours from then on, but 30 days at most."""
    async with running() as system:
        resource = held(S, ENTRY, expiresAt=in_hours(ends))
        resource["metadata"]["creationTimestamp"] = in_hours(made)
        put(system, resource)
        found = (await get(system, path)).json
        told = found[0] if isinstance(found, list) else found
        since = datetime.now(UTC) - datetime.fromisoformat(told["lastModified"])
        assert abs(since - timedelta(hours=age)) < timedelta(minutes=1)
        await system.api.until(lambda: not system.services.chores._tasks)
        lives_on = system.api.requests[f"patch {SESSIONS}"] > 0
        assert lives_on is (age < 23 and ends < 24)


@pytest.mark.parametrize(("hours", "moved"), [(22.9, True), (23.1, False)])
async def test_what_clients_take_for_old_does_not_live_on(hours: float, moved: bool) -> None:
    async with running() as system:
        resource = held(S, ENTRY, expiresAt=in_hours(1.5))
        resource["metadata"]["creationTimestamp"] = in_hours(-hours)
        put(system, resource)
        await get(system, f"/files/{S}?detail=summary")
        await get(system, f"/sessions/{S}/objects/{F}")
        await system.api.until(lambda: not system.services.chores._tasks)
        assert (system.api.requests[f"patch {SESSIONS}"] > 0) is moved


async def test_a_session_without_files_does_not_live_on() -> None:
    async with running() as system:
        put(system, ran(S))
        assert (await get(system, f"/files/{S}?detail=summary")).json == []
        await system.api.until(lambda: not system.services.chores._tasks)
        assert system.api.requests[f"patch {SESSIONS}"] == 0


async def test_moving_an_end_delays_no_answer_and_may_fail() -> None:
    async with running(cluster_attempt_seconds=1) as system:
        put(system, held(S, ENTRY, expiresAt=in_hours(2)))
        system.api.patch_statuses = [503]
        reply = await get(system, f"/files/{S}?detail=summary")
        assert reply.status == 200
        await system.api.until(lambda: not system.services.chores._tasks)
        await get(system, f"/files/{S}?detail=summary")
        await system.api.until(lambda: system.api.requests[f"patch {SESSIONS}"] == 2)


async def test_many_calls_at_once_move_an_end_once() -> None:
    async with running() as system:
        put(system, held(S, ENTRY, expiresAt=in_hours(2)))
        await asyncio.gather(*(get(system, f"/files/{S}?detail=summary") for _ in range(20)))
        await system.api.until(lambda: not system.services.chores._tasks)
        assert system.api.requests[f"patch {SESSIONS}"] <= 2


# --- the log ----------------------------------------------------------------------------------------


async def test_no_line_holds_a_name_a_content_or_a_signed_url(caplog: pytest.LogCaptureFixture) -> None:
    secret = "SECRETNAME"
    with caplog.at_level(logging.DEBUG):
        async with running(store_seconds=0.2, cluster_attempt_seconds=0.3, create_seconds=0.3) as system:
            upload = HEADERS | {"Content-Type": TYPE}
            body = form(file(f"{secret}.csv", secret.encode()))
            reply = await system.request("POST", "/upload", body, upload)
            session, stored = reply.json["session_id"], reply.json["files"][0]["fileId"]
            await get(system, f"/files/{session}?detail=full")
            await get(system, f"/sessions/{session}/objects/{stored}?entity_id={secret}")
            await get(system, f"/download/{session}/{stored}")
            await get(system, f"/download/{session}/{stored}/{secret}")
            await get(system, f"/download/{secret}/{secret}")
            await get(system, f"/files/{secret}?detail=full")
            await system.request("POST", "/upload", form(file(f"../{secret}")), upload)
            await system.request("POST", "/upload", secret.encode() * 10, upload)
            await system.exec("x", files=[{"id": F, "session_id": S, "name": secret}])
            system.store.fail = lambda operation: 500
            await system.request("POST", "/upload", body, upload)
            await get(system, f"/download/{session}/{stored}")
            await get(system, f"/files/{session}/{stored}", "DELETE")
            system.store.fail = lambda operation: None
            system.store.cut_after = 1
            put(system, held(S, ENTRY, expiresAt=FAR), **{F: b"123456"})
            with pytest.raises(asyncio.IncompleteReadError):
                await get(system, f"/download/{S}/{F}")
            system.api.post_statuses = [0] * 20
            await system.request("POST", "/upload", body, upload)
            system.api.post_statuses = []
    written = "\n".join(
        JsonLines().format(record) for record in caplog.records if record.name != "aiohttp.access"
    )
    assert '"path": "/upload"' in written
    assert '"path": "/download/{session}/{file}"' in written
    assert session in written
    assert "store_failed" in written
    for text in (secret, "Signature", KEY, "secret-of-the-store", "données"):
        assert text not in written, text

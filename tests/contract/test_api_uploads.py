"""POST /upload from end to end: what is stored, what is answered, and that nothing stays behind."""

import asyncio
import base64
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.fakes_api.client import Reply
from contract.fakes_api.forms import BOUNDARY, END, TYPE, file, form, part, text
from contract.fakes_api.system import KEY, System, running
from kubecoderun_api.object_writer import PART_BYTES
from kubecoderun_crds import names
from kubecoderun_crds.session import SessionSpec

HEADERS = {"X-API-Key": KEY, "Content-Type": TYPE}
SESSIONS = names.SESSION_PLURAL


async def send(system: System, *parts: bytes, **options: Any) -> Reply:
    return await system.request("POST", "/upload", form(*parts), HEADERS, **options)


async def nothing_is_left(system: System) -> None:
    """Wait until what a refused upload has stored is gone, and no session is there."""
    await system.api.until(
        lambda: system.store.empty and not system.services.chores._tasks and not system.api.sessions()
    )


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
async def test_a_file_becomes_an_object_and_a_session_that_holds_it(length: bool) -> None:
    async with running(replica_uid="replica-1", files_ttl_seconds=7200, install_id="inst") as system:
        content = b"a,b\r\n1,2\r\n"
        reply = await send(
            system, text("entity_id", "agent_1"), file("données é.csv", content), length=length
        )
        assert reply.status == 200
        answer = reply.json
        session = answer["session_id"]
        stored = answer["files"][0]["fileId"]
        assert answer == {
            "message": "success",
            "storage_session_id": session,
            "session_id": session,
            "files": [{"fileId": stored, "filename": "données é.csv"}],
        }
        assert re.fullmatch("[a-z0-9]{21}", session)
        assert re.fullmatch("[a-z0-9]{21}", stored)
        assert stored.startswith(session[:13])
        key = f"/kubecoderun/inst/kubecoderun/{session}/{stored}"
        assert system.store.objects == {key: content}
        word = system.store.metadata[key].removeprefix("=?UTF-8?B?").removesuffix("?=")
        assert base64.b64decode(word).decode() == "données é.csv"
        (resource,) = system.api.sessions()
        assert resource["metadata"]["name"] == session
        assert resource["metadata"]["labels"][names.LABEL_FRONT_END] == "replica-1"
        request = {"mode": "Files", "files": [{"id": stored, "path": "données é.csv", "bytes": len(content)}]}
        assert resource["spec"] == {"request": request, "expiresAt": resource["spec"]["expiresAt"]}
        assert SessionSpec.model_validate(resource["spec"]).as_dict()["request"]["files"] == [
            {"readOnly": False, **request["files"][0]}
        ]
        expires = datetime.fromisoformat(resource["spec"]["expiresAt"])
        assert timedelta(0) <= datetime.now(UTC) + timedelta(hours=2) - expires < timedelta(seconds=30)
        assert resource["metadata"]["labels"][names.LABEL_EXPIRES] == names.expiry_bucket(expires)
        assert system.api.requests[f"create {SESSIONS}"] == 1
        assert system.metric("uploads_total", outcome="stored") == 1
        assert system.metric("upload_bytes_total") == len(content)


async def test_text_parts_may_come_in_any_order_and_read_only_counts_for_all_files() -> None:
    fields = [text("kind", "skill"), text("id", "s1"), text("version", "3"), text("read_only", "true")]
    files = [file("skills/x/SKILL.md", b"1"), file("skills/x/a b.py", b"2", field="files")]
    async with running() as system:
        for parts in (fields + files, files + fields, [fields[3], files[0], *fields[:3], files[1]]):
            reply = await send(system, *parts)
            paths = [entry["filename"] for entry in reply.json["files"]]
            assert paths == ["skills/x/SKILL.md", "skills/x/a b.py"]
            held = system.api.sessions()[-1]["spec"]["request"]["files"]
            assert [(entry["path"], entry["readOnly"]) for entry in held] == [
                ("skills/x/SKILL.md", True),
                ("skills/x/a b.py", True),
            ]
            assert len({entry["id"] for entry in held}) == 2


@pytest.mark.parametrize(("value", "expected"), [("false", False), ("", False), ("TRUE", True), ("0", False)])
async def test_values_of_read_only(value: str, expected: bool) -> None:
    async with running() as system:
        await send(system, text("read_only", value), file("a"))
        (entry,) = system.api.sessions()[0]["spec"]["request"]["files"]
        assert entry.get("readOnly", False) is expected


async def test_files_of_one_name_are_files_of_their_own() -> None:
    async with running() as system:
        reply = await send(system, file("a", b"1"), file("a", b"2"))
        contents = [system.store.files[entry["fileId"]] for entry in reply.json["files"]]
        assert contents == [b"1", b"2"]


async def test_an_empty_file_and_a_big_one() -> None:
    big = bytes(range(256)) * (2 * PART_BYTES // 256) + b"end"
    async with running() as system:
        reply = await send(system, file("empty", b""), file("big", big))
        sizes = [entry["bytes"] for entry in system.api.sessions()[0]["spec"]["request"]["files"]]
        assert sizes == [0, len(big)]
        contents = [system.store.files[entry["fileId"]] for entry in reply.json["files"]]
        assert contents == [b"", big]
        assert system.store.asked["complete"] == 1
        assert set(system.store.metadata.values()) == {"empty", "big"}


async def test_a_name_as_in_rfc_5987() -> None:
    async with running() as system:
        reply = await send(system, part("form-data; name=\"file\"; filename*=UTF-8''d%2F%E2%82%AC.csv", b"x"))
        assert reply.json["files"][0]["filename"] == "d/€.csv"


def refusal(reply: Reply, status: int) -> str:
    assert reply.status == status, reply.raw
    assert set(reply.json) == {"error", "message"}
    assert reply.headers["connection"] == "close"
    return str(reply.json["error"])


async def test_who_may_upload() -> None:
    async with running() as system:
        for headers, status in (
            ({}, 401),
            ({"X-API-Key": "wrong"}, 401),
            ({"X-API-Key": KEY, "Authorization": "Bearer other"}, 400),
            ({"Authorization": f"Bearer {KEY}"}, 200),
        ):
            reply = await system.request("POST", "/upload", form(file("a")), {"Content-Type": TYPE} | headers)
            assert reply.status == status
        assert len(system.api.sessions()) == len(system.store.objects) == 1


@pytest.mark.parametrize("content_type", ["application/json", "multipart/mixed; boundary=x", "", "x" * 5000])
async def test_another_content_type_is_refused_with_the_official_text(content_type: str) -> None:
    async with running() as system:
        headers = {"X-API-Key": KEY} | ({"Content-Type": content_type} if content_type else {})
        reply = await system.request("POST", "/upload", form(file("a")), headers)
        assert refusal(reply, 400) == "Invalid content type. Must be multipart/form-data."
        await nothing_is_left(system)


FORMS = {
    "without a file": (form(text("kind", "user")), "No files provided"),
    "a file part without a file name": (form(text("file", "x")), "No files provided"),
    "nothing": (b"", "invalid_request"),
    "no form": (b"hello" * 100, "invalid_request"),
    "cut in a file": (form(file("a", b"x" * 1000))[:-600], "invalid_request"),
    "cut before the end": (form(file("a"))[: -len(END)], "invalid_request"),
    "a second file that is cut": (form(file("a"), file("b"))[: -len(END) - 3], "invalid_request"),
    "a big file that is cut": (
        form(file("a", b"x" * (PART_BYTES + 99)))[: -len(END) - 5],
        "invalid_request",
    ),
    "a part of another name": (form(file("a"), file("b", field="other")), "invalid_request"),
    "a bad flag": (form(file("a"), text("read_only", "maybe")), "invalid_request"),
    "a bad name": (form(file("a"), file("../b")), "invalid_request"),
    "too many fields": (form(file("a"), *[text(f"f{n}", "") for n in range(65)]), "invalid_request"),
    "a long field": (form(file("a"), text("kind", "x" * 5000)), "invalid_request"),
    "too many files": (form(*[file(f"f{n}", b"") for n in range(257)]), "invalid_request"),
    "long headers": (
        form(file("a"), part('form-data; name="file"; filename="b"', b"x", "X: " + "y" * 9000)),
        "invalid_request",
    ),
    "much after the end": (form(file("a")) + b"x" * 200_000, "invalid_request"),
}


@pytest.mark.parametrize("what", FORMS)
async def test_a_form_that_is_refused_leaves_nothing(what: str) -> None:
    body, error = FORMS[what]
    async with running() as system:
        assert refusal(await system.request("POST", "/upload", body, HEADERS, length=False), 400) == error
        await nothing_is_left(system)
        assert system.metric("uploads_total", outcome="refused") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "The name of a file is empty."),
        ("x" * 257, "The name of a file is longer than 256 characters."),
        ("/etc/passwd", "The name of a file is not relative."),
        ("a/../../b", "The name of a file has a part that is . or ..."),
        ("C:\\a.csv", "The name of a file has a backslash."),
        ("a\x00b", "The name of a file has control or invisible characters."),
        ("ä" * 200, "The name of a file has a part of more than 255 bytes."),
    ],
)
async def test_names_that_no_session_takes_are_refused_with_the_reason(name: str, message: str) -> None:
    async with running() as system:
        reply = await send(system, file("good"), file(name))
        refusal(reply, 400)
        assert reply.json["message"] == message
        await nothing_is_left(system)


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("limit", [1000, PART_BYTES + 1000])
async def test_a_file_over_the_limit_gets_413(limit: int, length: bool) -> None:
    async with running(max_upload_bytes=limit) as system:
        exact = await send(system, file("a", b"x" * limit), file("b", b"y" * limit), length=length)
        assert exact.status == 200
        system.store.objects.clear()
        system.api.objects.pop((SESSIONS, exact.json["session_id"]))
        for excess in (1, 300_000):
            reply = await send(system, file("a"), file("b", b"x" * (limit + excess)), length=length)
            assert refusal(reply, 413) == "File size limit exceeded"
            await nothing_is_left(system)


async def test_a_client_that_waits_for_100_continue_is_refused_without_sending() -> None:
    async with running() as system:
        for headers, status in (({}, 401), ({"X-API-Key": KEY, "Content-Type": "text/plain"}, 400)):
            async with system.connection() as connection:
                declared = {"Content-Length": "9999999", "Expect": "100-continue"}
                await connection.send("POST", "/upload", b"", headers | declared)
                refusal(await asyncio.wait_for(connection.reply(), 2), status)


async def test_a_client_may_wait_for_100_continue() -> None:
    async with running() as system, system.connection() as connection:
        body = form(file("a"))
        declared = {"Content-Length": str(len(body)), "Expect": "100-continue"}
        await connection.send("POST", "/upload", b"", HEADERS | declared)
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.writer.write(body)
        assert (await connection.reply()).status == 200


@pytest.mark.parametrize("size", [100, PART_BYTES + 100_000, 2 * PART_BYTES + 100_000])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(size: int) -> None:
    async with running() as system:
        body = form(file("first"), file("second", b"x" * size))
        async with system.connection() as connection:
            declared = {"Content-Length": str(len(body))}
            await connection.send("POST", "/upload", body[:-150], HEADERS | declared)
            await system.api.until(lambda: system.store.asked["put"] > 0)
            if size > PART_BYTES:
                await system.api.until(lambda: system.store.asked["part"] > 0)
        await system.api.until(lambda: system.metric("uploads_total", outcome="left") == 1)
        await nothing_is_left(system)
        assert system.metric("requests_total", route="/upload", status="499") == 1


async def test_a_client_that_leaves_while_the_store_is_slow_leaves_nothing() -> None:
    async with running() as system:
        body = form(file("big", b"x" * (2 * PART_BYTES)))
        for operation in ("begin", "part"):
            system.store.asked.clear()
            system.store.early = lambda asked, stop=operation: (
                system.store.open.clear() if asked == stop else None
            )
            async with system.connection() as connection:
                declared = {"Content-Length": str(len(body))}
                sending = asyncio.create_task(
                    connection.send("POST", "/upload", body[:-150], HEADERS | declared)
                )
                await system.api.until(lambda stop=operation: system.store.asked[stop] > 0)
                connection.abort()
                with suppress(ConnectionError):
                    await sending
            system.store.early = lambda asked: None
            system.store.open.set()
            await nothing_is_left(system)


async def test_a_body_that_does_not_end_gets_504() -> None:
    async with running(upload_seconds=0.4) as system, system.connection() as connection:
        body = form(file("a"), file("b", b"x" * 1000))
        await connection.send("POST", "/upload", body[:-500], HEADERS | {"Content-Length": str(len(body))})
        assert refusal(await connection.reply(), 504) == "Upload timeout"
        await nothing_is_left(system)
        assert system.metric("uploads_total", outcome="failed") == 1


async def test_a_slow_store_gets_504_too() -> None:
    async with running(upload_seconds=0.4) as system:
        system.store.open.clear()
        reply = await send(system, file("a"))
        assert refusal(reply, 504) == "Upload timeout"
        system.store.open.set()
        await nothing_is_left(system)


@pytest.mark.parametrize("operation", ["put", "begin", "part", "complete"])
async def test_a_store_that_fails_gets_503(operation: str) -> None:
    async with running(store_seconds=0.3) as system:
        system.store.fail = lambda asked: 503 if asked == operation else None
        size = 10 if operation == "put" else PART_BYTES + 10
        reply = await send(system, file("a", b"x" * size))
        assert refusal(reply, 503) == "store_unavailable"
        await nothing_is_left(system)


async def test_without_a_store_there_are_no_uploads() -> None:
    async with running(store_endpoint=None) as system:
        assert refusal(await send(system, file("a")), 503) == "store_unavailable"


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [(403, 503, "cluster_refused"), (422, 400, "invalid_request"), (503, 503, "cluster_unavailable")],
)
async def test_without_a_session_the_bytes_go(status: int, answer: int, error: str) -> None:
    async with running(create_seconds=0.4) as system:
        system.api.post_statuses = [status] * 20
        assert refusal(await send(system, file("a", b"x" * (PART_BYTES + 1)), file("b")), answer) == error
        await nothing_is_left(system)


async def test_a_session_that_appears_after_all_is_deleted() -> None:
    """The POST was carried out, but nobody learnt of it: the client has got an error, so the session goes."""
    async with running(create_seconds=0.4, cluster_attempt_seconds=0.3) as system:
        system.api.deaf = True
        system.api.swallow_posts = 1
        system.api.get_statuses = [503] * 20
        system.api.delete_statuses = [503, 429]
        assert refusal(await send(system, file("a")), 503) == "cluster_unavailable"
        await nothing_is_left(system)
        assert system.api.requests[f"delete {SESSIONS}"] == 3


async def test_a_session_that_appears_later_still_is_deleted_when_it_is_seen() -> None:
    async with running(create_seconds=0.2) as system:
        system.api.post_statuses = [503] * 100
        await send(system, file("a"))
        await system.api.until(lambda: system.api.requests[f"delete {SESSIONS}"] == 1)
        (name,) = system.services.sessions._disowned
        labels = {names.LABEL_FRONT_END: system.services.settings.replica_uid}
        system.api.put(SESSIONS, {"metadata": {"name": name, "labels": labels}, "spec": {}})
        await nothing_is_left(system)


async def test_a_post_without_an_answer_is_known_by_the_watch() -> None:
    async with running(cluster_attempt_seconds=0.3) as system:
        system.api.swallow_posts = 1
        reply = await send(system, file("a"))
        assert reply.status == 200
        assert len(system.api.sessions()) == 1
        assert len(system.store.objects) == 1


async def test_while_the_front_end_stops_nothing_is_taken() -> None:
    async with running() as system:
        system.services.stop()
        assert refusal(await send(system, file("a")), 503) == "shutting_down"
        await nothing_is_left(system)


async def test_uploads_beyond_the_limit_wait_for_their_turn() -> None:
    async with running(uploads_at_once=1, upload_seconds=5) as system, system.connection() as connection:
        body = form(file("slow"))
        await connection.send("POST", "/upload", body[:50], HEADERS | {"Content-Length": str(len(body))})
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(send(system, file("waits")))
        await asyncio.sleep(0.2)
        assert system.store.asked["put"] == 0
        assert not waiting.done()
        connection.writer.write(body[50:])
        assert (await connection.reply()).status == 200
        assert (await waiting).status == 200


async def test_many_uploads_at_once() -> None:
    async with running() as system:
        replies = await asyncio.gather(
            *(send(system, file(f"f{n}", str(n).encode() * 1000)) for n in range(40))
        )
        for number, reply in enumerate(replies):
            stored = reply.json["files"][0]["fileId"]
            assert system.store.files[stored] == str(number).encode() * 1000
        assert len({reply.json["session_id"] for reply in replies}) == 40


async def test_spellings_of_the_path() -> None:
    async with running() as system:
        for path in ("/upload", "/v1/upload", "//upload", "/upload/", "/v1//upload?entity_id=x"):
            assert (await system.request("POST", path, form(file("a")), HEADERS)).status == 200


PIECES = st.sampled_from(
    [
        f"--{BOUNDARY}\r\n".encode(),
        f"\r\n--{BOUNDARY}".encode(),
        END,
        b"\r\n",
        b"--",
        file("a"),
        file("b/c", b"\r\n--x"),
        file("../d"),
        text("kind", "user"),
        text("read_only", "true"),
        part('form-data; name="file"', b"x"),
        file("ł/\u2603 " + "x" * 40),
        file("big", b"y" * 300_000),
        file("n\x00l"),
        part("form-data; name=\"file\"; filename*=UTF-16''a", b"x"),
        part("form-data; name=\"file\"; filename*=UTF-8''%ff%fe", b"x"),
        part('form-data; name="file"; filename="' + "h" * 20_000 + '"', b"x"),
        part('form-data; name="file"; filename="a"', b"x", "X-Long: " + "v" * 9000),
        part('form-data; name="file"; filename="a"', b"x", *(f"X-{n}: 1" for n in range(20))),
        part('form-data; name="file"; filename="a"', b"x", "Content-Transfer-Encoding: base64"),
        part('form-data; name="file"; filename="a"', b"x", "Content-Type: text/plain; charset=klingon"),
        part('form-data; name="x"', b"", "Content-Type: multipart/mixed; boundary=inner")
        + b"--inner\r\nContent-Disposition: file; filename=b\r\n\r\nx\r\n--inner--\r\n",
        b"Content-Disposition: form-data\r\n\r\n",
        'Content-Disposition: form-data; name="file"; filename="ä"\r\n\r\n'.encode("latin-1"),
    ]
)
CONTENT_TYPES = [
    TYPE,
    TYPE,
    TYPE,
    TYPE,
    f'{TYPE}; x="',
    "multipart/form-data; boundary=x",
    'multipart/form-data; boundary=""',
    "multipart/form-data; boundary=" + "b" * 300,
    f"multipart/form-data; charset=utf-16; boundary={BOUNDARY}",
    f"{TYPE}, {TYPE}",
]


@pytest.mark.parametrize("path", ["/upload", "/upload/batch"])
def test_whatever_comes_is_stored_or_refused_and_leaves_nothing(path: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        body=st.lists(PIECES | st.binary(max_size=20), max_size=8).map(b"".join),
        end=st.sampled_from([b"", END]),
        cut=st.integers(0, 40),
        length=st.booleans(),
        content_type=st.sampled_from(CONTENT_TYPES),
    )
    def ask(body: bytes, end: bytes, cut: int, length: bool, content_type: str) -> None:
        sent = (body + end)[: len(body + end) - cut]
        headers = HEADERS | {"Content-Type": content_type}
        reply = runner.run(system.request("POST", path, sent, headers, length=length))
        if reply.status == 200:
            held = {entry["fileId"] for entry in reply.json["files"] if "fileId" in entry}
            runner.run(system.api.until(lambda: not system.services.chores._tasks))
            assert set(system.store.files) == held
            system.store.objects.clear()
            system.api.objects.pop((SESSIONS, reply.json["session_id"]))
        else:
            assert reply.status == 400
            assert "error" in reply.json or reply.json["message"] == "error"
            runner.run(nothing_is_left(system))

    with asyncio.Runner() as runner:
        context = running()
        system = runner.run(context.__aenter__())
        try:
            ask()
        finally:
            runner.run(context.__aexit__(None, None, None))

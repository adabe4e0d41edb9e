"""POST /upload/batch: what becomes of each file, and that what is not kept leaves nothing."""

from typing import Any

import pytest

from contract.fakes_api.client import Reply
from contract.fakes_api.forms import END, TYPE, file, form, text
from contract.fakes_api.system import KEY, System, running
from kubecoderun_api.forms import MAX_FILE_PARTS
from kubecoderun_api.object_writer import PART_BYTES

HEADERS = {"X-API-Key": KEY, "Content-Type": TYPE}


async def send(system: System, *parts: bytes, **options: Any) -> Reply:
    return await system.request("POST", "/upload/batch", form(*parts), HEADERS, **options)


async def only_the_kept_are_there(system: System, reply: Reply) -> None:
    """The store has what the answer says, and the session too."""
    kept = {entry["fileId"]: entry["filename"] for entry in reply.json["files"] if "fileId" in entry}
    await system.api.until(lambda: not system.services.chores._tasks)
    assert set(system.store.files) == set(kept)
    assert not system.store.uploads
    sessions = system.api.sessions()
    if not kept:
        assert sessions == []
        return
    (session,) = sessions
    assert session["metadata"]["name"] == reply.json["storage_session_id"] == reply.json["session_id"]
    assert {held["id"]: held["path"] for held in session["spec"]["request"]["files"]} == kept


@pytest.mark.parametrize("length", [True, False], ids=["content-length", "chunked"])
async def test_all_are_kept(length: bool) -> None:
    async with running() as system:
        reply = await send(
            system,
            text("kind", "skill"),
            text("id", "s1"),
            text("version", "3"),
            text("read_only", "true"),
            file("skills/x/SKILL.md", b"1"),
            file("skills/x/ä b.py", b"2"),
            file("skills/x/SKILL.md", b"3"),
            length=length,
        )
        assert (reply.status, reply.json["message"]) == (200, "success")
        assert [(entry["status"], entry["filename"]) for entry in reply.json["files"]] == [
            ("success", "skills/x/SKILL.md"),
            ("success", "skills/x/ä b.py"),
            ("success", "skills/x/SKILL.md"),
        ]
        assert (reply.json["succeeded"], reply.json["failed"]) == (3, 0)
        assert "filesLimitReached" not in reply.json
        assert [system.store.files[entry["fileId"]] for entry in reply.json["files"]] == [b"1", b"2", b"3"]
        assert all(held["readOnly"] for held in system.api.sessions()[0]["spec"]["request"]["files"])
        assert system.metric("uploads_total", outcome="stored") == 1
        assert reply.headers["connection"] == "close"
        await only_the_kept_are_there(system, reply)


async def test_a_file_that_cannot_be_kept_does_not_harm_the_others() -> None:
    async with running(max_upload_bytes=PART_BYTES + 10) as system:
        reply = await send(
            system,
            file("a", b"1"),
            file("../b", b"2" * 1000),
            file("c\x07", b""),
            file("big", b"x" * (PART_BYTES + 11)),
            file("d", b"4"),
        )
        assert (reply.status, reply.json["message"]) == (200, "partial_success")
        assert (reply.json["succeeded"], reply.json["failed"]) == (2, 3)
        assert [
            (entry["status"], entry["filename"], entry.get("error", "")) for entry in reply.json["files"]
        ] == [
            ("success", "a", ""),
            ("error", "../b", "The name of a file has a part that is . or ..."),
            ("error", "c\x07", "The name of a file has control or invisible characters."),
            ("error", "big", f"A file is over {PART_BYTES + 10} bytes."),
            ("success", "d", ""),
        ]
        assert system.metric("uploads_total", outcome="partial") == 1
        assert system.metric("upload_bytes_total") == 2
        await only_the_kept_are_there(system, reply)


async def test_if_none_can_be_kept_there_is_no_session() -> None:
    async with running() as system:
        reply = await send(system, file("../a"), file("/b"))
        assert (reply.status, reply.json["message"], reply.json["storage_session_id"]) == (400, "error", None)
        assert (reply.json["succeeded"], reply.json["failed"]) == (0, 2)
        assert system.metric("uploads_total", outcome="refused") == 1
        await only_the_kept_are_there(system, reply)


async def test_files_beyond_two_hundred_are_told_to_have_failed() -> None:
    async with running() as system:
        reply = await send(system, *(file(f"f{number}", b"x") for number in range(203)))
        assert (reply.status, reply.json["message"]) == (200, "partial_success")
        assert (reply.json["filesLimitReached"], reply.json["maxFiles"]) == (True, 200)
        assert (reply.json["succeeded"], reply.json["failed"]) == (200, 3)
        assert [entry["filename"] for entry in reply.json["files"][200:]] == ["f200", "f201", "f202"]
        await only_the_kept_are_there(system, reply)


async def test_a_store_that_fails_in_the_middle_is_told_and_not_asked_for_the_rest() -> None:
    async with running(store_seconds=0.3) as system:
        system.store.fail = lambda operation: 503 if operation == "put" and system.store.objects else None
        reply = await send(system, file("a"), file("b"), file("c"), file("d"))
        assert [entry["status"] for entry in reply.json["files"]] == ["success", "error", "error", "error"]
        assert reply.json["files"][3]["error"] == "The object store did not take the file."
        system.store.fail = lambda _: None
        await only_the_kept_are_there(system, reply)


async def test_a_store_that_takes_nothing_gets_503() -> None:
    async with running(store_seconds=0.3) as system:
        system.store.fail = lambda operation: 500 if operation == "put" else None
        reply = await send(system, file("a"), file("b"))
        assert (reply.status, reply.json["error"]) == (503, "store_unavailable")
        assert system.metric("uploads_total", outcome="failed") == 1
        await system.api.until(lambda: system.store.empty and not system.api.sessions())


BROKEN = {
    "without a file": (form(text("kind", "skill")), "No files provided"),
    "cut in a file": (form(file("a"), file("b", b"x" * 1000))[:-500], "invalid_request"),
    "cut before its end": (form(file("a"), file("b"))[: -len(END)], "invalid_request"),
    "a bad flag": (form(file("a"), text("read_only", "maybe")), "invalid_request"),
    "too many": (form(*(file(f"f{n}", b"") for n in range(MAX_FILE_PARTS + 1))), "invalid_request"),
    "ten thousand": (form(*(file(f"f{n}", b"") for n in range(10_000))), "invalid_request"),
    "a part of another name": (form(file("a"), file("b", field="other")), "invalid_request"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_form_that_is_no_form_leaves_nothing(what: str) -> None:
    body, error = BROKEN[what]
    async with running() as system:
        reply = await system.request("POST", "/upload/batch", body, HEADERS, length=False)
        assert (reply.status, reply.json["error"]) == (400, error)
        await system.api.until(
            lambda: system.store.empty and not system.services.chores._tasks and not system.api.sessions()
        )


async def test_who_may_send_one_and_how_its_path_is_spelt() -> None:
    async with running() as system:
        reply = await system.request("POST", "/upload/batch", form(file("a")), {"Content-Type": TYPE})
        assert reply.status == 401
        for path in ("/v1/upload/batch", "//upload//batch/"):
            assert (await system.request("POST", path, form(file("a")), HEADERS)).status == 200


async def test_a_client_that_leaves_in_the_middle_leaves_nothing() -> None:
    async with running() as system, system.connection() as connection:
        body = form(file("a"), file("b", b"x" * (PART_BYTES + 9000)), file("c"))
        await connection.send(
            "POST", "/upload/batch", body[:-400], HEADERS | {"Content-Length": str(len(body))}
        )
        await system.api.until(lambda: system.store.asked["part"] > 0)
        connection.abort()
        await system.api.until(lambda: system.metric("uploads_total", outcome="left") == 1)
        await system.api.until(lambda: system.store.empty and not system.services.chores._tasks)
        assert system.api.sessions() == []

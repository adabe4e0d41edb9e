"""Watching runs: real front ends, a fake API server, and operators that know what programs write."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.fakes_api.apiserver import ended, held, ran, succeeded
from contract.fakes_api.client import Connection
from contract.fakes_api.operators import RELAY_KEY, FakeOperator, FakeRun, operator
from contract.fakes_api.system import KEY, System, beside, running
from kubecoderun_crds import names
from kubecoderun_crds.relay import Question

Json = dict[str, Any]
AUTH = {"X-API-Key": KEY}


@dataclass
class Event:
    kind: str
    data: Json
    id: str = ""


class Watcher:
    """Reads a stream of events as it comes."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self.comments = 0
        self.ended = False
        self._connection = connection
        self._buffer = ""

    async def next(self, seconds: float = 8.0) -> Event | None:
        """The next event; None at the end."""
        async with asyncio.timeout(seconds):
            while True:
                block, separator, rest = self._buffer.partition("\n\n")
                if not separator:
                    if not await self._more():
                        return None
                    continue
                self._buffer = rest
                fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                self.comments += block.startswith(":")
                if "event" in fields:
                    return Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))

    async def all(self) -> list[Event]:
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def text(self, size: int, stream: str = "stdout") -> str:
        """Text of a stream until there is so much of it."""
        found = ""
        while len(found) < size:
            event = await self.next()
            assert event is not None, found
            if event.kind == stream:
                found += event.data["text"]
        return found

    async def _more(self) -> bool:
        if self.ended:
            return False
        size = int(await self._connection.reader.readline(), 16)
        data = (await self._connection.reader.readexactly(size + 2))[:-2]
        self.ended = size == 0
        self._buffer += data.decode()
        return True


@asynccontextmanager
async def watching(system: System, session: str, **headers: str) -> AsyncIterator[Watcher]:
    sent = AUTH | {name.replace("_", "-"): value for name, value in headers.items()}
    async with system.connection() as connection:
        await connection.send("GET", f"/exec/{session}/events", b"", sent)
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        yield Watcher(connection, int(head[0].split()[1]), found)


@asynccontextmanager
async def systems(folder: Path, count: int = 1, **settings: Any) -> AsyncIterator[tuple[Any, ...]]:
    """An operator and so many front ends."""
    key = folder / "relay.key"
    key.write_text(RELAY_KEY)
    async with operator() as known:
        options = {"relay_url": known.url, "relay_key_file": key} | settings
        async with running(**options) as first:
            if count == 1:
                yield known, first
                return
            async with beside(first, **options) as second:
                yield known, first, second


def uid(system: System, name: str) -> str:
    """UID of a session."""
    return str(system.api.objects[names.SESSION_PLURAL, name]["metadata"]["uid"])


async def begin(known: FakeOperator, system: System, **fields: Any) -> tuple[str, FakeRun]:
    """A run that was handed in and has started."""
    prefer = {"Prefer": "respond-async"}
    body = {"lang": "py", "code": "print(1)", **fields}
    reply = await system.request("POST", "/exec", body, AUTH | prefer)
    assert reply.status == 202, reply.raw
    name = reply.json["session_id"]
    run = known.runs[uid(system, name)] = FakeRun()
    system.api.finish(name, {"phase": "Running"})
    return name, run


def finish(known: FakeOperator, system: System, name: str, status: Json) -> None:
    """The operator has written the result and forgotten the run."""
    del known.runs[uid(system, name)]
    system.api.finish(name, status)


async def test_handed_in_and_watched_to_its_end(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        async with watching(system, name) as watcher:
            assert watcher.status == 200
            assert watcher.headers["content-type"] == "text/event-stream"
            assert watcher.headers["cache-control"] == "no-store"
            first = await watcher.next()
            assert first == Event("status", {"session_id": name, "phase": "Running"})
            run.stdout += b"one\n"
            assert await watcher.next() == Event("stdout", {"text": "one\n"}, "4-0")
            run.stderr += b"oh\n"
            assert await watcher.next() == Event("stderr", {"text": "oh\n"}, "4-3")
            run.stdout += b"two\n"
            assert await watcher.next() == Event("stdout", {"text": "two\n"}, "8-3")
            status = succeeded("one\ntwo\nthree\n")
            status["result"] |= {"stderr": "oh\n", "stderrBytes": 3}
            finish(known, system, name, status)
            rest = await watcher.all()
            assert [event.kind for event in rest] == ["status", "stdout", "result"]
            assert [event.data for event in rest if event.kind == "stdout"] == [{"text": "three\n"}]
            assert rest[-1].id == "end"
            assert rest[-1].data["stdout"] == "one\ntwo\nthree\n"
            assert rest[-1].data == (await system.request("GET", f"/exec/{name}", headers=AUTH)).json
        assert system.metric("watchers") == 0


async def test_watching_writes_nothing(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        run.stdout = b"x"
        before = system.api.requests.copy()
        async with watching(system, name) as watcher:
            await watcher.text(1)
        made = system.api.requests - before
        assert set(made) <= {"get executionsessions"}


async def test_a_run_nobody_watches_is_not_asked_about(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        call = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(0.2)
        assert known.questions == []
        system.api.finish(session["metadata"]["name"], succeeded("1\n"))
        assert (await call).status == 200


async def test_a_watcher_whose_connection_broke_goes_on_at_another_replica(tmp_path: Path) -> None:
    async with systems(tmp_path, 2) as (known, first, second):
        name, run = await begin(known, first)
        run.stdout = "für ".encode()
        async with watching(first, name) as watcher:
            await watcher.next()
            event = await watcher.next()
            assert event is not None
            assert event.data["text"] == "für "
        run.stdout += b"you"
        async with watching(second, name, Last_Event_ID=event.id) as watcher:
            assert await watcher.text(3) == "you"
            finish(known, first, name, succeeded("für you"))
            rest = await watcher.all()
            assert [found.kind for found in rest if found.kind != "status"] == ["result"], "nothing twice"
        async with watching(second, name, Last_Event_ID=rest[-1].id) as watcher:
            assert watcher.status == 204, "an EventSource stops to come again"


async def test_characters_are_told_whole(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        whole = "a€🙂".encode()
        async with watching(system, name) as watcher:
            await watcher.next()
            run.stdout = whole[:2]
            event = await watcher.next()
            assert event == Event("stdout", {"text": "a"}, "1-0"), "the id is not inside of a character"
            await asyncio.sleep(0.3)
            asked = len(known.questions)
            await asyncio.sleep(0.3)
            assert len(known.questions) - asked <= 1, "half a character is not asked for again and again"
            run.stdout = whole
            assert await watcher.text(2) == "€🙂"


async def test_lost_output_shows(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        run.stdout, run.lost = b"x" * 1000 + b"tail", 1000
        async with watching(system, name) as watcher:
            await watcher.next()
            assert await watcher.next() == Event("omitted", {"stream": "stdout", "bytes": 1000}, "1004-0")
            assert await watcher.text(4) == "tail"


async def test_the_rest_of_long_output_comes_from_the_store(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        text = "line\n" * 8000
        run.stdout = text[:20000].encode()
        key = names.object_key("kubecoderun", "kubecoderun", name, names.RESULT_OBJECT)
        stream = {"text": text, "bytes": len(text), "truncated": False}
        none = {"text": "", "bytes": 0, "truncated": False}
        system.store.objects[f"/kubecoderun/{key}"] = json.dumps({"stdout": stream, "stderr": none}).encode()
        async with watching(system, name) as watcher:
            found = await watcher.text(20000)
            status = succeeded()
            status["result"] |= {
                "stdout": text[:100], "stdoutBytes": len(text), "stdoutTruncated": True, "stored": True,
            }  # fmt: skip
            finish(known, system, name, status)
            rest = await watcher.all()
            assert found + "".join(event.data["text"] for event in rest if event.kind == "stdout") == text
            assert rest[-1].data["stdout"] == text


@pytest.mark.parametrize("seen", [0, 100, 20000], ids=lambda n: f"{n} seen")
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "inline"])
async def test_the_rest_of_output_that_was_cut(tmp_path: Path, seen: int, stored: bool) -> None:
    """Of stdout the beginning is kept: watchers are told all of that, whenever they come. Of stderr there is
    a gap somewhere."""
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        kept, total = "line\n" * 8000, 1_000_000
        run.stdout = kept[:seen].encode()
        if stored:
            key = names.object_key("kubecoderun", "kubecoderun", name, names.RESULT_OBJECT)
            streams = {
                "stdout": {"text": kept, "bytes": total, "truncated": True},
                "stderr": {"text": "a\n[... 7 bytes omitted ...]\nb", "bytes": 9, "truncated": True},
            }
            system.store.objects[f"/kubecoderun/{key}"] = json.dumps(streams).encode()
        async with watching(system, name) as watcher:
            found = await watcher.text(seen)
            status = succeeded()
            status["result"] |= {
                "stdout": kept[:16000], "stdoutBytes": total, "stdoutTruncated": True, "stored": stored,
                "stderr": "a\n[... 7 bytes omitted ...]\nb", "stderrBytes": 9, "stderrTruncated": True,
            }  # fmt: skip
            finish(known, system, name, status)
            rest = await watcher.all()
        text = found + "".join(event.data["text"] for event in rest if event.kind == "stdout")
        most = kept if stored else kept[: max(seen, 16000)]
        assert text == most
        omitted = {e.data["stream"]: e.data["bytes"] for e in rest if e.kind == "omitted"}
        assert omitted == {"stdout": total - len(most), "stderr": 9}
        assert rest[-1].kind == "result"


async def test_heartbeats_while_nothing_is_written(tmp_path: Path) -> None:
    async with systems(tmp_path, heartbeat_every_seconds=0.1) as (known, system):
        name, run = await begin(known, system)
        async with watching(system, name) as watcher:
            await watcher.next()
            later = asyncio.create_task(watcher.text(1))
            await asyncio.sleep(0.5)
            run.stdout = b"x"
            await later
            assert watcher.comments >= 2


async def test_a_session_that_waits_runs_and_fails(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        system.api.finish(name, {"phase": "Queued"})
        run.state = "waiting"
        async with watching(system, name) as watcher:
            event = await watcher.next()
            assert event is not None
            assert event.data["phase"] == "Queued"
            finish(known, system, name, ended("WaitExpired"))
            rest = await watcher.all()
            assert [found.kind for found in rest] == ["status", "error"]
            assert rest[-1].data["error"] == "rate_limited"


async def test_without_a_relay_there_are_phases_and_the_result() -> None:
    async with running() as system:
        reply = await system.request(
            "POST", "/exec", {"lang": "py", "code": "x"}, AUTH | {"Prefer": "wait=1, respond-async"}
        )
        name = reply.json["session_id"]
        async with watching(system, name) as watcher:
            assert (await watcher.next()) == Event("status", {"session_id": name, "phase": "Pending"})
            system.api.finish(name, succeeded("out"))
            rest = await watcher.all()
            assert [event.kind for event in rest] == ["status", "stdout", "result"]


async def test_an_operator_that_is_down_for_a_while(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        del known.runs[uid(system, name)]
        async with watching(system, name) as watcher:
            await watcher.next()
            await asyncio.sleep(0.2)
            known.runs[uid(system, name)] = run
            run.stdout = b"again"
            assert await watcher.text(5) == "again"


async def test_a_session_deleted_under_a_watcher(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, _ = await begin(known, system)
        async with watching(system, name) as watcher:
            await watcher.next()
            del known.runs[uid(system, name)]
            system.api.delete(names.SESSION_PLURAL, name)
            (last,) = await watcher.all()
            assert (last.kind, last.data["error"]) == ("error", "session_deleted")


async def test_a_front_end_that_ends_sends_its_watchers_away(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, run = await begin(known, system)
        async with watching(system, name) as watcher:
            await watcher.next()
            system.services.draining = True
            run.stdout = b"x"
            assert [event.kind for event in await watcher.all()] in (["stdout"], [])
            assert watcher.ended


async def test_who_may_watch_and_what(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, _ = await begin(known, system)
        path = f"/exec/{name}/events"
        assert (await system.request("GET", path)).status == 401
        assert (await system.request("GET", path, headers={"X-API-Key": "wrong"})).status == 401
        for of in ("", "/events"):
            assert (await system.request("GET", f"/exec/short{of}", headers=AUTH)).status == 400
            unknown = await system.request("GET", f"/exec/{'q' * 21}{of}", headers=AUTH)
            assert (unknown.status, unknown.json["error"]) == (404, "session_not_found")
            system.api.put(names.SESSION_PLURAL, held("f" * 21))
            assert (await system.request("GET", f"/exec/{'f' * 21}{of}", headers=AUTH)).status == 404
        bad = await system.request("GET", path, headers=AUTH | {"Last-Event-ID": "-1-0"})
        assert bad.status == 400
        assert (await system.request("POST", path, headers=AUTH)).status == 405


async def test_watchers_are_bounded(tmp_path: Path) -> None:
    async with systems(tmp_path, watchers_at_once=1) as (known, system):
        name, _ = await begin(known, system)
        async with watching(system, name) as watcher:
            await watcher.next()
            refused = await system.request("GET", f"/exec/{name}/events", headers=AUTH)
            assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        await system.api.until(lambda: system.metric("watchers") == 0)


async def test_the_result_can_be_asked_for(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, _ = await begin(known, system)
        early = await system.request("GET", f"/v1/exec/{name}", headers=AUTH)
        assert (early.status, early.json) == (202, {"session_id": name, "phase": "Running"})
        finish(known, system, name, ended("NodeLost"))
        assert (await system.request("GET", f"/exec/{name}", headers=AUTH)).status == 503
        system.api.put(names.SESSION_PLURAL, ran("r" * 21))
        found = await system.request("GET", f"/exec/{'r' * 21}", headers=AUTH)
        assert (found.status, found.json["code"]) == (200, 0)


async def test_a_run_can_be_cancelled(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, _ = await begin(known, system)
        assert (await system.request("DELETE", f"/exec/{name}", headers=AUTH)).status == 202
        assert system.api.objects[names.SESSION_PLURAL, name]["spec"]["cancel"] is True
        assert (await system.request("DELETE", f"/exec/{'q' * 21}", headers=AUTH)).status == 404
        assert (await system.request("DELETE", f"/exec/{name}")).status == 401


async def test_a_handed_in_run_outlives_its_front_end(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        name, _ = await begin(known, system)
        system.services.stop()
        await asyncio.sleep(0.2)
        assert "cancel" not in system.api.objects[names.SESSION_PLURAL, name]["spec"]


@pytest.mark.parametrize("status", [422, 503])
async def test_a_run_that_cannot_be_handed_in(tmp_path: Path, status: int) -> None:
    async with systems(tmp_path, create_seconds=0.2) as (_, system):
        system.api.post_statuses = [status] * 50
        reply = await system.request(
            "POST", "/exec", {"lang": "py", "code": "x"}, AUTH | {"Prefer": "respond-async"}
        )
        assert reply.status == (400 if status == 422 else 503)


async def test_slow_answers_name_their_session_early() -> None:
    async with running(heartbeat_after_seconds=0.05) as system:
        call = system.start_exec()
        session = await system.api.created()
        await asyncio.sleep(0.2)
        system.api.finish(session["metadata"]["name"], succeeded("1\n"))
        reply = await call
        assert reply.spaces
        assert reply.headers["kcr-session-id"] == session["metadata"]["name"] == reply.json["session_id"]


async def test_operators_with_another_key_tell_nothing(tmp_path: Path) -> None:
    async with systems(tmp_path) as (known, system):
        (tmp_path / "other").write_text("another-key-for-the-relay")
        async with beside(system, relay_url=known.url, relay_key_file=tmp_path / "other") as stranger:
            question = Question("kubecoderun", "n", "u", wait_seconds=0.1)
            known.runs["u"] = FakeRun(b"secret")
            assert await stranger.services.relay.look(question) is None
            assert await system.services.relay.look(question) is not None

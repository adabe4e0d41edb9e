"""The relay: front ends ask the operator what a program has written so far."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contract.fakes.store import Json
from contract.fakes.system import NAMESPACE, System, operating, system
from contract.fakes_api.program import free_port
from kubecoderun_crds.relay import HEADER, Glance, Question, RelayError, key_of, signature
from kubecoderun_operator import relay
from kubecoderun_operator.app import App
from kubecoderun_operator.health import Health

KEY = "0123456789abcdef-relay"


def question(session: Json, **more: Any) -> Question:
    seen = session["metadata"]
    return Question(NAMESPACE, more.pop("name", seen["name"]), more.pop("uid", seen["uid"]), **more)


async def begun(made: System, code: str) -> Json:
    """A session that the operator has seen."""
    return await known(made, made.session(code))


async def known(made: System, session: Json) -> Json:
    """The session, once the operator has seen it."""
    uid = session["metadata"]["uid"]
    await made.until(lambda: any(app.desk.run_of(uid) for app, _ in made.apps), "the session is served")
    return session


class Asker:
    """A front end that asks one operator process."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url, self._http = url, http

    async def ask(self, asked: Question, *, key: str = KEY, header: str | None = None) -> tuple[int, bytes]:
        target = asked.target()
        signed = signature(key.encode(), target, time.time()) if header is None else header
        async with self._http.get(self._url + target, headers={HEADER: signed}) as answer:
            return answer.status, await answer.read()

    async def glance(self, asked: Question) -> Glance:
        status, body = await self.ask(asked)
        assert status == 200, body
        return Glance.parse(body)


@asynccontextmanager
async def asking(app: App) -> AsyncIterator[Asker]:
    port = free_port()
    health = Health("127.0.0.1", port, app.trouble, app.role, app.relay)
    await health.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Asker(f"http://127.0.0.1:{port}", http)
        finally:
            await health.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.key"
    path.write_text(f"{KEY}\n")
    return path


async def test_output_of_a_run_in_progress(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        session = await begun(made, "print:one sleep:0.5 print:two sleep:30")
        first = await asker.glance(question(session, wait_seconds=10))
        assert (first.run, first.stdout.at, first.stdout.data) == ("running", 0, b"one")
        second = await asker.glance(question(session, stdout=3, wait_seconds=10))
        assert (second.stdout.at, second.stdout.data, second.stdout.total) == (3, b"two", 6)
        made.cancel(session)
        assert (await asker.glance(question(session, stdout=6, wait_seconds=10))).run == "finished"
        await made.ended(session)
        await made.until(
            lambda: made.apps[0][0].desk.run_of(session["metadata"]["uid"]) is None, "it is gone"
        )
        assert (await asker.ask(question(session)))[0] == 404


async def test_a_session_that_waits_for_a_pod(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool(replicas=0, maxPods=1, onEmpty={"policy": "Wait", "waitSeconds": 60})
        made.node.ready_after = 0.3
        session = await begun(made, "print:late sleep:30")
        assert (await asker.glance(question(session, wait_seconds=0.05))).run in ("waiting", "running")
        assert (await asker.glance(question(session, wait_seconds=15))).stdout.data == b"late"


async def test_runs_in_a_workspace(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        workspace = made.workspace()
        first = await known(made, made.run_in("mine", "print:one sleep:30"))
        seen = await asker.glance(question(first, wait_seconds=15))
        assert (seen.run, seen.stdout.data) == ("running", b"one")
        second = await known(made, made.run_in("mine", "print:another sleep:30"))
        assert (await asker.glance(question(second, wait_seconds=0.1))).run == "waiting"
        made.cancel(first)
        seen = await asker.glance(question(second, wait_seconds=15))
        assert (seen.run, seen.stdout.data) == ("running", b"another")
        assert (await asker.glance(question(workspace))).run == "waiting", "it runs nothing itself"


async def test_nobody_watches_nobody_asks(key_file: Path) -> None:
    """A run nobody watches costs the sidecar no call, and a watched one the API server no write."""
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        await made.ended(await begun(made, "print:one sleep:0.3"))
        assert [call for sidecar in made.node.sidecars.values() for call in sidecar.calls].count(
            "output"
        ) == 0
        watched = await begun(made, "print:one sleep:30")
        await asker.glance(question(watched, wait_seconds=10))
        await made.until(lambda: made.status(watched).get("phase") == "Running", "it is Running")
        before = made.api.store.get("executionsessions", NAMESPACE, watched["metadata"]["name"])["metadata"]
        for _ in range(5):
            await asker.glance(question(watched, stdout=3, wait_seconds=0.01))
        after = made.api.store.get("executionsessions", NAMESPACE, watched["metadata"]["name"])["metadata"]
        assert after["resourceVersion"] == before["resourceVersion"]


async def test_who_may_ask(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        session = await begun(made, "print:secret sleep:30")
        asked = question(session, wait_seconds=10)
        await asker.glance(asked)
        assert (await asker.ask(asked, key="another-key-of-16-bytes"))[0] == 401
        assert (await asker.ask(asked, header=""))[0] == 401
        assert (await asker.ask(asked, header="99999999999:00"))[0] == 401
        old = signature(KEY.encode(), asked.target(), time.time() - 200)
        assert (await asker.ask(asked, header=old))[0] == 401
        other = signature(KEY.encode(), question(session, stdout=1).target(), time.time())
        assert (await asker.ask(asked, header=other))[0] == 401, "signed for another question"
        assert (await asker.ask(question(session, name="another")))[0] == 404
        assert (await asker.ask(question(session, uid="another")))[0] == 404
        assert (await asker.ask(question(session, stdout=-1)))[0] == 400
        assert (await asker.ask(question(session, wait_seconds=21)))[0] == 400


async def test_questions_about_one_run_are_bounded(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        session = await begun(made, "print:one sleep:30")
        await asker.glance(question(session, wait_seconds=10))
        waiting = [
            asyncio.create_task(asker.ask(question(session, stdout=3, wait_seconds=1)))
            for _ in range(relay.QUESTIONS_AT_ONCE + 2)
        ]
        statuses = sorted(status for status, _ in await asyncio.gather(*waiting))
        assert statuses == [200] * relay.QUESTIONS_AT_ONCE + [429] * 2
        await asker.glance(question(session))


async def test_a_sidecar_of_an_older_release(key_file: Path) -> None:
    async with operating(relay_key_file=key_file) as made, asking(made.apps[0][0]) as asker:
        made.pool()
        await made.ready(2)
        for sidecar in made.node.sidecars.values():
            sidecar.blind = True
        session = await begun(made, "print:one sleep:0.3")
        assert (await asker.ask(question(session, wait_seconds=5)))[0] == 502
        assert (await made.ended(session))["phase"] == "Succeeded"


async def test_a_standby_serves_nothing_and_the_next_leader_goes_on(key_file: Path) -> None:
    async with system(relay_key_file=key_file) as made:
        leader = await made.start()
        standby = await made.start(wait=False)
        made.pool()
        await made.ready(2)
        session = await begun(made, "print:one sleep:30")
        async with asking(leader) as first, asking(standby) as second:
            await first.glance(question(session, wait_seconds=10))
            assert (await second.ask(question(session)))[0] == 404
            await made.stop(leader)
            await asyncio.wait_for(standby.ready.wait(), 15)
            assert (await second.glance(question(session, wait_seconds=10))).stdout.data == b"one"


async def test_without_a_key_there_is_no_relay(made_without_key: System) -> None:
    async with asking(made_without_key.apps[0][0]) as asker:
        session = {"metadata": {"name": "any", "uid": "any"}}
        assert (await asker.ask(question(session)))[0] == 404
        assert made_without_key.apps[0][0].relay is None


@pytest.fixture
async def made_without_key() -> AsyncIterator[System]:
    async with operating() as made:
        yield made


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(RelayError, match="16 characters"):
        key_of("abc\n")

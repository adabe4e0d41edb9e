"""The fault proxy by itself, in front of a few lines that play an API server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from faults.plan import EventFault, Match, Plan, RequestFault, Rule
from faults.proxy import FaultProxy


@dataclass
class Upstream:
    """Counts what reaches it, and tells its watches what it is given."""

    url: str = ""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    queues: list[asyncio.Queue[bytes | None]] = field(default_factory=list)

    def tell(self, *names: str) -> None:
        for queue in self.queues:
            for name in names:
                event = {"type": "ADDED", "object": {"metadata": {"name": name}}}
                queue.put_nowait(json.dumps(event).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.raw_path, await request.read()))
        self.tokens.add(request.headers.get("Authorization", ""))
        if "watch" not in request.query:
            return web.json_response({"number": len(self.seen)}, status=201, headers={"X-Kept": "yes"})
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.queues.append(queue)
        while (line := await queue.get()) is not None:
            await response.write(line)
        return response


@asynccontextmanager
async def proxied(*rules: Rule, token: str = "") -> AsyncIterator[tuple[Upstream, FaultProxy, "Client"]]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with (
        FaultProxy(upstream.url, token=token, plan=Plan(1, rules)).serving() as proxy,
        aiohttp.ClientSession() as session,
    ):
        yield upstream, proxy, Client(proxy, session)
        for queue in upstream.queues:
            queue.put_nowait(None)
    await runner.cleanup()


@dataclass
class Client:
    """What a program behind the proxy does."""

    proxy: FaultProxy
    session: aiohttp.ClientSession

    async def send(self, method: str = "POST", path: str = "/pods?x=%2F", seconds: float = 3.0) -> int:
        limit = aiohttp.ClientTimeout(total=seconds)
        async with self.session.request(method, self.proxy.url + path, data=b"body", timeout=limit) as answer:
            await answer.read()
            return answer.status

    @asynccontextmanager
    async def watch(self, upstream: Upstream) -> AsyncIterator["Watching"]:
        async with self.session.get(f"{self.proxy.url}/pods?watch=true") as response:
            async with asyncio.timeout(2):
                while not upstream.queues:  # noqa: ASYNC110 - the other side's own state
                    await asyncio.sleep(0.005)
            yield Watching(response)


@dataclass
class Watching:
    """An open watch."""

    response: aiohttp.ClientResponse

    async def names(self, count: int, seconds: float = 2.0) -> list[str]:
        """The names in the next events; ends early when the watch does. ERROR events are told by code."""
        found: list[str] = []
        async with asyncio.timeout(seconds):
            while len(found) < count and (line := await self.response.content.readline()):
                thing = json.loads(line)["object"]
                found.append(str(thing.get("code") or thing["metadata"]["name"]))
        return found


# --- requests -----------------------------------------------------------------------------------------


async def test_without_faults_everything_passes_as_it_is() -> None:
    async with proxied(token="secret") as (upstream, proxy, client):
        url = URL(f"{proxy.url}/pods?x=%2F", encoded=True)
        async with client.session.post(url, data=b"body") as answer:
            assert (answer.status, answer.headers["X-Kept"]) == (201, "yes")
            assert await answer.json() == {"number": 1}
        assert upstream.seen == [("POST", "/pods?x=%2F", b"body")]
        assert upstream.tokens == {"Bearer secret"}
        assert [(method, path) for _, method, path in proxy.writes] == [("POST", "/pods")]


@pytest.mark.parametrize(("status", "retry_after"), [(409, None), (410, None), (429, 3), (500, None)])
async def test_refusals(status: int, retry_after: int | None) -> None:
    rule = Rule(RequestFault.REFUSE, status=status, retry_after=retry_after)
    async with proxied(rule) as (upstream, proxy, client):
        async with client.session.post(f"{proxy.url}/pods") as answer:
            assert answer.status == status
            assert answer.headers.get("Retry-After") == (str(retry_after) if retry_after else None)
            body = await answer.json()
            assert (body["kind"], body["code"]) == ("Status", status)
        assert upstream.seen == []


async def test_a_reset_reaches_nobody() -> None:
    async with proxied(Rule(RequestFault.RESET)) as (upstream, _, client):
        with pytest.raises(aiohttp.ClientError):
            await client.send()
        assert upstream.seen == []


async def test_a_lost_answer_is_carried_out() -> None:
    async with proxied(Rule(RequestFault.LOSE, most=1)) as (upstream, _, client):
        with pytest.raises(aiohttp.ClientError):
            await client.send()
        assert len(upstream.seen) == 1
        assert await client.send() == 201


async def test_an_answer_that_comes_after_the_clients_patience() -> None:
    async with proxied(Rule(RequestFault.LOSE, seconds=(5, 5))) as (upstream, _, client):
        with pytest.raises(TimeoutError):
            await client.send(seconds=0.2)
        assert len(upstream.seen) == 1


async def test_an_error_although_it_was_carried_out() -> None:
    async with proxied(Rule(RequestFault.DECEIVE, status=500)) as (upstream, _, client):
        assert await client.send() == 500
        assert len(upstream.seen) == 1


async def test_a_delay() -> None:
    async with proxied(Rule(RequestFault.DELAY, seconds=(0.3, 0.3))) as (_, _, client):
        began = time.monotonic()
        assert await client.send() == 201
        assert time.monotonic() - began >= 0.3


async def test_a_late_request_of_a_client_that_has_left_is_not_carried_out() -> None:
    """Otherwise a killed process would go on writing."""
    async with proxied(Rule(RequestFault.DELAY, seconds=(0.3, 0.3))) as (upstream, _, client):
        with pytest.raises(TimeoutError):
            await client.send(seconds=0.1)
        await asyncio.sleep(0.4)
        assert upstream.seen == []


async def test_a_rule_is_about_what_it_matches() -> None:
    rule = Rule(RequestFault.RESET, Match(methods=frozenset({"PUT"}), path="leases"))
    async with proxied(rule) as (_, _, client):
        assert await client.send("PUT", "/pods") == 201
        assert await client.send("GET", "/leases") == 201
        with pytest.raises(aiohttp.ClientError):
            await client.send("PUT", "/leases")


async def test_frozen_nothing_passes_until_it_thaws() -> None:
    async with proxied() as (upstream, proxy, client), client.watch(upstream) as watching:
        proxy.freeze()
        waiting = asyncio.create_task(client.send())
        upstream.tell("a")
        with pytest.raises(TimeoutError):
            await watching.names(1, seconds=0.2)
        assert not waiting.done()
        assert len(upstream.seen) == 1, "only the watch"
        proxy.thaw()
        assert await waiting == 201
        assert await watching.names(1) == ["a"]


# --- events -------------------------------------------------------------------------------------------


async def events(rule: Rule, count: int) -> list[str]:
    """What a client gets to see of a, b and c."""
    async with proxied(rule) as (upstream, _, client), client.watch(upstream) as watching:
        upstream.tell("a", "b", "c")
        return await watching.names(count)


async def test_events_pass_in_their_order() -> None:
    assert await events(Rule(EventFault.DROP, share=0.0), 3) == ["a", "b", "c"]


async def test_a_dropped_event() -> None:
    assert await events(Rule(EventFault.DROP, most=1), 2) == ["b", "c"]


async def test_a_repeated_event() -> None:
    assert await events(Rule(EventFault.REPEAT, most=1), 4) == ["a", "a", "b", "c"]


async def test_swapped_events() -> None:
    assert await events(Rule(EventFault.SWAP, most=1, seconds=(5, 5)), 3) == ["b", "a", "c"]


async def test_an_event_that_nothing_follows_is_kept_back_for_a_while() -> None:
    rule = Rule(EventFault.SWAP, seconds=(0.2, 0.2))
    async with proxied(rule) as (upstream, _, client), client.watch(upstream) as watching:
        upstream.tell("a")
        began = time.monotonic()
        assert await watching.names(1) == ["a"]
        assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize(("fault", "code"), [(EventFault.GONE, "410"), (EventFault.ERROR, "500")])
async def test_a_watch_that_ends_with_an_error(fault: EventFault, code: str) -> None:
    assert await events(Rule(fault, most=1), 3) == [code]


async def test_a_watch_that_is_cut() -> None:
    with pytest.raises(aiohttp.ClientError):
        await events(Rule(EventFault.CUT, most=1), 3)


async def test_delays_do_not_add_up() -> None:
    rule = Rule(EventFault.DELAY, seconds=(0.5, 0.5))
    async with proxied(rule) as (upstream, _, client), client.watch(upstream) as watching:
        began = time.monotonic()
        upstream.tell("a", "b", "c")
        assert await watching.names(3) == ["a", "b", "c"]
        assert 0.48 <= time.monotonic() - began < 1.4


async def test_cutting_by_hand() -> None:
    async with proxied() as (upstream, proxy, client), client.watch(upstream) as watching:
        proxy.cut()
        with pytest.raises(aiohttp.ClientError):
            await watching.names(1)

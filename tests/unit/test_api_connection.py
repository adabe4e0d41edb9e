"""The hang-up policy as decisions, and carried out on a made-up connection."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_api.answers import Answer, own_fault
from kubecoderun_api.connection import Exchange, ExecResponse, HangUpPolicy

SECONDS = st.floats(0, 1000)
ON = HangUpPolicy(heartbeat=True, heartbeat_after=2.0, heartbeat_every=1.5, close_connections=True)
OFF = HangUpPolicy(heartbeat=False, heartbeat_after=2.0, heartbeat_every=1.5, close_connections=False)
QUICK = HangUpPolicy(heartbeat=True, heartbeat_after=0.05, heartbeat_every=0.03, close_connections=True)


@given(SECONDS, st.none() | SECONDS)
def test_the_next_space(since_request: float, since_space: float | None) -> None:
    wait = ON.next_space(since_request, since_space)
    assert wait is not None
    if since_space is None:
        assert since_request + wait == pytest.approx(2.0)
    else:
        assert since_space + wait == pytest.approx(1.5)
    assert OFF.next_space(since_request, since_space) is None


@given(st.integers(100, 599), st.sampled_from(["/exec", "/exec/programmatic", "/executable", "/health", "/"]))
def test_which_connections_are_closed(status: int, path: str) -> None:
    kept = path in ("/exec", "/exec/programmatic") and 200 <= status < 300
    assert ON.closes(path, status) is not kept
    assert OFF.closes(path, status) is False


class Peer:
    """The client's side of one ASGI call."""

    def __init__(self, leaves_after: float | None = None) -> None:
        self.leaves_after = leaves_after
        self.messages: list[Any] = []

    async def receive(self) -> Any:
        await asyncio.sleep(1000 if self.leaves_after is None else self.leaves_after)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])


async def respond(peer: Peer, seconds: float, answer: Answer) -> tuple[Exchange, list[asyncio.Task[Answer]]]:
    async def run() -> Answer:
        await asyncio.sleep(seconds)
        return answer

    async def on_left(task: asyncio.Task[Answer]) -> None:
        left.append(task)
        task.cancel()

    exchange, left = Exchange(), []
    response = ExecResponse(
        run(),
        session="s",
        requested_at=asyncio.get_running_loop().time(),
        policy=QUICK,
        exchange=exchange,
        on_late=lambda: None,
        on_left=on_left,
    )
    await response({"type": "http"}, peer.receive, peer.send)
    return exchange, left


GOOD = Answer(200, {"stdout": "x"}, "Succeeded")


async def test_an_answer_in_time() -> None:
    peer = Peer()
    exchange, left = await respond(peer, 0.0, GOOD)
    assert (exchange, left) == (Exchange(), [])
    assert [message["type"] for message in peer.messages] == ["http.response.start", "http.response.body"]
    assert (b"content-length", b"14") in peer.messages[0]["headers"]
    assert json.loads(peer.body) == {"stdout": "x"}


async def test_an_error_in_time_has_its_status_and_headers() -> None:
    peer = Peer()
    await respond(peer, 0.0, Answer(429, {"error": "rate_limited"}, "r", "t", {"retry-after": "3"}))
    assert peer.messages[0]["status"] == 429
    assert (b"retry-after", b"3") in peer.messages[0]["headers"]


async def test_an_answer_too_late_for_silence() -> None:
    peer = Peer()
    exchange, _ = await respond(peer, 0.13, GOOD)
    assert exchange.late
    assert peer.messages[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"kcr-session-id", b"s")],
    }
    assert peer.body.startswith(b" ")
    assert json.loads(peer.body) == {"stdout": "x"}
    assert [message["more_body"] for message in peer.messages[1:]] == [True] * (len(peer.messages) - 2) + [
        False
    ]


async def test_a_late_error_is_a_200() -> None:
    peer = Peer()
    await respond(peer, 0.08, own_fault("ShuttingDown"))
    assert peer.messages[0]["status"] == 200
    assert json.loads(peer.body)["stderr"] == "[kubecoderun] The service is shutting down.\n"


@pytest.mark.parametrize("after", [0.01, 0.1])
async def test_a_client_that_leaves(after: float) -> None:
    peer = Peer(leaves_after=after)
    exchange, left = await respond(peer, 10, GOOD)
    assert exchange.left_after is not None
    assert after <= exchange.left_after + 0.005
    assert exchange.left_after < 5
    assert len(left) == 1
    assert all(message.get("more_body", True) for message in peer.messages)


async def test_cancelling_the_response_cancels_the_run() -> None:
    ended = asyncio.Event()

    async def run() -> Answer:
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        raise AssertionError

    response = ExecResponse(
        run(),
        session="s",
        requested_at=0.0,
        policy=OFF,
        exchange=Exchange(),
        on_late=lambda: None,
        on_left=lambda task: asyncio.sleep(0),
    )
    peer = Peer()
    task = asyncio.create_task(response({"type": "http"}, peer.receive, peer.send))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.wait_for(ended.wait(), 1)

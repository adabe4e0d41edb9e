"""The sidecar as the operator sees it: over TCP, with an honest runner on the socket."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from contract.fakes_sidecar.client import POD_UID, SESSION, job, start
from contract.fakes_sidecar.harness import sidecar
from contract.fakes_sidecar.runner import FakeRunner, frame
from kubecoderun_sidecar import routes, server
from kubecoderun_sidecar.protocol import Finished, Heartbeat, Signer, Started


async def hello_world(runner: FakeRunner) -> None:
    await runner.run(b"1\n")


async def test_a_probe_waits_for_a_runtime_that_gets_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sidecar(tmp_path) as pod:
        monkeypatch.setattr(routes, "READY_SECONDS", 0.1)
        assert (await pod.client().raw("GET", "/readyz", b"", {})).status == 503
        monkeypatch.setattr(routes, "READY_SECONDS", 60.0)
        probe = asyncio.create_task(pod.client().raw("GET", "/readyz", b"", {}))
        await asyncio.sleep(0.1)
        assert not probe.done()
        await pod.play(hello_world)
        async with asyncio.timeout(10):
            assert (await probe).status == 200


async def test_a_run_from_ready_to_finished(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        early = pod.client()
        assert (await early.raw("GET", "/healthz", b"", {})).status == 200
        client = await pod.play(hello_world)
        assert (await client.raw("GET", "/readyz", b"", {})).status == 200
        assert (await client.request("GET", "/v1/state")).json == {
            "owner": None,
            "epoch": 1,
            "run": None,
            "runtime": "warm",
            "protocol": "1.1",
            "reserved": False,
            "started": 0,
        }
        body = job("print(1)", stdin="in", args=("a", "b"), env={"X": "y"}, timeout=7)
        prepared = await client.request("POST", "/v1/prepare", body)
        assert (prepared.status, prepared.json) == (200, {"state": "prepared"})
        assert (await client.request("GET", "/v1/state")).json["run"] == "prepared"
        assert pod.runner.code == b"print(1)"
        assert pod.runner.stdin == b"in"
        assert pod.runner.job == {
            "language": "py",
            "args": ["a", "b"],
            "env": {"X": "y"},
            "timeoutSeconds": 7,
            "stdinBytes": 2,
            "codeBytes": 8,
            "inputs": 0,
            "inputBytes": 0,
            "files": {"count": 0, "bytes": 1 << 30, "totalBytes": 1 << 30},
            "outputBytes": 0,
            "tools": [],
        }
        assert pod.runner.goes == 0, "prepare starts nothing"
        events = [event async for event in client.stream(start())]
        assert [type(event) for event in events] == [Started, Finished]
        result = events[-1].result if isinstance(events[-1], Finished) else None
        assert result is not None
        assert (result.reason, result.exit_code, result.stdout.text) == ("Succeeded", 0, "1\n")
        assert (result.stored, result.stored_at, result.store_error) == (False, None, None)
        assert result.started_at is not None
        assert result.started_at <= result.finished_at
        state = (await client.request("GET", "/v1/state")).json
        assert state["owner"] == {"kind": "session", "uid": SESSION}
        assert state["run"] == "finished"
        assert (await client.raw("GET", "/readyz", b"", {})).status == 200
        assert client.connections == 1, "everything went over one connection"


async def test_repeating_is_harmless(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        others = [pod.client() for _ in range(3)]
        answers = await asyncio.gather(*(c.request("POST", "/v1/prepare", job()) for c in [client, *others]))
        assert {answer.status for answer in answers} == {200}
        results = await asyncio.gather(*(c.result() for c in [client, *others]))
        assert pod.runner.goes == 1
        assert all(result == results[0] for result in results)
        assert await client.result() == results[0], "also after the end"
        assert (await client.request("POST", "/v1/prepare", job())).status == 200
        assert pod.runner.goes == 1


async def test_a_pod_has_one_owner_for_life(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        await client.request("POST", "/v1/prepare", job())
        for path, body in (
            ("/v1/prepare", job(session="other")),
            ("/v1/start", start()),
            ("/v1/cancel", b"{}"),
            ("/v1/retire", b"{}"),
        ):
            answer = await client.request("POST", path, body, session="other")
            assert answer.status == 409
            assert answer.json["error"] == "bound"
            assert answer.json["owner"] == {"kind": "session", "uid": SESSION}
        assert (await client.request("POST", "/v1/retire", b"{}")).status == 409, "not even its own session"
        assert (await client.result()).reason == "Succeeded"
        assert (await client.request("POST", "/v1/retire", b"{}", session="other")).status == 409


async def test_a_retired_pod_serves_nobody(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        for _ in range(2):
            assert (await client.request("POST", "/v1/retire", b"{}", session=POD_UID)).status == 200
        answer = await client.request("POST", "/v1/prepare", job())
        assert (answer.status, answer.json["owner"]) == (409, {"kind": "retired", "uid": POD_UID})
        assert (await client.request("POST", "/v1/retire", b"{}", session="another")).status == 200


async def test_order_is_enforced(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        early = pod.client()
        answer = await early.request("POST", "/v1/prepare", job())
        assert (answer.status, answer.json["error"]) == (503, "not_warm")
        assert (await early.request("GET", "/v1/state")).json["owner"] is None, "a refusal does not bind"
        client = await pod.play(hello_world)
        for path in ("/v1/start", "/v1/cancel"):
            answer = await client.request("POST", path, b"{}")
            assert (answer.status, answer.json["error"]) == (409, "not_prepared")
        answer = await client.request("POST", "/v1/prepare", job(language="cobol"))
        assert (answer.status, answer.json["error"]) == (422, "language_unavailable")
        assert (await client.request("GET", "/v1/state")).json["owner"] is None


async def test_epochs_only_rise(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        assert (await client.request("POST", "/v1/prepare", job(), epoch=5)).status == 200
        answer = await client.request("POST", "/v1/start", start(), epoch=4)
        assert (answer.status, answer.json["error"], answer.json["epoch"]) == (412, "stale_epoch", 5)
        refused = await client.request("POST", "/v1/prepare", job(session="other"), session="other", epoch=6)
        assert refused.status == 409
        assert (await client.request("GET", "/v1/state", epoch=5)).status == 412, "any request raises it"
        assert (await client.result(epoch=6)).reason == "Succeeded"


@pytest.mark.parametrize(
    "changes", [{"pod_uid": "another pod"}, {"expires": -40}, {"expires": 100}], ids=["pod", "old", "ahead"]
)
async def test_unsigned_and_badly_signed_requests(tmp_path: Path, changes: dict[str, object]) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        for path in ("/v1/prepare", "/v1/start", "/v1/cancel", "/v1/retire"):
            assert (await client.raw("POST", path, b"{}", {})).status == 401
            answer = await client.request("POST", path, b"{}", **changes)
            assert (answer.status, answer.json["error"]) == (401, "unauthorized")
        assert (await client.raw("GET", "/v1/state", b"", {})).status == 401
        assert (await client.request("GET", "/v1/state")).json["owner"] is None


async def test_a_signature_fits_one_body_and_one_path(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        headers = client.signature("POST", "/v1/prepare", job("print(1)"))
        assert (await client.raw("POST", "/v1/prepare", job("print(2)"), headers)).status == 401
        assert (await client.raw("POST", "/v1/retire", job("print(1)"), headers)).status == 401
        for _ in range(2):
            assert (await client.raw("POST", "/v1/prepare", job("print(1)"), headers)).status == 200
        assert pod.runner.code == b"print(1)"


async def test_two_keys_while_rotating(tmp_path: Path) -> None:
    old, new, stranger = Signer(b"o" * 32), Signer(b"n" * 32), Signer(b"x" * 32)
    async with sidecar(tmp_path, keys=(old.public_key, new.public_key)) as pod:
        for signer, status in ((old, 200), (new, 200), (stranger, 401)):
            assert (await pod.client(signer).request("GET", "/v1/state")).status == status


async def test_the_signed_session_is_the_prepared_one(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        answer = await client.request("POST", "/v1/prepare", job(session="other"))
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
        assert (await client.request("GET", "/v1/state")).json["owner"] is None


async def test_bad_bodies_name_the_field_and_do_not_bind(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = await pod.play(hello_world)
        body = json.loads(job())
        body["limits"]["outputBytes"] = 1
        answer = await client.request("POST", "/v1/prepare", json.dumps(body).encode())
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
        assert "prepare.limits.outputBytes" in answer.json["message"]
        assert (await client.request("POST", "/v1/prepare", b"\xff")).status == 400
        assert (await client.request("GET", "/v1/state")).json["owner"] is None


async def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        client = pod.client()
        assert (await client.request("GET", "/v1/other")).status == 404
        assert (await client.request("GET", "/v1/state?x=1")).status == 404
        assert (await client.request("GET", "/v1/start")).status == 405
        assert (await client.request("POST", "/healthz")).status == 404


async def test_a_reader_that_leaves_does_not_stop_the_run(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def slow(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"), frame("O", b"begun\n"))
        await go_on.wait()
        await runner.finish(b"done\n")

    async with sidecar(tmp_path) as pod:
        client = await pod.play(slow)
        await client.request("POST", "/v1/prepare", job())
        async for event in client.stream(start()):
            assert isinstance(event, Started)
            break
        client.close()
        again = pod.client()
        assert (await again.request("GET", "/v1/state")).json["run"] == "running"
        waiting = asyncio.create_task(again.result())
        await asyncio.sleep(0.05)
        go_on.set()
        result = await waiting
        assert (result.reason, result.stdout.text) == ("Succeeded", "begun\ndone\n")
        assert pod.runner.goes == 1
        async with asyncio.timeout(5):
            await pod.routes.quiet.wait()


async def test_heartbeats_come_while_nothing_happens(tmp_path: Path) -> None:
    async def slow(runner: FakeRunner) -> None:
        await runner.warm_up()
        await runner.prepare()
        await runner.send(frame("S"))
        await asyncio.sleep(2.3)
        await runner.finish()

    async with sidecar(tmp_path) as pod:
        client = await pod.play(slow)
        await client.request("POST", "/v1/prepare", job())
        events = [type(event) async for event in client.stream(start())]
        assert events == [Started, Heartbeat, Heartbeat, Finished]


# ---- what strangers may send


async def talk(port: int, data: bytes, wait: float = 5) -> bytes:
    """Send bytes, and read until the sidecar hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(wait):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 8000 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00nonsense\r\n\r\n", 400),
        (b"GET /h\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
    ids=[
        "big",
        "huge",
        "endless",
        "negative",
        "chunked",
        "long header",
        "many headers",
        "no host",
        "tls",
        "not ascii",
    ],
)
async def test_what_is_too_much_or_no_http_is_refused(
    tmp_path: Path, request_head: bytes, status: int
) -> None:
    async with sidecar(tmp_path) as pod:
        answer = await talk(pod.port, request_head)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:80]
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


async def test_an_answer_survives_a_body_that_is_not_read(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        body = b"x" * 1_500_000
        head = b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await talk(pod.port, head + body)).startswith(b"HTTP/1.1 413 ")


async def test_slow_requests_and_silent_strangers_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    async with sidecar(tmp_path) as pod:
        assert await talk(pod.port, b"") == b""
        assert await talk(pod.port, b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Le") == b""
        assert (
            await talk(pod.port, b"GET /v1/state HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab") == b""
        )
        client = pod.client()
        await client.raw("GET", "/healthz", b"", {})
        await asyncio.sleep(0.4)
        await client.request("GET", "/v1/state")
        assert client.connections == 1, "a connection may be opened ahead of its use"


async def test_a_crowd_of_operators_leaves_room_for_the_next(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        clients = [pod.client() for _ in range(server.MAX_CONNECTIONS + 3)]
        for client in clients:
            assert (await client.request("GET", "/v1/state")).status == 200
        assert len(pod.server._connections) <= server.MAX_CONNECTIONS
        await clients[-1].request("GET", "/v1/state")
        assert clients[-1].connections == 1, "the longest idle ones went"


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        second = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await talk(pod.port, first + second)
        assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 503")


async def test_strangers_cannot_crowd_out_the_operator(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        operator = pod.client()
        await operator.request("GET", "/v1/state")
        strangers = [await asyncio.open_connection("127.0.0.1", pod.port) for _ in range(100)]
        await asyncio.sleep(0.1)
        await operator.request("GET", "/v1/state")
        assert operator.connections == 1
        assert (await pod.client().request("GET", "/v1/state")).status == 200
        assert len(pod.server._connections) <= server.MAX_CONNECTIONS
        for _reader, writer in strangers:
            writer.transport.abort()


async def test_large_bodies_share_a_bounded_memory(tmp_path: Path) -> None:
    head = b"POST /v1/prepare HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"
    async with sidecar(tmp_path) as pod:
        held = [await asyncio.open_connection("127.0.0.1", pod.port) for _ in range(4)]
        for _reader, writer in held:
            writer.write(head)
        await asyncio.sleep(0.1)
        assert (await talk(pod.port, head)).startswith(b"HTTP/1.1 503 ")
        assert (await pod.client().request("GET", "/v1/state")).status == 200
        for _reader, writer in held:
            writer.transport.abort()
        await asyncio.sleep(0.1)
        assert pod.server.large_bodies == 0


async def test_a_reader_that_reads_nothing_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.2)
    async with sidecar(tmp_path) as pod:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", pod.port))
            sock.setblocking(False)
            while not pod.server._connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            (connection,) = pod.server._connections
            buffered = connection._writer.get_extra_info("socket")
            buffered.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
            try:
                for _ in range(2000):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, request), 0.5)
            except (ConnectionError, TimeoutError):
                pass
            for _ in range(200):
                if not pod.server._connections:
                    break
                await asyncio.sleep(0.02)
            assert not pod.server._connections


async def test_connection_close_is_honoured(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        answer = await talk(pod.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await talk(pod.port, b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_expect_continue(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as pod:
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
        writer.write(
            b"POST /v1/retire HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(b"{}")
        assert b" 401 " in await reader.read()
        writer.close()

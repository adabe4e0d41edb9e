"""Code from the store and results to it, over a store that fails in every way."""

import asyncio
import hashlib
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from contract.fakes.silent import SilentAddress
from contract.fakes_sidecar.client import job
from contract.fakes_sidecar.harness import sidecar
from contract.fakes_sidecar.runner import FakeRunner, Script
from contract.fakes_sidecar.store import FakeStore, Respond, fake_store, head, resets, says, silence, status
from kubecoderun_sidecar import exchange, transfer
from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.protocol import StoredCode
from kubecoderun_sidecar.transfer import Store, TransferError, whole

CODE = b"print('hello')\n" * 5000
SHA = hashlib.sha256(CODE).hexdigest()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(exchange, "IDLE_SECONDS", 0.3)


async def fetch(store: FakeStore, data: bytes = CODE, sha256: str = "") -> bytes:
    """Fetch the object `code`, promised to be `data`."""
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return await everything(Store().fetch(store.url("code"), len(data), digest))


async def everything(chunks: AsyncGenerator[Data]) -> bytes:
    return b"".join([bytes(chunk) async for chunk in chunks])


async def put(store: FakeStore, data: bytes) -> None:
    await Store().put(store.url("result.json"), len(data), lambda: whole(data), "text/plain")


async def failure(store: FakeStore, data: bytes = CODE, sha256: str = "") -> TransferError:
    with pytest.raises(TransferError) as caught:
        await fetch(store, data, sha256)
    for word in ("s3cr3t", "http", "127.0.0.1"):
        assert word not in str(caught.value), "an error never holds a URL"
    return caught.value


def half(data: bytes) -> Respond:
    """A download that breaks off in the middle."""
    return says(head(200, len(data)) + data[: len(data) // 2])


@pytest.mark.parametrize("size", [0, 1, 65536, 200_000])
async def test_fetch_and_put(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with fake_store() as store:
        await put(store, data)
        assert store.objects["result.json"] == data
        (call,) = store.calls
        assert call.target == "/result.json?X-Amz-Signature=s3cr3t"
        assert call.headers["host"] == store.base.removeprefix("http://")
        assert (call.headers["content-length"], call.headers["content-type"]) == (str(size), "text/plain")
        store.objects["code"] = data
        assert await fetch(store, data) == data
        assert len(store.calls) == 2


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503),
        status(429),
        resets(),
        says(b""),
        says(b"SSH-2.0-x\r\n\r\n"),
        silence(),
        half(CODE),
    ],
    ids=["500", "503", "429", "reset", "eof", "no http", "silence", "half"],
)
async def test_a_passing_fault_is_survived(fault: Respond) -> None:
    async with fake_store() as store:
        store.objects["code"] = CODE
        store.faults = [fault, fault]
        assert await fetch(store) == CODE


@pytest.mark.parametrize(
    "fault",
    [status(500), status(408), resets(), says(b""), says(b"SSH-2.0-x\r\n\r\n"), silence()],
    ids=["500", "408", "reset", "eof", "no http", "silence"],
)
async def test_a_passing_fault_of_an_upload_is_survived(fault: Respond) -> None:
    async with fake_store() as store:
        store.faults = [fault, fault]
        await put(store, CODE)
        assert store.objects["result.json"] == CODE


async def test_a_broken_download_goes_on_where_it_stopped() -> None:
    async with fake_store() as store:
        store.objects["code"] = CODE
        store.faults = [half(CODE)]
        assert await fetch(store) == CODE
        assert store.calls[1].headers["range"] == f"bytes={len(CODE) // 2}-"


async def test_a_store_without_ranges_is_read_from_the_start_again() -> None:
    async with fake_store() as store:
        store.faults = [half(CODE), says(head(200, len(CODE)) + CODE)]
        assert await fetch(store) == CODE


async def test_another_range_than_asked_for_is_refused() -> None:
    async with fake_store() as store:
        store.faults = [half(CODE), says(head(206, 5, "Content-Range: bytes 1-5/9\r\n") + b"abcde")]
        assert (await failure(store)).error == "store_unavailable"


@pytest.mark.parametrize(
    "fault", [status(500), resets(), silence(), half(CODE)], ids=["500", "reset", "silence", "half"]
)
async def test_retries_are_bounded(fault: Respond) -> None:
    async with fake_store() as store:
        store.faults = [fault] * 100
        error = await failure(store)
        assert error.error == "store_unavailable"
        assert len(store.calls) == 4


async def test_retries_of_an_upload_are_bounded() -> None:
    async with fake_store() as store:
        store.faults = [status(503)] * 100
        with pytest.raises(TransferError, match="status 503") as caught:
            await put(store, b"x")
        assert caught.value.error == "store_unavailable"
        assert len(store.calls) == 4


async def test_nobody_listens() -> None:
    async with fake_store() as store:
        gone = store.base
    store.base = gone
    assert "ConnectionRefusedError" in (await failure(store)).message


def test_a_store_that_is_not_there_is_told_of_within_five_seconds() -> None:
    """A run waits once for its inputs, or once for its files and then for three more and its result."""
    assert transfer.UNREACHED_SECONDS + 4 * transfer._STILL_UNREACHED_SECONDS < 4.5
    assert exchange.CONNECT_SECONDS < transfer.UNREACHED_SECONDS


async def test_a_store_that_takes_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the attempts nor their own time limits bound it, but one bound for all of them."""
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.01,) * 10_000)
    monkeypatch.setattr(transfer, "UNREACHED_SECONDS", 0.5)
    monkeypatch.setattr(transfer, "CONNECT_SECONDS", 60.0)
    silent = SilentAddress()
    try:
        async with fake_store() as store:
            store.base = f"http://127.0.0.1:{silent.port}"
            error = await asyncio.wait_for(failure(store), 20)
            assert (error.error, error.message) == ("store_unavailable", "the store takes no connection")
            assert error.lasting
    finally:
        silent.close()


async def test_a_store_that_comes_back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", (0.05,) * 1000)
    monkeypatch.setattr(transfer, "UNREACHED_SECONDS", 30.0)
    async with fake_store() as first:
        port = int(first.base.rpartition(":")[2])
    store = FakeStore()
    store.base = first.base
    store.objects["code"] = CODE
    fetching = asyncio.create_task(fetch(store))
    await asyncio.sleep(0.2)
    assert not fetching.done()
    async with await asyncio.start_server(store.serve, "127.0.0.1", port):
        assert await asyncio.wait_for(fetching, 20) == CODE


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (404, "object_unavailable"),
        (410, "object_unavailable"),
        (403, "store_unavailable"),
        (400, "store_unavailable"),
        (204, "store_unavailable"),
        (206, "store_unavailable"),
    ],
)
async def test_a_definite_refusal_is_not_repeated(code: int, error: str) -> None:
    async with fake_store() as store:
        store.faults = [status(code)]
        assert (await failure(store)).error == error
        assert len(store.calls) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_redirects_are_not_followed(code: int) -> None:
    async with fake_store() as store, fake_store() as elsewhere:
        elsewhere.objects["code"] = CODE
        store.faults = [status(code, f"Location: {elsewhere.url('code')}\r\n")] * 2
        assert (await failure(store)).error == "store_unavailable"
        with pytest.raises(TransferError):
            await put(store, b"x")
        assert elsewhere.calls == []


@pytest.mark.parametrize(
    "answer",
    [
        says(head(200, len(CODE) + 1) + CODE + b"x"),
        says(head(200, len(CODE) - 1) + CODE[1:]),
        says(head(200, len(CODE)) + b"X" + CODE[1:]),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\npr\r\n0\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + CODE + b"x" * 100),
    ],
    ids=["longer", "shorter", "other bytes", "ends early", "no length"],
)
async def test_another_object_than_promised(answer: Respond) -> None:
    async with fake_store() as store:
        store.faults = [answer]
        assert (await failure(store)).error == "object_unavailable"
        assert len(store.calls) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/y",
        "http://",
        "nonsense",
        "http://user:pw@x/",
        "http://x:99999/",
        "http://x/é",
        "http://x/a b",
    ],
)
async def test_malformed_urls(url: str) -> None:
    with pytest.raises(TransferError, match="malformed"):
        await anext(Store().fetch(url, 1, SHA))


async def test_large_objects_flow_through_little_memory() -> None:
    size = 40 << 20
    data = bytes(size)
    digest = hashlib.sha256(data).hexdigest()

    async def zeros():  # type: ignore[no-untyped-def]
        for _ in range(size >> 16):
            yield data[:65536]

    async with fake_store() as store:
        store.objects["code"] = data
        tracemalloc.start()
        try:
            got = 0
            async for chunk in Store().fetch(store.url("code"), size, digest):
                got += len(chunk)
            peak_down = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert got == size
        assert peak_down < 4 << 20
        await Store().put(store.url("up"), size, zeros, "text/plain")
        assert len(store.objects["up"]) == size


# ---- kept connections


async def test_a_connection_is_used_again() -> None:
    async with fake_store() as store:
        keeping = Store()
        for number in range(5):
            data = CODE[number:]
            await keeping.put(store.url(f"{number}"), len(data), lambda data=data: whole(data), "text/plain")
            sha = hashlib.sha256(data).hexdigest()
            assert await everything(keeping.fetch(store.url(f"{number}"), len(data), sha)) == data
        assert (len(store.calls), store.connections) == (10, 1)
        keeping.close()
        await keeping.put(store.url("x"), 2, lambda: whole(b"{}"), "text/plain")
        assert store.connections == 2
        keeping.close()


async def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "BACKOFF_SECONDS", ())
    async with fake_store() as store:
        keeping = Store()
        for _ in range(3):
            await keeping.put(store.url("x"), 2, lambda: whole(b"{}"), "text/plain")
            # One that is closed only when the next request has been sent, and one that is known to be closed.
            store.faults = [resets()]
            await keeping.put(store.url("x"), 2, lambda: whole(b"{}"), "text/plain")
            store.keep_alive = False
            await keeping.put(store.url("x"), 2, lambda: whole(b"{}"), "text/plain")
            store.keep_alive = True
            await asyncio.sleep(0.02)
        keeping.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["close", "1.0", "no length", "chunked", "100 first"],
)
async def test_answers_of_all_kinds(answer: bytes) -> None:
    async with fake_store() as store:
        store.faults = [says(answer), says(answer)]
        client = Store()
        await client.put(store.url("x"), 2, lambda: whole(b"{}"), "text/plain")
        assert await everything(client.fetch(store.url("x"), 2, hashlib.sha256(b"ok").hexdigest())) == b"ok"
        client.close()


# ---- TLS


async def check_reused_buffer(store: FakeStore, client: Store) -> None:
    """A large object both ways, sent from one buffer that changes after each piece, as files of a run are."""
    size, count = 200_000, 60

    async def parts() -> AsyncGenerator[Data]:
        buffer = bytearray(size)
        for number in range(count):
            buffer[:] = bytes([number + 1]) * size
            yield memoryview(buffer)
            await asyncio.sleep(0)
            buffer[:] = bytes(size)

    expected = b"".join(bytes([number + 1]) * size for number in range(count))
    await client.put(store.url("large"), size * count, parts, "text/plain")
    assert store.objects["large"] == expected
    sha = hashlib.sha256(expected).hexdigest()
    assert await everything(client.fetch(store.url("large"), len(expected), sha)) == expected


async def test_a_buffer_may_be_used_again() -> None:
    async with fake_store() as store:
        client = Store()
        await check_reused_buffer(store, client)
        client.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server context for 127.0.0.1, and the CA file that vouches for it."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=store "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


async def test_tls_with_a_ca_of_its_own(tmp_path: Path) -> None:
    context, ca_file = certificate(tmp_path)
    async with fake_store(context) as store:
        store.objects["code"] = CODE
        trusting = Store(ca_file)
        assert await everything(trusting.fetch(store.url("code"), len(CODE), SHA)) == CODE
        await trusting.put(store.url("up"), 2, lambda: whole(b"{}"), "text/plain")
        calls = len(store.calls)
        error = await failure(store)
        assert (error.error, error.message) == ("store_unavailable", "the store's certificate is not trusted")
        assert len(store.calls) == calls
        await check_reused_buffer(store, trusting)
        trusting.close()
        with pytest.raises(TransferError, match="CA file cannot be read"):
            await anext(Store(str(tmp_path / "missing.pem")).fetch(store.url("code"), 1, SHA))


# ---- as part of a prepare


async def wait_for_go(runner: FakeRunner) -> None:
    await runner.warm_up()
    await runner.prepare()


async def test_a_prepare_with_stored_code(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.objects["code"] = CODE
        store.faults = [half(CODE)]
        client = await pod.play(wait_for_go)
        body = job(StoredCode(store.url("code"), len(CODE), SHA), stdin="in")
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        assert pod.runner.code == CODE
        assert pod.runner.stdin == b"in"


@pytest.mark.parametrize("size", [0, 1])
async def test_tiny_stored_code(tmp_path: Path, size: int) -> None:
    data = b"x" * size
    async with fake_store() as store, sidecar(tmp_path) as pod:
        store.objects["code"] = data
        client = await pod.play(wait_for_go)
        body = job(StoredCode(store.url("code"), size, hashlib.sha256(data).hexdigest()), stdin="in")
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        assert (pod.runner.code, pod.runner.stdin) == (data, b"in")


async def test_code_that_does_not_exist(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(wait_for_go)
        body = job(StoredCode(store.url("code"), len(CODE), SHA))
        answer = await client.request("POST", "/v1/prepare", body)
        assert (answer.status, answer.json["error"]) == (422, "code_unavailable")
        assert "s3cr3t" not in answer.body.decode()
        state = (await client.request("GET", "/v1/state")).json
        assert (state["runtime"], state["run"]) == ("warm", None)


async def test_a_store_that_comes_back(tmp_path: Path) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(wait_for_go)
        store.objects["code"] = CODE
        store.faults = [status(503)] * 4
        body = job(StoredCode(store.url("code"), len(CODE), SHA))
        answer = await client.request("POST", "/v1/prepare", body)
        assert (answer.status, answer.json["error"]) == (502, "store_unavailable")
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        assert pod.runner.code == CODE


@pytest.mark.parametrize(
    ("faults", "status_code", "error"),
    [
        ([says(head(200, len(CODE)) + b"X" + CODE[1:])], 422, "code_unavailable"),
        ([half(CODE)] + [resets()] * 3, 502, "store_unavailable"),
    ],
    ids=["other bytes", "breaks off"],
)
async def test_a_delivery_that_fails_midway_spoils_the_runtime(
    tmp_path: Path, faults: list[Respond], status_code: int, error: str
) -> None:
    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(wait_for_go)
        store.faults = faults
        body = job(StoredCode(store.url("code"), len(CODE), SHA))
        answer = await client.request("POST", "/v1/prepare", body)
        assert (answer.status, answer.json["error"]) == (status_code, error)
        assert await pod.runner.hung_up()
        assert pod.runner.goes == 0
        assert (await client.request("POST", "/v1/start", b"{}")).json["error"] == "not_prepared"
        assert (await client.request("POST", "/v1/prepare", body)).json["error"] == "runtime_lost"


async def test_a_slow_store_does_not_count_against_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubecoderun_sidecar.runtime.ANSWER_SECONDS", 0.1)

    async def slow(_call: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, len(CODE)) + CODE[:10])
        await asyncio.sleep(0.25)
        writer.write(CODE[10:])

    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(wait_for_go)
        store.faults = [slow]
        body = job(StoredCode(store.url("code"), len(CODE), SHA))
        assert (await client.request("POST", "/v1/prepare", body)).status == 200
        await asyncio.sleep(0.2)
        assert (await client.request("GET", "/v1/state")).json["runtime"] == "warm"


async def test_a_store_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubecoderun_sidecar.pod.DELIVERY_SECONDS", 0.3)

    async def drip(_call: object, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, len(CODE)))
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    script: Script = wait_for_go
    async with fake_store() as store, sidecar(tmp_path) as pod:
        client = await pod.play(script)
        store.faults = [drip]
        answer = await client.request(
            "POST", "/v1/prepare", job(StoredCode(store.url("code"), len(CODE), SHA))
        )
        assert (answer.status, answer.json["error"]) == (502, "store_unavailable")
        assert answer.json["message"] == "code and input files did not arrive in time"

"""Storing and reading objects: single PUTs, multipart uploads, retries, and that nothing stays behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from aiohttp import web

from contract.fakes.silent import SilentAddress
from contract.fakes_api.store import FakeStore, object_store
from kubecoderun_api import transfer
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.object_writer import PART_BYTES
from kubecoderun_api.signing import Bucket, StoreAccess
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError

SESSION = "a" * 21
FILE = "a" * 13 + "b" * 8
KEY = f"/kubecoderun/inst/ns/{SESSION}/{FILE}"


@asynccontextmanager
async def stores(seconds: float = 5.0) -> AsyncIterator[tuple[Store, FakeStore]]:
    async with object_store() as fake:
        access = StoreAccess(fake.url, "kubecoderun", "us-east-1", "me", "secret")
        store = Store(access, Metrics(), install_id="inst", namespace="ns", seconds=seconds)
        await store.open()
        try:
            yield store, fake
        finally:
            await store.close()


def content(size: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return b"".join(number.to_bytes(4, "big") * 1024 for number in range(size // 4096 + 1))[:size]


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        (0, {"put": 1}),
        (1, {"put": 1}),
        (PART_BYTES, {"put": 1}),
        (PART_BYTES + 1, {"begin": 1, "part": 2, "complete": 1}),
        (2 * PART_BYTES, {"begin": 1, "part": 2, "complete": 1}),
        (3 * PART_BYTES + 5, {"begin": 1, "part": 4, "complete": 1}),
    ],
)
async def test_what_fits_into_a_part_is_put_and_more_is_uploaded_in_parts(
    size: int, asked: dict[str, int]
) -> None:
    data = content(size)
    async with stores() as (store, fake):
        writer = store.write_file(SESSION, FILE, "a.csv")
        for start, end in pairwise([*range(0, size, 777_777), size]):
            await writer.write(data[start:end])
        await writer.finish()
        assert writer.size == size
        assert dict(fake.asked) == asked
        assert fake.objects == {KEY: data}
        assert fake.uploads == {}
        assert await store.file_size(SESSION, FILE) == size


async def test_one_write_may_be_longer_than_a_part() -> None:
    data = content(2 * PART_BYTES + 9)
    async with stores() as (store, fake):
        writer = store.write_file(SESSION, FILE, "a.csv")
        await writer.write(data)
        await writer.finish()
        assert fake.objects == {KEY: data}


@pytest.mark.parametrize("status", [500, 503, 429, 0])
@pytest.mark.parametrize("operation", ["put", "begin", "part", "complete"])
async def test_every_step_is_tried_again(operation: str, status: int) -> None:
    async with stores() as (store, fake):
        failures = {operation: 2}

        def fail(asked: str) -> int | None:
            failures[asked] = failures.get(asked, 0) - 1
            return status if failures[asked] >= 0 else None

        fake.fail = fail
        data = content(PART_BYTES + 7 if operation != "put" else 7)
        writer = store.write_file(SESSION, FILE, "a.csv")
        await writer.write(data)
        await writer.finish()
        assert fake.objects == {KEY: data}
        assert fake.uploads == {}


@pytest.mark.parametrize("operation", ["put", "begin", "part", "complete"])
async def test_a_step_that_fails_for_good_leaves_nothing(operation: str) -> None:
    async with stores() as (store, fake):
        fake.fail = lambda asked: 403 if asked == operation else None
        writer = store.write_file(SESSION, FILE, "a.csv")
        with pytest.raises(StoreError, match="status 403"):  # noqa: PT012 - whichever notices it
            await writer.write(content(2 * PART_BYTES + 7 if operation != "put" else 7))
            await writer.finish()
        await writer.discard()
        assert fake.empty


async def test_parts_put_together_without_an_answer_are_found_to_be_there() -> None:
    data = content(PART_BYTES + 7)
    async with stores() as (store, fake):
        fake.mute = {"complete"}
        writer = store.write_file(SESSION, FILE, "a.csv")
        await writer.write(data)
        await writer.finish()
        assert fake.objects == {KEY: data}
        assert (fake.asked["complete"], fake.asked["head"]) == (2, 1)


async def test_an_upload_that_somebody_aborted_is_a_failure() -> None:
    async with stores() as (store, fake):
        writer = store.write_file(SESSION, FILE, "a.csv")
        await writer.write(content(PART_BYTES + 7))
        await fake_has_parts(fake, 1)
        fake.uploads.clear()
        with pytest.raises(StoreError):
            await writer.finish()
        await writer.discard()
        assert fake.empty


async def fake_has_parts(fake: FakeStore, count: int) -> None:
    async with asyncio.timeout(5):
        while sum(len(upload.parts) for upload in fake.uploads.values()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("operation", ["put", "begin", "part", "complete"])
async def test_a_writer_given_up_during_a_request_leaves_nothing(operation: str) -> None:
    """The request may succeed after nobody waits for it any more; what it made is taken away."""
    async with stores() as (store, fake):
        reached = asyncio.Event()

        def stop(asked: str) -> None:
            if asked == operation and not reached.is_set():
                reached.set()
                fake.open.clear()

        fake.early = stop

        async def work() -> None:
            await writer.write(content(2 * PART_BYTES + 7 if operation != "put" else 7))
            await writer.finish()

        writer = store.write_file(SESSION, FILE, "a.csv")
        task = asyncio.create_task(work())
        await asyncio.wait_for(reached.wait(), 5)
        task.cancel()
        await asyncio.wait({task})
        discarding = asyncio.create_task(writer.discard())
        await asyncio.sleep(0.05)
        assert not discarding.done()
        fake.open.set()
        await discarding
        assert fake.empty


async def test_what_is_discarded_after_it_was_finished_is_gone() -> None:
    async with stores() as (store, fake):
        for size in (5, PART_BYTES + 5):
            writer = store.write_file(SESSION, FILE, "a.csv")
            await writer.write(content(size))
            await writer.finish()
            assert not fake.empty
            await writer.discard()
            assert fake.empty


async def test_a_slow_store_holds_up_the_writer() -> None:
    """At most one part is on its way and one is full: then whoever writes has to wait."""
    async with stores() as (store, fake):
        fake.open.clear()
        writer = store.write_file(SESSION, FILE, "a.csv")
        task = asyncio.create_task(writer.write(content(4 * PART_BYTES)))
        await asyncio.sleep(0.3)
        assert not task.done()
        assert fake.asked["part"] <= 1
        fake.open.set()
        await task
        await writer.finish()
        assert len(fake.objects[KEY]) == 4 * PART_BYTES


async def test_reading_in_pieces_ranges_and_what_is_not_there() -> None:
    data = content(1_000_000)
    async with stores() as (store, fake):
        fake.objects[KEY] = data
        for wanted, status, expected in (
            (None, 200, data),
            ("bytes=10-19", 206, data[10:20]),
            ("bytes=-5", 206, data[-5:]),
            ("bytes=2000000-", 416, b""),
        ):
            reader = await store.read_file(SESSION, FILE, wanted)
            read = b"".join([piece async for piece in reader.pieces()])
            reader.close()
            assert (reader.status, read) == (status, expected)
        assert (await store.read_file(SESSION, "x", None)).status == 404
        assert await store.file_size(SESSION, "x") is None
        assert {headers["Accept-Encoding"] for headers in fake.headers} == {"identity"}


async def test_reading_is_tried_again_until_it_has_begun() -> None:
    async with stores(seconds=1.0) as (store, fake):
        fake.objects[KEY] = b"x"
        fake.statuses = [503, 500]
        assert (await store.read_file(SESSION, FILE, None)).status == 200
        fake.statuses = [403]
        with pytest.raises(StoreError, match="status 403"):
            await store.read_file(SESSION, FILE, None)
        fake.open.clear()
        with pytest.raises(StoreError, match="TimeoutError"):
            await store.read_file(SESSION, FILE, None)


async def test_a_store_that_is_not_there_is_told_of_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the time that a transfer may take. One that answers late has all of it."""
    assert transfer._UNREACHED_SECONDS + transfer._CONNECT_SECONDS < 5
    monkeypatch.setattr(transfer, "_UNREACHED_SECONDS", 0.5)
    monkeypatch.setattr(transfer, "_CONNECT_SECONDS", 0.2)
    silent = SilentAddress()
    async with stores(seconds=600.0) as (store, fake):
        store._bucket = Bucket(
            StoreAccess(f"http://127.0.0.1:{silent.port}", "things", "us-east-1", "me", "x")
        )
        with pytest.raises(StoreError, match="ConnectionTimeoutError"):
            await asyncio.wait_for(store.put_code(SESSION, b"x"), 20)
        silent.close()
        store._bucket = Bucket(
            StoreAccess(fake.url.replace("127.0.0.1", "127.0.0.9"), "things", "us-east-1", "me", "x")
        )
        with pytest.raises(StoreError, match="ClientConnectorError"):
            await asyncio.wait_for(store.read_file(SESSION, FILE, None), 20)


async def test_a_store_that_struggles_is_tried_longer_than_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "_UNREACHED_SECONDS", 0.01)
    async with stores(seconds=60.0) as (store, fake):
        fake.statuses = [503] * 4
        await store.put_code(SESSION, b"x")


async def test_a_content_that_ends_early_is_an_error() -> None:
    async with stores() as (store, fake):
        fake.objects[KEY] = content(100_000)
        fake.cut_after = 50_000
        reader = await store.read_file(SESSION, FILE, None)
        with pytest.raises(StoreError):
            [piece async for piece in reader.pieces()]
        reader.close()


async def test_sessions_are_found_by_the_beginning_of_their_name() -> None:
    async with stores() as (store, fake):
        for key in (
            KEY,
            f"/kubecoderun/inst/ns/{SESSION}/code",
            f"/kubecoderun/inst/other/{SESSION}/{FILE}",
            f"/kubecoderun/other/ns/{SESSION}/{FILE}",
            f"/kubecoderun/inst/ns/{'b' * 21}/{FILE}",
            f"/kubecoderun/inst/ns/{SESSION}/deeper/{FILE}",
        ):
            fake.objects[key] = b"x"
        assert await store.find("a" * 13) == [(SESSION, FILE), (SESSION, "code")]
        assert await store.find("c" * 13) == []
        with pytest.raises(ValueError, match="DNS labels"):
            await store.find("../x")


async def test_removing_is_fine_if_there_is_nothing() -> None:
    async with stores() as (store, fake):
        fake.objects[KEY] = b"x"
        await store.remove_file(SESSION, FILE)
        await store.remove_file(SESSION, FILE)
        assert fake.empty


async def test_without_a_store_everything_says_so() -> None:
    store = Store(None, Metrics(), install_id="inst", namespace="ns", seconds=1)
    with pytest.raises(StoreError, match="no object store"):
        store.write_file(SESSION, FILE, "a.csv")
    with pytest.raises(StoreError, match="no object store"):
        await store.find("a" * 13)


@pytest.mark.parametrize("answer", [b"", b"<nonsense", b"<a><b/></a>", b"<a><UploadId/></a>"])
async def test_an_answer_without_an_upload_id_is_a_failure(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(*_: object) -> web.Response:
        return web.Response(body=answer)

    async with stores() as (store, fake):
        monkeypatch.setattr(fake, "_begin", begin)
        writer = store.write_file(SESSION, FILE, "a.csv")
        with pytest.raises(StoreError):
            await writer.write(content(PART_BYTES + 1))
        await writer.discard()


@pytest.mark.parametrize("head", [200, 404])
async def test_an_error_behind_a_200_counts_unless_the_object_is_there(
    head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(PART_BYTES + 1)

    async def complete(request: web.Request, body: bytes) -> web.Response:
        if head == 200:
            await real(request, body)
        return web.Response(body=b"<Error><Code>InternalError</Code></Error>")

    async with stores() as (store, fake):
        real = fake._complete
        monkeypatch.setattr(fake, "_complete", complete)
        writer = store.write_file(SESSION, FILE, "a.csv")
        await writer.write(data)
        if head == 200:
            await writer.finish()
            assert fake.objects == {KEY: data}
        else:
            with pytest.raises(StoreError, match="put the parts together"):
                await writer.finish()
            await writer.discard()
            assert fake.empty

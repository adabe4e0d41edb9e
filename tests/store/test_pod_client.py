"""The sidecar's own client of the store: what it sends is what the store understands, in both directions."""

import os
from collections.abc import AsyncGenerator

import pytest

from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.protocol import FormTarget
from kubecoderun_sidecar.transfer import Store, TransferError
from store.bucket import Bucket
from store.exchange import same
from store.target import Target
from store.verdict import needs

LIMIT = 30_000_000
SIZES = [0, 1, 1000, 25_000_000]
by_form = needs(
    "POST policies",
    why="so that a pod can upload any number of files below its session's prefix and nowhere else",
    instead="KCR_STORE_UPLOADS=put",
)
by_put = needs(
    "presigned PUT", why="so that a pod can upload its result, and files where policies do not work"
)


@pytest.fixture
def store(target: Target) -> Store:
    return Store(str(target.ca_file) if target.ca_file else None)


def form(bucket: Bucket, prefix: str, names: list[str]) -> FormTarget:
    signed = bucket.signer.form(f"{prefix}/", LIMIT, keys=tuple(f"{prefix}/{name}" for name in names))
    return FormTarget(str(signed.url), f"{prefix}/", signed.fields)


async def in_pieces(data: bytes) -> AsyncGenerator[Data]:
    """From one buffer that changes, as files come from a runner."""
    buffer = bytearray(256 << 10)
    for start in range(0, len(data), len(buffer)):
        piece = data[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


async def fetched(store: Store, bucket: Bucket, key: str, size: int) -> bytes:
    url = str(bucket.signer.url("GET", key))
    return b"".join([bytes(piece) async for piece in store.fetch(url, size)])


@by_form
async def test_files_by_form(store: Store, bucket: Bucket, prefix: str) -> None:
    where = f"{prefix}/pod"
    target = form(bucket, where, [f"f{size}" for size in SIZES])
    for size in SIZES:
        data = os.urandom(size)
        await store.post(
            target, f"f{size}", "out/Größe (π) 100%.csv", size, lambda data=data: in_pieces(data)
        )
        same(await fetched(store, bucket, f"{where}/f{size}", size), data, what=f"a file of {size} bytes")
    store.close()


@by_form
async def test_a_form_that_is_refused_is_heard(store: Store, bucket: Bucket, prefix: str) -> None:
    data = bytes(LIMIT + 1)
    with pytest.raises(TransferError, match="refused the upload with status 4"):
        await store.post(form(bucket, prefix, ["long"]), "long", "x", len(data), lambda: in_pieces(data))
    store.close()


@by_put
async def test_files_by_put(store: Store, bucket: Bucket, prefix: str) -> None:
    for size in SIZES:
        data, key = os.urandom(size), f"{prefix}/pod-put-{size}"
        url = str(bucket.signer.url("PUT", key))
        await store.put(url, size, lambda data=data: in_pieces(data), "application/octet-stream")
        same(await fetched(store, bucket, key, size), data, what=f"a file of {size} bytes")
    store.close()


@by_put
async def test_an_object_that_is_missing_or_has_another_size(
    store: Store, bucket: Bucket, prefix: str
) -> None:
    await bucket.put(f"{prefix}/pod-five", b"12345")
    for key, size in (("pod-five", 4), ("pod-five", 6), ("pod-none", 5)):
        with pytest.raises(TransferError) as caught:
            await fetched(store, bucket, f"{prefix}/{key}", size)
        assert caught.value.error == "object_unavailable", (key, size)
    store.close()

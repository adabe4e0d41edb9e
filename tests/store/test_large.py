"""A large object, through a client that keeps little of it."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from store.bucket import STORED, Bucket
from store.exchange import expect, same
from store.verdict import needs

pytestmark = needs(
    "large objects", why="for files up to the pool's maxFileBytes, 150 MiB if nothing else is set"
)
SIZE = 200_000_000
BLOCK = bytes(range(256)) * 4096
MAX_GROWTH = 48 << 20
"""Bytes this process may grow by: buffers of the connection, and whatever the interpreter needs."""


def _resident() -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) * 1024


async def _blocks(memory: list[int]) -> AsyncIterator[bytes]:
    """200 MB in which no two blocks are alike, made as they are sent."""
    for start in range(0, SIZE, len(BLOCK)):
        memory.append(_resident())
        yield (start.to_bytes(8, "big") + BLOCK)[: min(len(BLOCK), SIZE - start)]


async def test_200_megabytes_there_and_back(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/large"
    memory: list[int] = [_resident()]
    sent = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        async for block in _blocks(memory):
            sent.update(block)
            yield block

    url = bucket.signer.url("PUT", key)
    answer = await bucket.exchange.send("PUT", url, body(), {"Content-Length": str(SIZE)})
    expect(answer, *STORED, doing="PUT of 200 MB")
    got, count = hashlib.sha256(), 0
    async with bucket.exchange.open("GET", bucket.signer.url("GET", key)) as response:
        same(response.status, 200, what="status of GET")
        same(response.headers.get("Content-Length"), str(SIZE), what="Content-Length of GET")
        async for chunk in response.content.iter_any():
            got.update(chunk)
            count += len(chunk)
            memory.append(_resident())
    same(count, SIZE, what="bytes that came back")
    same(got.hexdigest(), sent.hexdigest(), what="hash of what came back")
    tail = expect(await bucket.get(key, f"bytes={SIZE - 100}-"), 206, doing="GET of the last 100 bytes")
    same(len(tail.body), 100, what="bytes at the end")
    await bucket.delete(key)
    assert max(memory) - memory[0] < MAX_GROWTH

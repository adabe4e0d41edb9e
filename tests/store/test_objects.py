"""Objects go in and come out as they are."""

import asyncio
import hashlib
import os
from urllib.parse import quote, unquote

import pytest

from store.bucket import STORED, Bucket
from store.exchange import expect, refused, same
from store.verdict import needs

OBJECTS = needs(
    "PUT, GET, HEAD and DELETE by presigned URLs", why="for every file, long program and full result"
)
KEYS = needs("keys of four parts", why="to find a session's files: install id, namespace, session, file")
METADATA = needs(
    "metadata", why="to keep a file's name with its bytes, so that the store alone can say what a file was"
)
NAME = "Jahr 2024/Größe & Länge (π) 数据.csv"


@OBJECTS
async def test_an_object_comes_back_as_it_was_put(bucket: Bucket, prefix: str) -> None:
    key, data = f"{prefix}/plain", os.urandom(100_000)
    await bucket.put(key, data)
    same(hashlib.sha256(await bucket.read(key)).hexdigest(), hashlib.sha256(data).hexdigest(), what="GET")
    head = expect(await bucket.head(key), 200, doing="HEAD")
    same(head.headers.get("Content-Length"), "100000", what="Content-Length of HEAD")


@OBJECTS
async def test_a_second_put_replaces_the_first(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/replaced"
    await bucket.put(key, b"first, and longer")
    await bucket.put(key, b"second")
    same(await bucket.read(key), b"second", what="GET after two PUTs")


@OBJECTS
async def test_an_object_without_bytes(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/empty"
    await bucket.put(key, b"")
    same(await bucket.read(key), b"", what="GET")
    head = expect(await bucket.head(key), 200, doing="HEAD")
    same(head.headers.get("Content-Length"), "0", what="Content-Length of HEAD")
    same((await bucket.listing(key)).sizes, {key: 0}, what="LIST")


@OBJECTS
async def test_a_removed_object_is_gone_at_once(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/removed"
    await bucket.put(key, b"for a moment")
    await bucket.delete(key)
    expect(await bucket.get(key), 404, doing="GET after DELETE")
    expect(await bucket.head(key), 404, doing="HEAD after DELETE")
    same((await bucket.listing(key)).sizes, {}, what="LIST after DELETE")
    await bucket.delete(key)


@OBJECTS
async def test_what_was_never_there_is_404(bucket: Bucket, prefix: str) -> None:
    expect(await bucket.get(f"{prefix}/never"), 404, doing="GET of no object")
    expect(await bucket.head(f"{prefix}/never"), 404, doing="HEAD of no object")


@KEYS
@pytest.mark.parametrize(
    "key",
    [
        "kubecoderun/q3v8m0k2x7c1z5n9b4t6w/q3v8m0k2x7c1za1b2c3d4",
        "kubecoderun/q3v8m0k2x7c1z5n9b4t6w/code",
        "kubecoderun/q3v8m0k2x7c1z5n9b4t6w/result.json",
        f"{'n' * 63}/{'s' * 63}/{'f' * 21}",
    ],
)
async def test_keys_of_our_form(bucket: Bucket, prefix: str, key: str) -> None:
    full = f"{prefix}/{key}"
    await bucket.put(full, key.encode())
    same(await bucket.read(full), key.encode(), what="GET")
    same((await bucket.listing(full)).sizes, {full: len(key)}, what="LIST")


@METADATA
async def test_metadata_of_a_put(bucket: Bucket, prefix: str) -> None:
    key, path = f"{prefix}/named", quote(NAME)
    url, headers = bucket.signer.object_request("PUT", key, b"1,2", {"x-amz-meta-path": path})
    expect(await bucket.exchange.send("PUT", url, b"1,2", headers), *STORED, doing="PUT with metadata")
    for answer in (await bucket.get(key), await bucket.head(key)):
        expect(answer, 200, doing="GET or HEAD")
        same(unquote(answer.headers.get("x-amz-meta-path", "")), NAME, what="x-amz-meta-path")


@OBJECTS
async def test_many_small_objects_at_once(bucket: Bucket, prefix: str) -> None:
    objects = {f"{prefix}/many/{number:03}": f"object {number}".encode() for number in range(100)}
    limit = asyncio.Semaphore(20)

    async def there_and_back(key: str, data: bytes) -> None:
        async with limit:
            await bucket.put(key, data)
            same(await bucket.read(key), data, what="GET beside others")

    await asyncio.gather(*(there_and_back(key, data) for key, data in objects.items()))
    sizes = (await bucket.listing(f"{prefix}/many/")).sizes
    same(sizes, {key: len(data) for key, data in objects.items()}, what="LIST")


@OBJECTS
async def test_without_a_signature_there_is_nothing(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/private"
    await bucket.put(key, b"private")
    address = bucket.signer.unsigned(key)
    for method, body in (("GET", None), ("HEAD", None), ("PUT", b"other"), ("DELETE", None)):
        refused(await bucket.exchange.send(method, address, body), doing=f"unsigned {method}")
    same(await bucket.read(key), b"private", what="GET after unsigned requests")

"""Uploads in parts, each by a presigned URL."""

import asyncio
import hashlib
import os

from store.bucket import Bucket
from store.exchange import UnfitError, expect, refused, same
from store.verdict import needs

pytestmark = needs(
    "uploads in parts",
    why="to pass an uploaded file on while it comes in, without knowing its size and without keeping it",
)
PART_BYTES = 8 << 20


async def test_parts_become_one_object(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/parts"
    parts = {1: os.urandom(PART_BYTES), 2: os.urandom(PART_BYTES), 3: os.urandom(1 << 20)}
    upload = await bucket.begin(key)
    expect(await bucket.head(key), 404, doing="HEAD before the end of an upload")
    same((await bucket.listing(key)).sizes, {}, what="LIST before the end of an upload")
    # the last part first: parts may overtake each other
    numbers = [3, 1, 2]
    etags = await asyncio.gather(*(bucket.put_part(key, upload, number, parts[number]) for number in numbers))
    await bucket.completed(key, upload, dict(zip(numbers, etags, strict=True)))
    whole = parts[1] + parts[2] + parts[3]
    found = await bucket.read(key)
    same(len(found), len(whole), what="bytes of the object")
    same(hashlib.sha256(found).hexdigest(), hashlib.sha256(whole).hexdigest(), what="hash of the object")
    same((await bucket.listing(key)).sizes, {key: len(whole)}, what="LIST")
    answer = expect(
        await bucket.get(key, f"bytes={PART_BYTES - 5}-{PART_BYTES + 4}"), 206, doing="GET of a range"
    )
    same(answer.body, whole[PART_BYTES - 5 : PART_BYTES + 5], what="the bytes on both sides of a part's end")


async def test_one_small_part_is_enough(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/one-part"
    upload = await bucket.begin(key)
    await bucket.completed(key, upload, {1: await bucket.put_part(key, upload, 1, b"small")})
    same(await bucket.read(key), b"small", what="GET")


async def test_a_part_may_be_sent_again(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/again"
    upload = await bucket.begin(key)
    await bucket.put_part(key, upload, 1, b"broken off")
    await bucket.completed(key, upload, {1: await bucket.put_part(key, upload, 1, b"the whole part")})
    same(await bucket.read(key), b"the whole part", what="GET")


async def test_an_aborted_upload_leaves_nothing(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/aborted"
    upload = await bucket.begin(key)
    etag = await bucket.put_part(key, upload, 1, b"x" * 1000)
    await bucket.abort(key, upload)
    expect(await bucket.head(key), 404, doing="HEAD after the abort")
    answer = await bucket.complete(key, upload, {1: etag})
    if answer.status == 200 and answer.xml().tag == "CompleteMultipartUploadResult":
        raise UnfitError("an aborted upload could be completed")
    expect(await bucket.head(key), 404, doing="HEAD after the end of an aborted upload")


async def test_parts_that_were_not_stored_cannot_be_completed(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/wrong-part"
    upload = await bucket.begin(key)
    await bucket.put_part(key, upload, 1, b"stored")
    answer = await bucket.complete(key, upload, {1: '"0123456789abcdef0123456789abcdef"'})
    if answer.status == 200 and answer.xml().tag == "CompleteMultipartUploadResult":
        raise UnfitError("an upload was completed with the ETag of a part that was not stored")
    expect(await bucket.head(key), 404, doing="HEAD after the failed end of an upload")
    await bucket.abort(key, upload)


async def test_a_url_is_for_one_part_of_one_upload(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/part-url"
    upload = await bucket.begin(key)
    url = bucket.signer.url("PUT", key, {"partNumber": "1", "uploadId": upload})
    for change in ({"partNumber": "2"}, {"uploadId": f"{upload}0"}):
        attempt = url.update_query(change)
        refused(
            await bucket.exchange.send("PUT", attempt, b"x"), doing=f"part with another {next(iter(change))}"
        )
    await bucket.abort(key, upload)

"""A presigned URL allows one thing, for a while, and nothing else."""

import asyncio

from store.bucket import Bucket
from store.exchange import expect, refused, same
from store.verdict import needs

pytestmark = needs(
    "signatures that expire and cannot be changed",
    why="to hand a pod URLs that open nothing but its own files",
)


async def test_a_url_ends_with_its_life(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/expiring"
    await bucket.put(key, b"secret")
    url = bucket.signer.url("GET", key, seconds=3)
    expect(await bucket.exchange.send("GET", url), 200, doing="GET before the end (are the clocks right?)")
    await asyncio.sleep(4.5)
    refused(await bucket.exchange.send("GET", url), doing="GET after the end (are the clocks right?)")


async def test_a_url_signed_long_ago_is_refused(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/old"
    await bucket.put(key, b"secret")
    for method, body in (("GET", None), ("PUT", b"other"), ("DELETE", None)):
        url = bucket.signer.url(method, key, seconds=60, ago=600)
        refused(await bucket.exchange.send(method, url, body), doing=f"{method} with an old signature")
    same(await bucket.read(key), b"secret", what="GET after refused requests")


async def test_a_changed_url_is_refused(bucket: Bucket, prefix: str) -> None:
    own, other = f"{prefix}/own", f"{prefix}/other"
    await bucket.put(own, b"own")
    await bucket.put(other, b"other")
    url = bucket.signer.url("GET", own, seconds=60)
    changed = {
        "another key": url.with_path(url.raw_path.replace("/own", "/other"), encoded=True, keep_query=True),
        "a longer life": url.update_query({"X-Amz-Expires": "600"}),
        "another signature": url.update_query({"X-Amz-Signature": "0" * 64}),
        "one more parameter": url.update_query({"response-content-type": "text/html"}),
    }
    for what, attempt in changed.items():
        refused(await bucket.exchange.send("GET", attempt), doing=f"GET with {what}")


async def test_a_url_is_for_one_method(bucket: Bucket, prefix: str) -> None:
    key = f"{prefix}/method"
    await bucket.put(key, b"kept")
    url = bucket.signer.url("GET", key)
    refused(await bucket.exchange.send("PUT", url, b"replaced"), doing="PUT with a URL for GET")
    refused(await bucket.exchange.send("DELETE", url), doing="DELETE with a URL for GET")
    same(await bucket.read(key), b"kept", what="GET after refused requests")
    put = bucket.signer.url("PUT", key)
    refused(await bucket.exchange.send("GET", put), doing="GET with a URL for PUT")

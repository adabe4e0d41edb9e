"""Uploads in parts that nobody ends: the operator's own requests find them and give them up."""

import pytest

from kubecoderun_operator.bucket import Bucket as OperatorBucket
from kubecoderun_operator.storage import Storage, StoreAddress
from store.bucket import Bucket
from store.exchange import expect, same
from store.target import Target
from store.verdict import needs

pytestmark = needs(
    "a list of unfinished uploads",
    why="to remove the parts of uploads whose front end was killed",
    instead="a lifecycle rule with AbortIncompleteMultipartUpload",
)


@pytest.mark.parametrize("name", ["plain", "with space & ü"])
async def test_an_unfinished_upload_is_found_and_given_up(
    bucket: Bucket, target: Target, prefix: str, name: str
) -> None:
    key = f"{prefix}/unfinished/{name}"
    upload = await bucket.begin(key)
    etag = await bucket.put_part(key, upload, 1, b"x" * 1000)
    address = StoreAddress(target.endpoint, target.region, target.bucket, target.virtual_hosts, "unused")
    operator = OperatorBucket(Storage(address, target.access_key, target.secret_key), seconds=10)
    try:
        page = await operator.unfinished(f"{prefix}/unfinished/")
        if target.name == "minio" and not page.uploads:
            page = await operator.unfinished(key)  # it lists by whole keys only, and drops them after a day
        (found,) = page.uploads
        same((found.key, found.id), (key, upload), what="the unfinished upload")
        assert abs(page.now - found.begun) < 300, "it was begun now"
        await operator.abort(found)
        await operator.abort(found)
        same((await operator.unfinished(key)).uploads, (), what="unfinished uploads after giving it up")
    finally:
        await operator.close()
    answer = await bucket.complete(key, upload, {1: etag})
    assert answer.status != 200 or answer.xml().tag != "CompleteMultipartUploadResult"
    expect(await bucket.head(key), 404, doing="HEAD of what was given up")

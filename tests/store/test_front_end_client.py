"""The front end's own client against the store: files with their names."""

from email.header import decode_header, make_header

import pytest

from kubecoderun_api.metrics import Metrics
from kubecoderun_api.object_writer import PART_BYTES
from kubecoderun_api.signing import StoreAccess
from kubecoderun_api.storage import Store
from kubecoderun_crds import names
from store.bucket import Bucket
from store.target import Target
from store.verdict import needs

pytestmark = needs("metadata of objects", why="to note the name of an uploaded file beside its bytes")


@pytest.mark.parametrize("size", [0, 10, PART_BYTES + 5], ids=["empty", "small", "in parts"])
@pytest.mark.parametrize("path", ["a/b c.csv", "données/表 ☃.csv", "ä" * 127 + "/" + "ö" * 127, "=?x"])
async def test_an_upload_carries_its_name(
    bucket: Bucket, target: Target, prefix: str, path: str, size: int
) -> None:
    access = StoreAccess(
        target.endpoint,
        target.bucket,
        target.region,
        target.access_key,
        target.secret_key,
        target.virtual_hosts,
        target.ca_file,
    )
    store = Store(access, Metrics(), install_id=prefix[:60], namespace="uploads", seconds=30)
    session = names.session_name()
    file = names.file_id(session)
    await store.open()
    try:
        writer = store.write_file(session, file, path)
        await writer.write(b"x" * size)
        await writer.finish()
        assert await store.file_size(session, file) == size
        told = await bucket.head(names.object_key(prefix[:60], "uploads", session, file))
        found = told.headers[names.METADATA_PATH]
        assert str(make_header(decode_header(found))) == path
    finally:
        await store.remove_file(session, file)
        await store.close()

"""Many objects with one request."""

from store.bucket import Bucket
from store.exchange import same
from store.verdict import needs

pytestmark = needs("removal of many objects at once", why="to purge what removed sessions have left")


async def test_what_is_named_goes_and_the_rest_stays(bucket: Bucket, prefix: str) -> None:
    keys = [f"{prefix}/purge/{number:02}" for number in range(20)]
    for key in keys:
        await bucket.put(key, b"x")
    root = await bucket.delete_all([*keys[:15], f"{prefix}/purge/never-there"])
    same(
        [error.findtext("Key") for error in root.iter("Error")], [], what="objects that could not be removed"
    )
    same(list((await bucket.listing(f"{prefix}/purge/")).sizes), keys[15:], what="LIST afterwards")

"""Parts of an object."""

import pytest

from store.bucket import Bucket
from store.exchange import expect, same
from store.verdict import needs

pytestmark = needs(
    "GET of byte ranges",
    why="to go on with an input file after a broken connection, and to give clients the range they ask for",
)
DATA = bytes(range(256)) * 40
SIZE = len(DATA)


@pytest.fixture
async def key(bucket: Bucket, prefix: str) -> str:
    """An object of 10240 bytes."""
    key = f"{prefix}/ranges"
    await bucket.put(key, DATA)
    return key


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=5000-", 5000, SIZE - 1),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
        ("bytes=-10", SIZE - 10, SIZE - 1),
        (f"bytes=10-{SIZE * 2}", 10, SIZE - 1),
        (f"bytes=-{SIZE * 2}", 0, SIZE - 1),
    ],
)
async def test_the_range_that_was_asked_for(
    bucket: Bucket, key: str, asked: str, first: int, last: int
) -> None:
    answer = expect(await bucket.get(key, asked), 206, doing=f"GET with Range: {asked}")
    same(
        answer.headers.get("Content-Range"), f"bytes {first}-{last}/{SIZE}", what=f"Content-Range for {asked}"
    )
    same(answer.body, DATA[first : last + 1], what=f"the bytes for {asked}")


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}"])
async def test_a_range_beyond_the_end_is_416(bucket: Bucket, key: str, asked: str) -> None:
    expect(await bucket.get(key, asked), 416, doing=f"GET with Range: {asked}")

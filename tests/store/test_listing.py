"""Finding objects by the beginning of their key."""

import pytest

from store.bucket import Bucket
from store.exchange import same
from store.verdict import needs

pytestmark = needs(
    "LIST by prefix",
    why="to find a file's session by the beginning of its id, and what removed sessions have left",
)
SESSIONS = ("aaaaaaaaaaaaa11111111", "aaaaaaaaaaaaa22222222", "bbbbbbbbbbbbb33333333")


@pytest.fixture
async def install(bucket: Bucket, prefix: str) -> str:
    """Three sessions with three objects each; two begin alike."""
    install = f"{prefix}/listing"
    for session in SESSIONS:
        for name in ("code", "file1", "result.json"):
            await bucket.put(f"{install}/ns/{session}/{name}", b"12345")
    return install


@pytest.mark.parametrize("in_headers", [False, True], ids=["presigned", "signed-headers"])
async def test_all_of_one_session(bucket: Bucket, install: str, in_headers: bool) -> None:
    session = f"{install}/ns/{SESSIONS[0]}/"
    listing = await bucket.listing(session, in_headers=in_headers)
    names = ("code", "file1", "result.json")
    same(listing.sizes, {f"{session}{name}": 5 for name in names}, what="LIST of a session's prefix")


async def test_part_of_a_name_is_a_prefix(bucket: Bucket, install: str) -> None:
    listing = await bucket.listing(f"{install}/ns/aaaaaaaaaaaaa")
    same({key.split("/")[-2] for key in listing.sizes}, set(SESSIONS[:2]), what="sessions")
    same(len(listing.sizes), 6, what="number of objects")


async def test_sessions_up_to_the_delimiter(bucket: Bucket, install: str) -> None:
    listing = await bucket.listing(f"{install}/ns/", delimiter="/")
    same(listing.prefixes, [f"{install}/ns/{session}/" for session in SESSIONS], what="prefixes")
    same(listing.sizes, {}, what="objects right below")
    part = await bucket.listing(f"{install}/ns/aaaaaaaaaaaaa", delimiter="/")
    same(part.prefixes, [f"{install}/ns/{session}/" for session in SESSIONS[:2]], what="prefixes of a part")


async def test_pages(bucket: Bucket, install: str) -> None:
    whole = await bucket.listing(f"{install}/")
    paged = await bucket.listing(f"{install}/", page=2)
    same(list(paged.sizes), sorted(whole.sizes), what="keys over pages of 2, in order")
    same(paged.pages >= 5, True, what="at least five pages")
    sessions = await bucket.listing(f"{install}/ns/", delimiter="/", page=1)
    same(
        sessions.prefixes,
        [f"{install}/ns/{session}/" for session in SESSIONS],
        what="prefixes over pages of 1",
    )


async def test_nothing_is_an_empty_list(bucket: Bucket, install: str) -> None:
    listing = await bucket.listing(f"{install}/ns/zzz")
    same((listing.sizes, listing.prefixes, listing.pages), ({}, [], 1), what="LIST of nothing")

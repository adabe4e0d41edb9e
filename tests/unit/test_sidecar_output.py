"""What is kept of a stream, whatever its pieces look like, and how it travels."""

import base64
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.output import Kept, OutputKeeper, as_safe_text

LIMIT = 1024


def keep(data: bytes, sizes: list[int], limit: int = LIMIT) -> Kept:
    """Feed `data` in pieces of the given sizes, over and over."""
    keeper = OutputKeeper(limit)
    position, turn = 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        keeper.add(memoryview(data)[position : position + size])
        position, turn = position + size, turn + 1
    return keeper.kept()


def text_of(kept: Kept, data: bytes) -> str:
    captured = kept.captured(data)
    assert captured.text is not None
    return captured.text


@given(data=st.binary(max_size=5000), sizes=st.lists(st.integers(1, 3000), max_size=5))
def test_any_chunking_keeps_the_same_bytes(data: bytes, sizes: list[int]) -> None:
    assert keep(data, sizes) == keep(data, [])


@given(data=st.binary(max_size=5000), sizes=st.lists(st.integers(1, 3000), max_size=5))
def test_head_and_tail_are_the_ends_of_the_stream(data: bytes, sizes: list[int]) -> None:
    kept = keep(data, sizes)
    assert kept.total == len(data)
    if len(data) <= LIMIT:
        assert kept.head + kept.tail == data
        assert kept.complete
        assert kept.joined() == data
    else:
        assert kept.head == data[: LIMIT * 3 // 4]
        assert kept.tail == data[-LIMIT // 4 :]
        assert not kept.complete


@pytest.mark.parametrize("size", [1, 7, 255, 256, 257, 65536])
def test_memory_stays_bounded(size: int) -> None:
    keeper = OutputKeeper(LIMIT)
    chunk = memoryview(bytes(size))
    for _ in range(4000):
        keeper.add(chunk)
        assert len(keeper._head) + len(keeper._tail) <= LIMIT + LIMIT // 4
    assert keeper.total == 4000 * size


def test_the_chunk_is_not_referred_to() -> None:
    buffer = bytearray(b"abc")
    keeper = OutputKeeper(LIMIT)
    keeper.add(memoryview(buffer))
    buffer[:] = b"xyz"
    assert keeper.kept().joined() == b"abc"


@given(text=st.text(alphabet=st.sampled_from("aé€🙂\n"), min_size=300, max_size=3000))
def test_a_cut_never_turns_text_into_base64(text: str) -> None:
    data = text.encode()
    kept = keep(data, [33])
    joined = text_of(kept, kept.joined())
    if not kept.complete:
        before, after = joined.split("\n[... ")
        count, after = after.split(" bytes omitted ...]\n")
        assert text.startswith(before)
        assert text.endswith(after)
        assert len(before.encode()) + int(count) + len(after.encode()) == len(data)
        assert LIMIT - len(before.encode()) - len(after.encode()) <= 6


@given(
    text=st.text(alphabet=st.sampled_from("aé€🙂\n"), min_size=300, max_size=3000),
    limit=st.integers(1024, 1100),
)
def test_a_preview_fits_and_is_text(text: str, limit: int) -> None:
    data = text.encode()
    for keep_bytes in (1024, 1060, 4096, 16384):
        kept = keep(data, [50], keep_bytes)
        preview = kept.preview(limit)
        assert len(preview) <= limit
        captured = kept.captured(preview)
        assert captured.text is not None
        assert captured.bytes == len(data)
        assert captured.truncated == (preview != data)


@given(data=st.binary(max_size=4000), limit=st.integers(1024, 2000), keep_bytes=st.integers(1024, 3000))
def test_a_preview_of_anything_fits_and_counts_what_is_missing(
    data: bytes, limit: int, keep_bytes: int
) -> None:
    kept = keep(data, [700], keep_bytes)
    preview = kept.preview(limit)
    assert len(preview) <= limit
    if len(data) <= min(limit, keep_bytes):
        assert preview == data
    else:
        captured = kept.captured(preview)
        assert captured.truncated or preview == data


@given(
    text=st.text(alphabet=st.sampled_from("aé€🙂\n"), max_size=3000),
    sizes=st.lists(st.integers(1, 3000), max_size=5),
    limit=st.integers(1024, 2000),
)
def test_a_prefix_is_nothing_but_the_beginning(text: str, sizes: list[int], limit: int) -> None:
    data = text.encode()
    keeper = OutputKeeper(LIMIT, prefix=True)
    position = 0
    for size in [*sizes, len(data)]:
        keeper.add(memoryview(data)[position : position + size])
        position += size
    kept = keeper.kept()
    assert kept.complete == (len(data) <= LIMIT)
    for cut, most in ((kept.joined(), LIMIT), (kept.preview(limit), min(limit, LIMIT))):
        assert data.startswith(cut)
        assert min(len(data), most) - 3 <= len(cut) <= most
        captured = kept.captured(cut)
        assert captured.text is not None
        assert (captured.bytes, captured.truncated) == (len(data), len(cut) != len(data))


def test_a_prefix_of_bytes_that_are_no_text_is_exact() -> None:
    keeper = OutputKeeper(LIMIT, prefix=True)
    data = bytes(range(128, 192)) * 100
    keeper.add(data)
    assert data.startswith(keeper.kept().joined())
    assert len(keeper.kept().joined()) >= LIMIT - 3


def test_the_marker_says_how_much_is_missing() -> None:
    kept = keep(b"a" * 10_000, [])
    assert kept.joined() == b"a" * 768 + b"\n[... 8976 bytes omitted ...]\n" + b"a" * 256


def test_a_preview_of_a_truncated_stream_counts_from_the_whole() -> None:
    kept = keep(b"a" * 100_000, [], 4096)
    assert b"[... %d bytes omitted ...]" % (100_000 - 976) in kept.preview(1024)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"\x1b[31mred",
        b"a\rb",
        b"\x00",
        b"\x07",
        b"\x7f",
        "\x9b".encode(),
        "\u202eevil".encode(),
        "\u2066x".encode(),
        "\u200d".encode(),
        "\ufeff".encode(),
        "\U000e0041".encode(),
        b"\xe2\x82",
        b"\xed\xa0\x80",
    ],
)
def test_what_is_not_harmless_text_travels_as_exact_bytes(data: bytes) -> None:
    kept = keep(data, [])
    captured = kept.captured(kept.joined())
    assert captured.text is None
    assert captured.base64 is not None
    assert base64.b64decode(captured.base64) == data
    assert captured.bytes == len(data)
    assert not captured.truncated


@pytest.mark.parametrize("text", ["", "1\n", "a\tb\n", "héllo €", "🙂 日本語", "\u00a0"])
def test_ordinary_text_stays_text(text: str) -> None:
    assert as_safe_text(text.encode()) == text


def test_every_control_and_format_character_is_unsafe() -> None:
    """Against the Unicode database of this interpreter; the list in the code may know more."""
    wrong = [
        hex(point)
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)) in ("Cc", "Cf", "Zl", "Zp")
        and chr(point) not in "\n\t"
        and as_safe_text(chr(point).encode()) is not None
    ]
    assert wrong == []


def test_binary_output_is_cut_like_text() -> None:
    data = b"\xff" * 5000
    kept = keep(data, [])
    captured = kept.captured(kept.joined())
    assert captured.base64 is not None
    assert captured.truncated
    assert captured.bytes == 5000

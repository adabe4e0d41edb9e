"""Frames: any split of the bytes gives the same frames, and nothing grows without bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.frames import (
    MAX_CONTROL_BYTES,
    MAX_PAYLOAD_BYTES,
    PIECE_BYTES,
    FrameDecoder,
    FrameError,
    encode_frame,
)

EVERYTHING = b"HWPSOEXFLZU"
FRAMES = st.lists(
    st.tuples(st.sampled_from([bytes([kind]) for kind in EVERYTHING]), st.binary(max_size=300)), max_size=12
)


def decode(data: bytes, sizes: list[int], allowed: bytes = EVERYTHING) -> list[tuple[bytes, bytes]]:
    """Frames of `data` fed in pieces; neighbouring pieces of output joined."""
    decoder = FrameDecoder()
    decoder.allowed = allowed
    frames: list[tuple[bytes, bytes]] = []
    position, turn = 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        for kind, payload in decoder.feed(memoryview(data)[position : position + size]):
            name = bytes([kind])
            if name in b"OE" and frames and frames[-1][0] == name:
                frames[-1] = (name, frames[-1][1] + bytes(payload))
            else:
                frames.append((name, bytes(payload)))
        position, turn = position + size, turn + 1
    return frames


def joined(frames: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Neighbouring output joined, empty output left out."""
    result: list[tuple[bytes, bytes]] = []
    for kind, payload in frames:
        if kind in b"OE" and not payload:
            continue
        if kind in b"OE" and result and result[-1][0] == kind:
            result[-1] = (kind, result[-1][1] + payload)
        else:
            result.append((kind, payload))
    return result


@given(frames=FRAMES, sizes=st.lists(st.integers(1, 400), max_size=6))
def test_any_split_gives_the_same_frames(frames: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    data = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    assert decode(data, sizes) == joined(frames)


@given(data=st.binary(max_size=2000), sizes=st.lists(st.integers(1, 50), max_size=6))
def test_nonsense_is_an_error_or_frames_but_never_a_crash(data: bytes, sizes: list[int]) -> None:
    whole: list[tuple[bytes, bytes]] | str
    try:
        whole = decode(data, [])
    except FrameError:
        whole = "error"
    if whole == "error":
        with pytest.raises(FrameError):
            decode(data, sizes)
    else:
        assert decode(data, sizes) == whole


@pytest.mark.parametrize("kind", [b"Q", b"\x00", b"\xff", b"h"])
def test_an_unknown_type_fails_at_its_first_byte(kind: bytes) -> None:
    with pytest.raises(FrameError, match="where only"):
        decode(kind, [])


def test_a_type_that_may_not_come_now_fails_at_its_first_byte() -> None:
    with pytest.raises(FrameError, match="type X where only H may come"):
        decode(b"X", [], b"H")
    with pytest.raises(FrameError, match="only nothing may come"):
        decode(b"X", [], b"")


def test_what_may_come_is_looked_at_for_every_frame() -> None:
    decoder = FrameDecoder()
    decoder.allowed = b"H"
    frames = decoder.feed(memoryview(encode_frame(b"H") + encode_frame(b"H")))
    assert next(frames) == (ord("H"), b"{}")
    decoder.allowed = b"W"
    with pytest.raises(FrameError):
        next(frames)


@pytest.mark.parametrize(
    ("kind", "bound"), [(b"O", MAX_PAYLOAD_BYTES), (b"E", MAX_PAYLOAD_BYTES), (b"X", MAX_CONTROL_BYTES)]
)
def test_a_length_over_the_bound_fails_before_its_payload(kind: bytes, bound: int) -> None:
    assert decode(kind + bound.to_bytes(4, "big"), []) == []
    for length in (bound + 1, 0xFFFFFFFF):
        with pytest.raises(FrameError, match=f"type {kind.decode()} with {length} bytes"):
            decode(kind + length.to_bytes(4, "big"), [])


def test_output_passes_through_without_being_collected() -> None:
    decoder = FrameDecoder()
    decoder.allowed = b"O"
    list(decoder.feed(memoryview(b"O" + MAX_PAYLOAD_BYTES.to_bytes(4, "big"))))
    for _ in range(MAX_PAYLOAD_BYTES // 1024):
        ((kind, piece),) = decoder.feed(memoryview(bytes(1024)))
        assert (kind, len(piece)) == (ord("O"), 1024)
        assert len(decoder._payload) == 0


@given(
    size=st.integers(1, 3 * PIECE_BYTES), cuts=st.lists(st.integers(5_000, 300_000), min_size=1, max_size=6)
)
def test_data_of_a_file_in_full_frames_passes_through(size: int, cuts: list[int]) -> None:
    """The caller counts down; each frame has to be as long as that allows."""
    lengths = [PIECE_BYTES] * (size // PIECE_BYTES) + ([size % PIECE_BYTES] if size % PIECE_BYTES else [])
    stream = b"".join(encode_frame(b"D", bytes(length)) for length in lengths)
    decoder = FrameDecoder()
    decoder.allowed, decoder.data_left = b"D", size
    position, turn = 0, 0
    while position < len(stream):
        cut = cuts[turn % len(cuts)]
        for _kind, piece in decoder.feed(memoryview(stream)[position : position + cut]):
            decoder.data_left -= len(piece)
        position, turn = position + cut, turn + 1
    assert decoder.data_left == 0
    assert len(decoder._payload) == 0
    with pytest.raises(FrameError, match="0 are to come"):
        list(decoder.feed(memoryview(encode_frame(b"D", b"x"))))


@pytest.mark.parametrize(("left", "length"), [(10, 9), (10, 11), (10, 0), (1 << 20, 10), (1 << 20, 1 << 20)])
def test_data_in_crumbs_or_in_excess_fails_at_the_header(left: int, length: int) -> None:
    decoder = FrameDecoder()
    decoder.allowed, decoder.data_left = b"D", left
    with pytest.raises(FrameError, match=f"type D with {length} bytes"):
        list(decoder.feed(memoryview(b"D" + length.to_bytes(4, "big"))))


def test_too_long_a_frame_is_not_sent() -> None:
    with pytest.raises(FrameError, match="too long"):
        encode_frame(b"R", bytes(MAX_PAYLOAD_BYTES + 1))

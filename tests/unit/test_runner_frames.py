"""Frames survive any way a socket cuts them, and nothing over the bounds gets in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_runner import frames
from kubecoderun_runner.orders import parse_order

FRAMES = st.lists(st.tuples(st.sampled_from([b"R", b"C", b"I", b"G"]), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.integers(1, 64))
def test_any_cut_gives_the_same_frames(sent: list[tuple[bytes, bytes]], step: int) -> None:
    stream = b"".join(frames.encode(kind, payload) for kind, payload in sent)
    reader = frames.FrameReader()
    got: list[tuple[bytes, bytes]] = []
    for start in range(0, len(stream), step):
        for kind, payload in reader.feed(memoryview(stream)[start : start + step]):
            if kind == b"C" and got and got[-1][0] == kind:
                got[-1] = (kind, got[-1][1] + bytes(payload))
            else:
                got.append((kind, bytes(payload)))
    assert got == joined(sent)


def joined(sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Neighbouring code joined, empty code left out: it passes through in any pieces."""
    result: list[tuple[bytes, bytes]] = []
    for kind, payload in sent:
        if kind == b"C" and result and result[-1][0] == kind:
            result[-1] = (kind, result[-1][1] + payload)
        elif kind != b"C" or payload:
            result.append((kind, payload))
    return result


def test_a_length_over_the_bound_is_refused_before_it_arrives() -> None:
    with pytest.raises(frames.FrameError, match="announces"):
        list(frames.FrameReader().feed(memoryview(b"C" + (frames.MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big"))))


@pytest.mark.parametrize("payload", [b"", b"[]", b"nul", b"\xff", b"[" * 100_000])
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode_json(payload)


def order(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "language": "py",
        "args": ["a"],
        "env": {"A": "b"},
        "timeoutSeconds": 3,
        "codeBytes": 5,
        "stdinBytes": 0,
    }
    return fields | changes


def test_an_order_is_read_as_sent() -> None:
    read = parse_order(json.loads(json.dumps(order())))
    assert (read.args, read.env, read.timeout_seconds, read.code_bytes) == (["a"], {"A": "b"}, 3.0, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": "a"},
        {"args": [1]},
        {"args": ["a\0b"]},
        {"env": []},
        {"args": ["\ud800"]},
        {"env": {"A": 1}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A\0": "x"}},
        {"language": None},
        {"timeoutSeconds": 0},
        {"timeoutSeconds": True},
        {"timeoutSeconds": float("nan")},
        {"codeBytes": -1},
        {"codeBytes": 1 << 40},
        {"stdinBytes": "1"},
    ],
    ids=str,
)
def test_a_wrong_order_names_the_field(wrong: dict[str, object]) -> None:
    with pytest.raises(frames.FrameError, match=next(iter(wrong))):
        parse_order(order(**wrong))

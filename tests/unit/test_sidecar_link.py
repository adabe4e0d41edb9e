"""The conversation with a runner that says anything in any order: always one definite end, never a crash."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_sidecar.delivery import Batch
from kubecoderun_sidecar.dialogue import ALLOWED, ExitReport, Phase
from kubecoderun_sidecar.frames import PIECE_BYTES, encode_frame
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.observer import RuntimeLostError
from kubecoderun_sidecar.protocol import Limits
from kubecoderun_sidecar.pulling import UnreadableError
from kubecoderun_sidecar.runtime import RuntimeLink

EXIT = {"exitCode": 0, "cpuSeconds": 0, "maxRssBytes": 0, "wallSeconds": 0}
LIMITS = Limits(files=4, file_bytes=PIECE_BYTES * 2, total_file_bytes=PIECE_BYTES * 4)
SIZES = {"a": 5, "b": PIECE_BYTES, "c": PIECE_BYTES + 7}


class Transport:
    """Takes everything at once; a runner is read only while `reading`."""

    def __init__(self) -> None:
        self.reading = True
        self.aborted = False
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0, "else buffers would be used again too early"


class Observer:
    """Notes what it hears, and that it may hear it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_started(self) -> None:
        self.heard.append("started")

    def on_output(self, _is_stderr: bool, chunk: memoryview) -> None:
        assert len(chunk) > 0
        assert self.heard == ["started"]

    def on_exit(self, _report: ExitReport) -> None:
        self.heard.append("exit")

    def on_listed(self) -> None:
        self.heard.append("listed")

    def on_lost(self, detail: str) -> None:
        assert detail
        self.heard.append("lost")


ENDS = (["lost"], ["started", "lost"], ["started", "exit", "lost"], ["started", "exit", "listed"])


def listed(path: str, size: int) -> bytes:
    return encode_frame(b"L", json.dumps({"path": path, "bytes": size}).encode())


END = encode_frame(b"Z", b'{"skipped":[],"skippedCount":0}')
HONEST = [
    encode_frame(b"S"),
    encode_frame(b"O", b"out"),
    encode_frame(b"X", json.dumps(EXIT).encode()),
    *(listed(path, size) for path, size in SIZES.items()),
    END,
]
LIES = st.one_of(
    st.sampled_from(
        [*HONEST, encode_frame(b"F"), encode_frame(b"P"), encode_frame(b"H"), encode_frame(b"U")]
    ),
    st.sampled_from(
        [encode_frame(b"D", bytes(5)), encode_frame(b"U", b'{"index":0}'), listed("d", 1), b"\xff"]
    ),
    st.builds(
        encode_frame, st.sampled_from([bytes([kind]) for kind in b"HWPSOEXLZDUF"]), st.binary(max_size=40)
    ),
    st.binary(min_size=1, max_size=20),
)


async def prepared(transport: Transport) -> tuple[RuntimeLink, Listing]:
    """A link whose runner has taken a job."""
    link, listing = RuntimeLink(), Listing(LIMITS, ())
    assert link.connected(transport)  # type: ignore[arg-type]
    link.received(memoryview(encode_frame(b"H", b'{"protocol":1,"languages":[]}') + encode_frame(b"W")))

    async def batches() -> Any:
        yield Batch([encode_frame(b"R")], last=True)

    delivering = asyncio.create_task(link.deliver(batches(), listing))
    while not transport.written:  # noqa: ASYNC110
        await asyncio.sleep(0)
    link.received(memoryview(encode_frame(b"P")))
    await delivering
    return link, listing


def feed(link: RuntimeLink, transport: Transport, data: bytes, cuts: list[int]) -> None:
    """What the runner says, in pieces, as long as it is read."""
    position, turn = 0, 0
    while position < len(data) and transport.reading and not transport.aborted:
        size = cuts[turn % len(cuts)]
        link.received(memoryview(bytearray(data[position : position + size])))
        position, turn = position + size, turn + 1


@settings(deadline=None)
@given(
    kept=st.integers(0, len(HONEST)),
    lies=st.lists(LIES, max_size=6),
    cuts=st.lists(st.integers(1, 200), min_size=1, max_size=4),
)
def test_a_run_has_one_end_whatever_is_said(kept: int, lies: list[bytes], cuts: list[int]) -> None:
    async def play() -> None:
        transport, observer = Transport(), Observer()
        link, _listing = await prepared(transport)
        link.go(observer)
        feed(link, transport, b"".join(HONEST[:kept]) + b"".join(lies), cuts)
        if link.phase not in (Phase.LISTED, Phase.LOST):
            link.lose("the test is over")
        assert observer.heard in ENDS
        assert transport.aborted == link.lost

    asyncio.run(play())


@settings(deadline=None)
@given(
    data=st.data(),
    lies=st.lists(LIES, max_size=3),
    cuts=st.lists(st.sampled_from([3000, 70_000, PIECE_BYTES + 5, 300_000, 1 << 20]), min_size=1, max_size=4),
)
def test_a_file_comes_whole_or_not_at_all(data: st.DataObject, lies: list[bytes], cuts: list[int]) -> None:
    """Three files, each honest, cut short, cut by lies, or given up by whoever asked for it."""

    async def play() -> None:
        transport, observer = Transport(), Observer()
        link, listing = await prepared(transport)
        link.go(observer)
        feed(link, transport, b"".join(HONEST), [1 << 20])
        assert link.phase is Phase.LISTED
        for file in listing.files:
            content = bytes([file.index + 1]) * file.bytes
            frames = [
                encode_frame(b"D", content[start : start + PIECE_BYTES])
                for start in range(0, len(content), PIECE_BYTES)
            ]
            # Mostly honest, so that the later files are reached.
            kept = data.draw(st.sampled_from([len(frames)] * 4 + list(range(len(frames)))))
            honest = kept == len(frames)
            rest = [] if honest else [encode_frame(b"U", b'{"index":%d}' % file.index), *lies]
            stop_after = data.draw(st.sampled_from([None, None, None, 0, 1]))
            outcome = await take(link, transport, file, b"".join(frames[:kept] + rest), cuts, stop_after)
            if isinstance(outcome, bytes) and stop_after is None:
                assert outcome == content
            elif isinstance(outcome, bytes):
                assert content.startswith(outcome)
            if link.lost:
                break
        assert transport.aborted == link.lost
        assert link.lost or transport.reading or link.phase is Phase.PULLING

    asyncio.run(play())


async def take(
    link: RuntimeLink, transport: Transport, file: Any, said: bytes, cuts: list[int], stop_after: int | None
) -> bytes | type[Exception]:
    """Pull a file while the runner says `said`, piece by piece as it is read; give up after some pieces."""
    got = bytearray()

    async def ask() -> None:
        pieces = link.pull(file)
        count = 0
        try:
            async for piece in pieces:
                got.extend(piece)
                count += 1
                if stop_after is not None and count > stop_after:
                    return
        finally:
            await pieces.aclose()

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    position, turn = 0, 0
    while position < len(said) and not transport.aborted:
        if transport.reading:
            size = cuts[turn % len(cuts)]
            link.received(memoryview(bytearray(said[position : position + size])))
            position, turn = position + size, turn + 1
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    if not asking.done():
        link.lose("the runner has said all it had to say")
    try:
        await asking
    except (UnreadableError, RuntimeLostError) as error:
        return type(error)
    return bytes(got)


def test_the_phases_after_the_end_allow_only_their_own_frames() -> None:
    assert ALLOWED[Phase.LISTING] == b"LZF"
    assert ALLOWED[Phase.LISTED] == b"F"
    assert ALLOWED[Phase.PULLING] == b"DUF"
    assert ALLOWED[Phase.ENDED] == b""

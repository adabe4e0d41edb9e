"""The runner as the sidecar sees it: one connection for the life of the pod.

The peer shares its container with untrusted code, so every length, order and silence is bounded here. Any
violation closes the connection for good (`lost`), and whoever waits gets RuntimeLostError with the cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator

from kubecoderun_sidecar import metrics
from kubecoderun_sidecar.delivery import Batch
from kubecoderun_sidecar.dialogue import (
    ALLOWED,
    DeliveryFault,
    ExitReport,
    Phase,
    check_unreadable,
    parse_exit,
    parse_fault,
    parse_hello,
    parse_warm,
)
from kubecoderun_sidecar.exchange import Data
from kubecoderun_sidecar.fields import ProtocolError, decode_object, encode_object
from kubecoderun_sidecar.frames import PIECE_BYTES, FrameDecoder, FrameError, encode_frame, frame_header
from kubecoderun_sidecar.limits import Bounds
from kubecoderun_sidecar.listing import ListedFile, Listing
from kubecoderun_sidecar.observer import RunObserver, RuntimeLostError, UndeliverableError
from kubecoderun_sidecar.pulling import Pull
from kubecoderun_sidecar.toolcalls import parse_call

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
WARM_SECONDS = 600.0
"""From hello to warm: the runner loads its modules meanwhile, on a machine that may be starting many pods."""
ANSWER_SECONDS = 10.0
"""How long the runner may take for each piece of a delivery, and to confirm it; for each file it lists; and
for each piece of one it hands over."""
_FREE = frozenset({Phase.WARM, Phase.PREPARED, Phase.LISTED, Phase.ENDED, Phase.STOPPED})
"""Where another delivery may begin, for a runner that takes several."""
_JOINED_BYTES = 64 << 10
"""Up to this size several frames are copied together, and cost one system call."""


class RuntimeLink:
    """The conversation with the runner. All methods belong to the event loop."""

    def __init__(self) -> None:
        self.phase: Phase | None = None
        """None while nobody has connected."""
        self.languages: frozenset[str] = frozenset()
        self.features: frozenset[str] = frozenset()
        self.bounds = Bounds()
        self.was_warm = False
        self.settled = asyncio.Event()
        """Set once it is certain whether the runtime becomes warm: it is, or it is lost."""
        self._detail = ""
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._frames: Iterator[tuple[int, memoryview | bytes]] = iter(())
        """What is still to be handled of the bytes that were received last."""
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._fault: DeliveryFault | None = None
        self._again = False
        """The delivery in progress is one of several."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._listing: Listing | None = None
        self._pull: Pull | None = None
        self._observer: RunObserver | None = None

    @property
    def lost(self) -> bool:
        return self.phase is Phase.LOST

    @property
    def lost_because(self) -> str | None:
        """Why the runner was given up; None while it was not."""
        return self._detail if self.lost else None

    @property
    def pulling(self) -> bool:
        """A file is on its way."""
        return self.phase is Phase.PULLING

    # -- what the sidecar asks for

    async def deliver(self, batches: AsyncGenerator[Batch], listing: Listing, *, again: bool = False) -> None:
        """Hand everything a run needs to a warm runner, and wait until it has it. `listing` will take the
        list of the run's files.

        again: earlier runs may have been there, and a delivery that comes to nothing costs only its run.
        Otherwise: nothing is sent before the first batch is there, so what is raised instead of it leaves the
        runner untouched; what is raised later loses the runtime.
        Raises RuntimeLostError, UndeliverableError, or what `batches` raises.
        """
        if again:
            await self._become_free()
        else:
            self._expect(Phase.WARM)
        batch = await anext(batches, None)
        if self.phase is Phase.LOST or not (again or self.phase is Phase.WARM):
            raise RuntimeLostError(self._detail or "the runtime is not where it should be")
        self._enter(Phase.DELIVERING)
        self._again, self._fault = again, None
        self._listing = listing
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            while batch is not None:
                self._send(*batch.parts)
                if batch.last:
                    self._enter(Phase.DELIVERED)
                await self._drain()
                self._check_taken()
                batch = await anext(batches, None)
            await self._confirmed(self._waiter)
            self._check_taken()
        except BaseException:
            # Whatever went wrong, the runner is in the middle of a delivery that will never be whole.
            if again and not self.lost:
                self._enter(Phase.STOPPED)
            else:
                self.lose("the delivery to the runner broke off")
            if self._fault is not None:
                raise UndeliverableError(self._fault) from None
            raise
        finally:
            self._waiter = None

    async def _become_free(self) -> None:
        """Wait for what still comes of the run before, a file that was given up."""
        if self._pull is not None:
            await self._rest_of(self._pull)
            self._pull = None
        if self.phase not in _FREE:
            raise RuntimeLostError(self._detail or "the runtime is not where it should be")

    def _check_taken(self) -> None:
        if self._fault is not None:
            raise UndeliverableError(self._fault)

    def go(self, observer: RunObserver) -> None:
        """Start the prepared program; `observer` hears everything from now on, possibly at once."""
        self._observer = observer
        if self.phase is not Phase.PREPARED:
            self._observer = None
            observer.on_lost(self._detail or "the runtime is not prepared")
            return
        self._enter(Phase.GOING)
        self._send(encode_frame(b"G"))

    def cancel(self) -> None:
        """Ask the runner to end the program. Nothing to do when it has ended."""
        if self.phase in (Phase.GOING, Phase.RUNNING):
            self._send(encode_frame(b"K"))

    async def answer(self, number: int, value: bytes | None, error: str | None) -> None:
        """Bring the result of a tool call to the program, or why there is none. Nothing happens when the
        program has ended. One at a time. Raises RuntimeLostError."""
        if self.phase is not Phase.RUNNING:
            return
        if value is None:
            self._send(encode_frame(b"A", encode_object({"number": number, "error": error or "it failed"})))
        else:
            parts: list[Data] = [encode_frame(b"A", encode_object({"number": number, "bytes": len(value)}))]
            view = memoryview(value)
            for start in range(0, len(view), PIECE_BYTES):
                piece = view[start : start + PIECE_BYTES]
                parts += (frame_header(b"V", len(piece)), piece)
            self._send(*parts)
        await self._drain()

    async def pull(self, file: ListedFile) -> AsyncGenerator[Data]:
        """Yield a listed file, each piece valid until the next one is asked for. One file at a time; the
        runner waits while a piece is being used. Raises UnreadableError, after which the pieces so far are
        void, or RuntimeLostError."""
        if self._pull is not None:
            await self._rest_of(self._pull)
        self._expect(Phase.LISTED)
        if not file.bytes:
            return
        self._enter(Phase.PULLING)
        pull = self._pull = Pull(file, self._decoder)
        self._send(encode_frame(b"T", encode_object({"index": file.index})))
        try:
            while pull.piece is not None or not pull.over:
                yield await self._piece(pull)
                pull.piece = None
                self._go_on()
            pull.check()
        finally:
            pull.abandon()
            self._go_on()

    def lose(self, detail: str) -> None:
        """Give the runner up: close the connection, and tell everybody why. Only the first call counts."""
        if self.lost:
            return
        metrics.RUNTIME_LOST.inc()
        ended = self.phase is Phase.ENDED
        self._enter(Phase.LOST)
        self._detail = detail
        self.settled.set()
        log.log(logging.INFO if ended else logging.WARNING, "runtime lost: %s", detail)
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._pull is not None:
            self._pull.wake()
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.on_lost(detail)

    def finish(self) -> None:
        """Nothing more is wanted from the runner. A file that was given up may still be coming."""
        if self.phase is Phase.LISTED:
            self._enter(Phase.ENDED)

    # -- what the connection reports

    def connected(self, transport: asyncio.Transport) -> bool:
        """A peer with the right uid is there; False when it is not the first."""
        if self.phase is not None:
            return False
        self._transport = transport
        # So that `_drain` means that the kernel has everything, and no buffer of ours is in use any more.
        transport.set_write_buffer_limits(high=0)
        self._enter(Phase.CONNECTED)
        self._deadline(HELLO_SECONDS, "the runner connected and said nothing")
        return True

    def received(self, data: memoryview) -> None:
        """Bytes from the runner. They stay in use for as long as reading is paused."""
        self._frames = self._decoder.feed(data)
        self._go_on()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- frames

    def _go_on(self) -> None:
        """Handle what has been received, up to a piece of a file: the rest waits until that has been used."""
        if self.lost:
            return
        try:
            for kind, payload in self._frames:
                self._handle(kind, payload)
                if self.lost:
                    return
                if self._pull is not None and self._pull.piece is not None:
                    self._read_on(False)
                    return
        except (FrameError, ProtocolError) as error:
            self.lose(f"the runner broke the protocol: {error}")
            return
        self._read_on(True)

    def _read_on(self, reading: bool) -> None:
        if reading == self._reading or self._transport is None or self.lost:
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _handle(self, kind: int, payload: memoryview | bytes) -> None:
        match kind:
            case 0x4F | 0x45:  # O, E
                if self._observer is not None:
                    self._observer.on_output(kind == 0x45, memoryview(payload))
            case 0x44:  # D
                self._handle_data(payload)
            case 0x48:  # H
                hello = parse_hello(bytes(payload))
                self.languages, self.features = hello.languages, hello.features
                self._enter(Phase.GREETED)
                self._deadline(WARM_SECONDS, "the runner did not become warm in time")
            case 0x57:  # W
                self.bounds = parse_warm(bytes(payload))
                self._enter(Phase.WARM)
                self.was_warm = True
                self.settled.set()
            case 0x50:  # P
                self._handle_prepared(bytes(payload))
            case 0x53:  # S
                decode_object(bytes(payload), "started")
                self._enter(Phase.RUNNING)
                if self._observer is not None:
                    self._observer.on_started()
            case 0x51:  # Q
                call = parse_call(bytes(payload))
                if self._observer is not None:
                    self._observer.on_call(call)
            case 0x58:  # X
                self._handle_exit(parse_exit(bytes(payload)))
            case 0x4C | 0x5A:  # L, Z
                self._handle_listing(kind == 0x5A, bytes(payload))
            case 0x55:  # U
                self._handle_unreadable(bytes(payload))
            case _:  # F: its message is the user's word, so it goes nowhere
                self._handle_fault(bytes(payload))

    def _handle_fault(self, payload: bytes) -> None:
        delivering = self.phase in (Phase.DELIVERING, Phase.DELIVERED)
        fault = parse_fault(payload)
        if delivering:
            self._fault = fault
        elif self.phase is Phase.STOPPED and fault.kind != "other":
            return  # about the delivery that was given up here too
        if not (delivering and self._again and fault.kind != "other"):
            self.lose("the runner reported a fault")
            return
        # The runner is still there for the next one, and only this delivery ends: `deliver` sees to that.
        self._enter(Phase.STOPPED)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _handle_prepared(self, payload: bytes) -> None:
        decode_object(payload, "prepared")
        if self._waiter is None or self._waiter.done():
            raise FrameError("an answer to nothing")
        self._enter(Phase.PREPARED)
        self._waiter.set_result(None)

    def _handle_exit(self, report: ExitReport) -> None:
        observer = self._observer
        if self._listing is not None and self._listing.wanted:
            self._enter(Phase.LISTING)
            self._deadline(ANSWER_SECONDS, "the runner did not list its files in time")
        else:
            self._enter(Phase.ENDED)
            self._observer = None
        if observer is not None:
            observer.on_exit(report)

    def _handle_listing(self, complete: bool, payload: bytes) -> None:
        assert self._listing is not None
        if not complete:
            self._listing.add(payload)
            self._enter(Phase.LISTING)
            self._deadline(ANSWER_SECONDS, "the runner did not list its files in time")
            return
        self._listing.finish(payload)
        self._enter(Phase.LISTED)
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.on_listed()

    def _handle_data(self, piece: memoryview | bytes) -> None:
        assert self._pull is not None
        self._pull.add(piece)
        if self._pull.over:
            self._enter(Phase.LISTED)

    def _handle_unreadable(self, payload: bytes) -> None:
        assert self._pull is not None
        check_unreadable(payload, self._pull.file.index)
        self._pull.fail()
        self._enter(Phase.LISTED)

    # -- small steps

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._decoder.allowed = ALLOWED[phase]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect(self, phase: Phase) -> None:
        if self.phase is not phase:
            raise RuntimeLostError(self._detail or "the runtime is not where it should be")

    def _deadline(self, seconds: float, detail: str) -> None:
        """Lose the runtime unless the next phase comes in time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.lose, detail)

    def _send(self, *parts: Data) -> None:
        """Write frames. Parts must not change before `_drain` has returned."""
        if self._transport is None or self.lost:
            raise RuntimeLostError(self._detail)
        if sum(map(len, parts)) <= _JOINED_BYTES:
            parts = (b"".join(parts),)
        for part in parts:
            self._transport.write(part)

    async def _drain(self) -> None:
        """Wait until the kernel has taken all that was written."""
        if not self._writable.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._writable.wait()
            except TimeoutError:
                self.lose("the runner did not take its input in time")
        if self.lost:
            raise RuntimeLostError(self._detail)

    async def _confirmed(self, waiter: asyncio.Future[None]) -> None:
        """Wait for frame P."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await waiter
        except TimeoutError:
            self.lose("the runner did not confirm its input in time")
        if self.lost:
            raise RuntimeLostError(self._detail)

    async def _piece(self, pull: Pull) -> Data:
        """The next piece of a file."""
        try:
            piece = await pull.next(ANSWER_SECONDS)
        except TimeoutError:
            self.lose("the runner did not hand over a file in time")
            piece = None
        if piece is None:
            raise RuntimeLostError(self._detail)
        return piece

    async def _rest_of(self, pull: Pull) -> None:
        """Wait for what still comes of a file that was given up."""
        try:
            while not (pull.over or self.lost):
                await pull.change(ANSWER_SECONDS)
        except TimeoutError:
            self.lose("the runner did not hand over a file in time")

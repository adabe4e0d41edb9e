"""The unix socket to the runner: one listener, one peer, one connection for the life of the pod.

The peer shares its container with untrusted code, so every length, order and silence is bounded here. Any
violation closes the connection for good (`lost`), and whoever waits gets RuntimeLostError with the cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Protocol

from kubecoderun_sidecar.dialogue import ALLOWED, ExitReport, Phase, parse_exit, parse_hello
from kubecoderun_sidecar.fields import ProtocolError, decode_object, encode_object
from kubecoderun_sidecar.frames import CHUNK_BYTES, FrameDecoder, FrameError, encode_frame

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
WARM_SECONDS = 600.0
"""From hello to warm: the runner loads its modules meanwhile, on a machine that may be starting many pods."""
ANSWER_SECONDS = 10.0
"""How long the runner may take for each piece of a delivery, and to confirm it."""
_READ_BYTES = 64 << 10
"""Read at a time. Bounds how long the event loop is busy with the smallest frames (about 20 ms)."""
_SO_PEERCRED = struct.Struct("iII")


class RuntimeLostError(Exception):
    """The runner is gone or broke the protocol. The text is the sidecar's own, never the runner's."""


class RunObserver(Protocol):
    """Takes what happens to a program, as it happens. Methods must not raise or block."""

    def on_started(self) -> None: ...

    def on_output(self, is_stderr: bool, chunk: memoryview) -> None:
        """`chunk` is only valid during the call."""

    def on_exit(self, report: ExitReport) -> None: ...

    def on_lost(self, detail: str) -> None: ...


class RuntimeLink:
    """The runner as the sidecar sees it. All methods belong to the event loop."""

    def __init__(self) -> None:
        self.phase: Phase | None = None
        """None while nobody has connected."""
        self.languages: frozenset[str] = frozenset()
        self.was_warm = False
        self._detail = ""
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._observer: RunObserver | None = None

    @property
    def lost(self) -> bool:
        return self.phase is Phase.LOST

    # -- what the sidecar asks for

    async def deliver(
        self, head: dict[str, object], code: AsyncIterator[bytes], code_bytes: int, stdin: bytes
    ) -> None:
        """Hand everything a run needs to a warm runner, and wait until it has it.

        `code` must yield `code_bytes` in all. Nothing is sent before it has yielded or ended, so what it
        raises first leaves the runner untouched; what it raises later loses the runtime.
        Raises RuntimeLostError, or what `code` raises.
        """
        self._expect_warm()
        chunk = await anext(code, b"")
        self._expect_warm()
        self._enter(Phase.DELIVERING)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            header = encode_frame(b"R", encode_object(head))
            left = code_bytes
            while chunk or not left:
                left -= len(chunk)
                # The runner may confirm as soon as it has the last byte, while `code` is still checking.
                self._send(header, _chunks(b"C", chunk), b"" if left else _chunks(b"I", stdin))
                header = b""
                if not left:
                    self._enter(Phase.DELIVERED)
                await self._drain()
                chunk = await anext(code, b"")
                if not left:
                    break
            await self._confirmed(self._waiter)
        except BaseException:
            # Whatever went wrong, the runner is in the middle of a delivery that will never be whole.
            self.lose("the delivery to the runner broke off")
            raise
        finally:
            self._waiter = None

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

    def lose(self, detail: str) -> None:
        """Give the runner up: close the connection, and tell everybody why. Only the first call counts."""
        if self.lost:
            return
        ended = self.phase is Phase.ENDED
        self._enter(Phase.LOST)
        self._detail = detail
        log.log(logging.INFO if ended else logging.WARNING, "runtime lost: %s", detail)
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.on_lost(detail)

    # -- what the connection reports

    def connected(self, transport: asyncio.Transport) -> bool:
        """A peer with the right uid is there; False when it is not the first."""
        if self.phase is not None:
            return False
        self._transport = transport
        self._enter(Phase.CONNECTED)
        self._deadline(HELLO_SECONDS, "the runner connected and said nothing")
        return True

    def received(self, data: memoryview) -> None:
        """Bytes from the runner."""
        if self.lost:
            return
        try:
            for kind, payload in self._decoder.feed(data):
                self._handle(kind, payload)
                if self.lost:
                    return
        except (FrameError, ProtocolError) as error:
            self.lose(f"the runner broke the protocol: {error}")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- frames

    def _handle(self, kind: int, payload: memoryview | bytes) -> None:
        match kind:
            case 0x4F | 0x45:  # O, E
                if self._observer is not None:
                    self._observer.on_output(kind == 0x45, memoryview(payload))
            case 0x48:  # H
                self.languages = parse_hello(bytes(payload))
                self._enter(Phase.GREETED)
                self._deadline(WARM_SECONDS, "the runner did not become warm in time")
            case 0x57:  # W
                decode_object(bytes(payload), "warm")
                self._enter(Phase.WARM)
                self.was_warm = True
            case 0x50:  # P
                self._handle_prepared(bytes(payload))
            case 0x53:  # S
                decode_object(bytes(payload), "started")
                self._enter(Phase.RUNNING)
                if self._observer is not None:
                    self._observer.on_started()
            case 0x58:  # X
                report = parse_exit(bytes(payload))
                self._enter(Phase.ENDED)
                observer, self._observer = self._observer, None
                if observer is not None:
                    observer.on_exit(report)
            case _:  # F: its message is the user's word, so it goes nowhere
                self.lose("the runner reported a fault")

    def _handle_prepared(self, payload: bytes) -> None:
        decode_object(payload, "prepared")
        if self._waiter is None or self._waiter.done():
            raise FrameError("an answer to nothing")
        self._enter(Phase.PREPARED)
        self._waiter.set_result(None)

    # -- small steps

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._decoder.allowed = ALLOWED[phase]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect_warm(self) -> None:
        if self.phase is not Phase.WARM:
            raise RuntimeLostError(self._detail or "the runtime is not warm")

    def _deadline(self, seconds: float, detail: str) -> None:
        """Lose the runtime unless the next phase comes in time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.lose, detail)

    def _send(self, *parts: bytes) -> None:
        if self._transport is None or self.lost:
            raise RuntimeLostError(self._detail)
        self._transport.write(b"".join(parts))

    async def _drain(self) -> None:
        """Wait until the runner has taken most of what was written."""
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


def _chunks(kind: bytes, data: bytes) -> bytes:
    """`data` as frames of at most CHUNK_BYTES; nothing for no data."""
    return b"".join(
        encode_frame(kind, data[start : start + CHUNK_BYTES]) for start in range(0, len(data), CHUNK_BYTES)
    )


class _Connection(asyncio.BufferedProtocol):
    """One accepted connection. Reads into one fixed buffer, so output costs no memory per read."""

    def __init__(self, link: RuntimeLink, allowed_uid: int, accepted: Callable[[], None]) -> None:
        self._link = link
        self._allowed_uid = allowed_uid
        self._accepted = accepted
        self._peer = False
        self._buffer = memoryview(b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        uid = _peer_uid(transport.get_extra_info("socket"))
        if uid != self._allowed_uid:
            log.warning("refused a connection of uid %d to the runner's socket", uid)
            transport.abort()
            return
        if not self._link.connected(transport):
            transport.abort()
            return
        self._peer = True
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._accepted()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer if self._peer else memoryview(bytearray(1))

    def buffer_updated(self, nbytes: int) -> None:
        if self._peer:
            self._link.received(self._buffer[:nbytes])

    def pause_writing(self) -> None:
        self._link.pause_writing()

    def resume_writing(self) -> None:
        self._link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._peer:
            self._link.lose("the runner closed the connection")


def _peer_uid(sock: socket.socket) -> int:
    _pid, uid, _gid = _SO_PEERCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _SO_PEERCRED.size)
    )
    return int(uid)


class RuntimeListener:
    """Waits for the one peer at `path`, then disappears from the file system."""

    def __init__(self, link: RuntimeLink, path: str, allowed_uid: int) -> None:
        self._link = link
        self._path = path
        self._allowed_uid = allowed_uid
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Start to listen; OSError when the path cannot be used."""
        _remove_socket(self._path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind(self._path)
            # The runner has another uid. The peer check, not the mode, says who may speak.
            os.chmod(self._path, 0o666)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self._link, self._allowed_uid, self.close), sock=sock, backlog=4
            )
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """Stop to listen; an accepted connection lives on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _remove_socket(path: str) -> None:
    """Remove what an earlier listener left behind; anything but a socket stays and fails the bind."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)

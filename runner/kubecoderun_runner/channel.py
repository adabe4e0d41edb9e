"""The connection to the sidecar: non-blocking, with a bounded queue of what is still to be sent."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from kubecoderun_runner.frames import FrameReader

QUEUE_BYTES: Final = 2 << 20
"""With more than this queued, output of programs is not read any further: they wait, memory does not grow."""
_READ_BYTES: Final = 1 << 18
_SEND_BUFFER_BYTES: Final = 1 << 20
"""Wanted size of the socket's buffer (the kernel may give less): files then flow in fewer, larger steps."""


class ChannelClosedError(Exception):
    """The sidecar is gone: there is nobody to work for."""


def connect(path: str, seconds: float) -> socket.socket:
    """Connect to the sidecar, which may start after us. ChannelClosedError when it does not come in time."""
    deadline = time.monotonic() + seconds
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return sock
        except OSError as error:
            sock.close()
            if time.monotonic() > deadline:
                raise ChannelClosedError(f"no sidecar listens: {error.strerror}") from None
        time.sleep(0.02)


class Channel:
    """Frames to and from the sidecar."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._sock = sock
        self._reader = FrameReader()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._queue: deque[memoryview] = deque()
        self.queued = 0
        """Bytes that are waiting to be sent."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def congested(self) -> bool:
        return self.queued > QUEUE_BYTES

    def send(self, *parts: bytes | memoryview) -> None:
        """Send now what the socket takes, and queue the rest. A part that can change must not, until nothing
        is queued any more."""
        for part in filter(len, parts):
            self._queue.append(memoryview(part))
            self.queued += len(part)
        self.flush()

    def flush(self) -> None:
        """Send from the queue until the socket is full; ChannelClosedError when the sidecar is gone."""
        while self._queue:
            try:
                sent = self._sock.sendmsg(list(self._queue)[:8])
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosedError(f"the sidecar is gone: {error.strerror}") from None
            self.queued -= sent
            self._drop(sent)

    def receive(self) -> Iterator[tuple[bytes, memoryview | bytes]]:
        """What has arrived, as FrameReader.feed yields it: use each payload before asking for the next.
        FrameError, or ChannelClosedError at the end of the stream."""
        return self._reader.feed(self._read())

    def discard(self) -> None:
        """Drop what has arrived; ChannelClosedError at the end of the stream."""
        self._read()

    def _read(self) -> memoryview:
        try:
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return self._buffer[:0]
        except OSError as error:
            raise ChannelClosedError(f"the sidecar is gone: {error.strerror}") from None
        if not count:
            raise ChannelClosedError("the sidecar closed the connection")
        return self._buffer[:count]

    def _drop(self, sent: int) -> None:
        while sent:
            first = self._queue[0]
            if len(first) > sent:
                self._queue[0] = first[sent:]
                return
            sent -= len(first)
            self._queue.popleft()

"""The connection to the sidecar: non-blocking, with a bounded queue of what is still to be sent."""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Final

from kubecoderun_runner.frames import FrameReader

QUEUE_BYTES: Final = 2 << 20
"""With more than this queued, output of programs is not read any further: they wait, memory does not grow."""
_READ_BYTES: Final = 1 << 18


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
        self._sock = sock
        self._reader = FrameReader()
        self._queue: deque[memoryview] = deque()
        self.queued = 0
        """Bytes that are waiting to be sent."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def congested(self) -> bool:
        return self.queued > QUEUE_BYTES

    def send(self, *parts: bytes) -> None:
        """Send now what the socket takes, and queue the rest."""
        for part in parts:
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

    def receive(self) -> list[tuple[bytes, bytes]]:
        """The frames that have arrived; FrameError, or ChannelClosedError at the end of the stream."""
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ChannelClosedError(f"the sidecar is gone: {error.strerror}") from None
        if not data:
            raise ChannelClosedError("the sidecar closed the connection")
        return self._reader.feed(data)

    def _drop(self, sent: int) -> None:
        while sent:
            first = self._queue[0]
            if len(first) > sent:
                self._queue[0] = first[sent:]
                return
            sent -= len(first)
            self._queue.popleft()

"""The unix socket the runner connects to: one listener, one peer, then the socket disappears."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress

from kubecoderun_sidecar.runtime import RuntimeLink

log = logging.getLogger(__name__)

_READ_BYTES = 64 << 10
"""Read at a time. Bounds how long the event loop is busy with the smallest frames (about 20 ms)."""
_LARGE_READ_BYTES = 256 << 10
"""The same while a file flows, whose frames are large."""
_SEND_BUFFER_BYTES = 1 << 20
"""Wanted size of the socket's buffer (the kernel may give less): files then flow in fewer, larger steps."""
_SO_PEERCRED = struct.Struct("iII")


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
        sock = transport.get_extra_info("socket")
        uid = _peer_uid(sock)
        if uid != self._allowed_uid:
            log.warning("refused a connection of uid %d to the runner's socket", uid)
            transport.abort()
            return
        if not self._link.connected(transport):
            transport.abort()
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._peer = True
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._accepted()

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self._peer:
            return memoryview(bytearray(1))
        # Only ever called when the link is done with what it was given last.
        wanted = _LARGE_READ_BYTES if self._link.pulling else _READ_BYTES
        if len(self._buffer) < wanted:
            self._buffer = memoryview(bytearray(wanted))
        return self._buffer[:wanted]

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

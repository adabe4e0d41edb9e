"""Signals as a readable descriptor, with their senders: Python's own handlers do not say who sent one."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from typing import Final

# struct signalfd_siginfo: number, errno, code, then the sender's process id; 128 bytes in all
_SIGINFO: Final = struct.Struct("=IiiI112x")
_SFD_CLOEXEC: Final = os.O_CLOEXEC
_SFD_NONBLOCK: Final = os.O_NONBLOCK
_SIGSET_BYTES: Final = 128


def open_signals(numbers: set[signal.Signals]) -> int:
    """Block the signals and return a descriptor that delivers them; OSError when the kernel has none.

    Blocked signals are inherited: whoever starts a process must reset its mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    bits = sum(1 << (number - 1) for number in numbers)
    mask = ctypes.create_string_buffer(bits.to_bytes(_SIGSET_BYTES, "little"), _SIGSET_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.signalfd(-1, mask, _SFD_CLOEXEC | _SFD_NONBLOCK))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def read_signals(fd: int) -> Iterator[tuple[int, int]]:
    """(number, sender's process id) of what has come; 0 for a sender outside this PID namespace."""
    while True:
        try:
            data = os.read(fd, _SIGINFO.size)
        except BlockingIOError:
            return
        number, _errno, _code, sender = _SIGINFO.unpack(data)
        yield number, sender

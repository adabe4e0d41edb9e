"""Landlock: a second wall behind the read-only root, where the kernel has it.

Programs read and execute what the image has, and write below the working directory, /tmp and /dev/shm only,
whatever else a pod has mounted. Without a network they cannot bind or connect TCP sockets either. See
https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from typing import Final

from kubecoderun_runner.confine import ConfinementError, forbid_new_privileges

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on all architectures
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_AND_MAKE: Final = 0x1FF0
"""REMOVE_DIR, REMOVE_FILE, and MAKE_ of every kind, devices included."""
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET_TCP: Final = 0b11
_SCOPES: Final = 0b11
"""Abstract unix sockets and signals of processes outside."""
READ: Final = EXECUTE | READ_FILE | READ_DIR


@dataclass(frozen=True)
class Ruleset:
    """What a kernel of some version is asked to handle, and what is allowed below which folder."""

    filesystem: int
    network: int
    scoped: int
    rules: tuple[tuple[str, int], ...]

    def attributes(self, abi: int) -> bytes:
        """The kernel's struct landlock_ruleset_attr, as long as that version knows it."""
        size = 8 if abi < 4 else 16 if abi < 6 else 24
        return struct.pack("=QQQ", self.filesystem, self.network, self.scoped)[:size]


def ruleset(abi: int, workspace: str, *, network: bool) -> Ruleset:
    """The rules for a kernel with that version of Landlock (1 or more)."""
    handled = READ | WRITE_FILE | REMOVE_AND_MAKE
    handled |= (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0) | (IOCTL_DEV if abi >= 5 else 0)
    files = WRITE_FILE | TRUNCATE
    # Without MAKE_CHAR and MAKE_BLOCK: device files are nobody's result.
    all_but_devices = handled & ~(1 << 6) & ~(1 << 11)
    rules = (
        ("/", READ),
        (workspace, all_but_devices),
        ("/tmp", all_but_devices),
        ("/dev/shm", all_but_devices),
        ("/dev", READ | files | IOCTL_DEV),
        ("/proc", READ | files),
    )
    return Ruleset(
        filesystem=handled,
        network=_NET_TCP if abi >= 4 and not network else 0,
        scoped=_SCOPES if abi >= 6 else 0,
        rules=tuple((path, allowed & handled) for path, allowed in rules),
    )


def apply_landlock(workspace: str, *, network: bool) -> int:
    """Put the rules on this process and all it starts, for good. Returns the kernel's version of Landlock, 0
    where it has none. ConfinementError when it has, and refuses."""
    abi = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if abi < 1:
        return 0
    wanted = ruleset(abi, workspace, network=network)
    attributes = wanted.attributes(abi)
    fd = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    if fd < 0:
        raise _refused("a Landlock ruleset cannot be made")
    try:
        for path, allowed in wanted.rules:
            _allow(fd, path, allowed)
        forbid_new_privileges()
        if _call(_RESTRICT_SELF, fd, 0, 0) != 0:
            raise _refused("the Landlock ruleset cannot be applied")
    finally:
        os.close(fd)
    return abi


def _allow(ruleset_fd: int, path: str, allowed: int) -> None:
    """Allow so much below a folder, if there is such a folder."""
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        beneath = struct.pack("=Qi", allowed, folder)
        if _call(_ADD_RULE, ruleset_fd, _PATH_BENEATH, beneath, 0) != 0:
            raise _refused(f"a Landlock rule for {path} cannot be added")
    finally:
        os.close(folder)


def _call(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *passed))


def _refused(what: str) -> ConfinementError:
    code = ctypes.get_errno()
    return ConfinementError(f"{what}: {os.strerror(code or errno.EINVAL)}")

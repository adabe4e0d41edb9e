"""What programs cannot do: a seccomp filter and resource limits PID 1 puts on itself, for all that it starts.

This stands behind the cluster's own means (NetworkPolicy, RuntimeDefault seccomp), because not every
cluster has them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from dataclasses import dataclass
from typing import Final

PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
AF_UNIX: Final = 1

KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
ALLOW: Final = 0x7FFF0000

# struct seccomp_data: nr at 0, arch at 4, instruction pointer at 8, six arguments from 16 (low word first)
_NR, _ARCH, _ARG0 = 0, 4, 16
_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEW* of clone(2): a user namespace would open most of the kernel to an unprivileged program."""
_X32_BIT: Final = 0x40000000

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, operand"""


@dataclass(frozen=True)
class Machine:
    """System call numbers of one architecture."""

    audit_arch: int
    socket: int
    socketpair: int
    clone: int
    """clone(2), whose first argument holds the flags on both architectures."""
    refused: tuple[int, ...]
    """unshare, setns, bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl."""
    clone3: int = 435
    io_uring: tuple[int, ...] = (425, 426, 427)
    x32: bool = False


MACHINES: Final = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        socket=41,
        socketpair=53,
        clone=56,
        refused=(272, 308, 321, 298, 323, 248, 249, 250),
        x32=True,
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        socket=198,
        socketpair=199,
        clone=220,
        refused=(97, 268, 280, 241, 282, 217, 218, 219),
    ),
}


class ConfinementError(Exception):
    """The kernel or the machine does not offer what confinement needs."""


def seccomp_program(machine: Machine, *, sockets: bool) -> list[Instruction]:
    """The filter. Foreign system call tables kill, io_uring does not exist, and unless `sockets` is true
    only unix sockets can be made (EAFNOSUPPORT is what a kernel without the family says, so programs know
    how to report it)."""
    program: list[Instruction] = [
        (_LD_W_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, machine.audit_arch),
        (_RET, 0, 0, KILL_PROCESS),
        (_LD_W_ABS, 0, 0, _NR),
    ]
    if machine.x32:
        program += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, KILL_PROCESS)]
    # clone3 takes its flags in memory, where a filter cannot look; without it programs use clone
    for number in (*machine.io_uring, machine.clone3):
        program += [(_JEQ, 0, 1, number), (_RET, 0, 0, ERRNO | errno.ENOSYS)]
    for number in machine.refused:
        program += [(_JEQ, 0, 1, number), (_RET, 0, 0, ERRNO | errno.EPERM)]
    program += [
        (_JEQ, 0, 4, machine.clone),
        (_LD_W_ABS, 0, 0, _ARG0),
        (_JSET, 0, 1, _NEW_NAMESPACES),
        (_RET, 0, 0, ERRNO | errno.EPERM),
        (_RET, 0, 0, ALLOW),
    ]
    if not sockets:
        program += [
            (_JEQ, 1, 0, machine.socket),
            (_JEQ, 0, 3, machine.socketpair),
            (_LD_W_ABS, 0, 0, _ARG0),
            (_JEQ, 1, 0, AF_UNIX),
            (_RET, 0, 0, ERRNO | errno.EAFNOSUPPORT),
        ]
    return [*program, (_RET, 0, 0, ALLOW)]


def assemble(program: list[Instruction]) -> bytes:
    """The kernel's struct sock_filter array."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def apply_seccomp(*, sockets: bool) -> None:
    """Put the filter on this process and all it starts, for good. ConfinementError when that is not
    possible."""
    name = os.uname().machine
    machine = MACHINES.get(name)
    if machine is None:
        raise ConfinementError(f"no system call filter is known for the architecture {name}")
    program = seccomp_program(machine, sockets=sockets)
    code = ctypes.create_string_buffer(assemble(program), len(program) * 8)
    # struct sock_fprog: a short length, padding, a pointer
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _prctl(PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, "the system call filter", ctypes.addressof(fprog))


def hide_from_programs() -> None:
    """Programs have our uid: without this they could read our memory or attach to us."""
    _prctl(PR_SET_DUMPABLE, 0, "protection against being traced")


def apply_limits(processes: int, open_files: int) -> tuple[int, int]:
    """No core files; at most `processes` processes and threads of our uid (the uid is the pod's own), and
    `open_files` open files in each. Returns what holds: a bound of the node may be lower."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _bound(resource.RLIMIT_NPROC, processes), _bound(resource.RLIMIT_NOFILE, open_files)


def _bound(kind: int, wanted: int) -> int:
    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))
    return limit


def _prctl(option: int, value: int, what: str, pointer: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(number) for number in (value, pointer, 0, 0)]
    if libc.prctl(ctypes.c_int(option), *arguments) != 0:
        code = ctypes.get_errno()
        raise ConfinementError(f"{what} cannot be set: {os.strerror(code)}")

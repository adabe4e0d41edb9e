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
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

PR_SET_DUMPABLE: Final = 4
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38
SECCOMP_MODE_FILTER: Final = 2
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE: Final = 0

KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
ALLOW: Final = 0x7FFF0000

# struct seccomp_data: nr at 0, arch at 4, instruction pointer at 8, six arguments from 16 (low word first)
_NR, _ARCH, _ARG0, _ARG2 = 0, 4, 16, 32
_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEW* of clone(2): a user namespace would open most of the kernel to an unprivileged program."""
_PID_1: Final = 1
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
    refused: Mapping[str, int]
    """What no program needs and much of the kernel stands behind: EPERM."""
    aimed: tuple[int, ...]
    """prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr: the same uid is enough
    for the kernel, so a program could take the runner's files or processor away. EPERM for process 1."""
    clone3: int = 435
    io_uring: tuple[int, ...] = (425, 426, 427)
    x32: bool = False


_EVERYWHERE: Final = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
"""Numbers that are the same on all architectures."""

MACHINES: Final = {
    "x86_64": Machine(
        audit_arch=0xC000003E,
        socket=41,
        socketpair=53,
        clone=56,
        refused={
            "unshare": 272,
            "setns": 308,
            "bpf": 321,
            "perf_event_open": 298,
            "userfaultfd": 323,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "kcmp": 312,
            "fanotify_init": 300,
            "mount": 165,
            "umount2": 166,
            "pivot_root": 155,
            "chroot": 161,
            "swapon": 167,
            "swapoff": 168,
            "reboot": 169,
            "init_module": 175,
            "delete_module": 176,
            "finit_module": 313,
            "acct": 163,
            "kexec_load": 246,
            "kexec_file_load": 320,
            "quotactl": 179,
            "lookup_dcookie": 212,
            "name_to_handle_at": 303,
            "open_by_handle_at": 304,
            "iopl": 172,
            "ioperm": 173,
            **_EVERYWHERE,
        },
        aimed=(302, 142, 144, 203, 314),
        x32=True,
    ),
    "aarch64": Machine(
        audit_arch=0xC00000B7,
        socket=198,
        socketpair=199,
        clone=220,
        refused={
            "unshare": 97,
            "setns": 268,
            "bpf": 280,
            "perf_event_open": 241,
            "userfaultfd": 282,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "kcmp": 272,
            "fanotify_init": 262,
            "mount": 40,
            "umount2": 39,
            "pivot_root": 41,
            "chroot": 51,
            "swapon": 224,
            "swapoff": 225,
            "reboot": 142,
            "init_module": 105,
            "delete_module": 106,
            "finit_module": 273,
            "acct": 89,
            "kexec_load": 104,
            "kexec_file_load": 294,
            "quotactl": 60,
            "lookup_dcookie": 18,
            "name_to_handle_at": 264,
            "open_by_handle_at": 265,
            **_EVERYWHERE,
        },
        aimed=(261, 118, 119, 122, 274),
    ),
}


class ConfinementError(Exception):
    """The kernel or the machine does not offer what confinement needs."""


def seccomp_program(machine: Machine, *, families: Collection[int] | None) -> list[Instruction]:
    """The filter. Foreign system call tables kill, io_uring does not exist, and only sockets of `families`
    can be made, or any if that is None (EAFNOSUPPORT is what a kernel without the family says, so programs
    know how to report it). AF_NETLINK stands for its routing protocol: name resolution asks for addresses."""
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
    for number in machine.refused.values():
        program += [(_JEQ, 0, 1, number), (_RET, 0, 0, ERRNO | errno.EPERM)]
    for number in machine.aimed:
        program += [
            (_JEQ, 0, 4, number),
            (_LD_W_ABS, 0, 0, _ARG0),
            (_JEQ, 0, 1, _PID_1),
            (_RET, 0, 0, ERRNO | errno.EPERM),
            (_RET, 0, 0, ALLOW),
        ]
    program += [
        (_JEQ, 0, 4, machine.clone),
        (_LD_W_ABS, 0, 0, _ARG0),
        (_JSET, 0, 1, _NEW_NAMESPACES),
        (_RET, 0, 0, ERRNO | errno.EPERM),
        (_RET, 0, 0, ALLOW),
    ]
    if families is not None:
        program += _only(machine, families)
    return [*program, (_RET, 0, 0, ALLOW)]


def _only(machine: Machine, families: Collection[int]) -> list[Instruction]:
    """Let socket and socketpair pass for these families, and every other call."""
    check: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARG0)]
    for family in families:
        if family == AF_NETLINK:
            check += [(_JEQ, 0, 4, family), (_LD_W_ABS, 0, 0, _ARG2), (_JEQ, 0, 1, NETLINK_ROUTE)]
            check += [(_RET, 0, 0, ALLOW), (_LD_W_ABS, 0, 0, _ARG0)]
        else:
            check += [(_JEQ, 0, 1, family), (_RET, 0, 0, ALLOW)]
    check.append((_RET, 0, 0, ERRNO | errno.EAFNOSUPPORT))
    return [(_JEQ, 1, 0, machine.socket), (_JEQ, 0, len(check), machine.socketpair), *check]


def assemble(program: list[Instruction]) -> bytes:
    """The kernel's struct sock_filter array."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def apply_seccomp(families: Collection[int] | None) -> None:
    """Put the filter on this process and all it starts, for good. ConfinementError when that is not
    possible."""
    name = os.uname().machine
    machine = MACHINES.get(name)
    if machine is None:
        raise ConfinementError(f"no system call filter is known for the architecture {name}")
    program = seccomp_program(machine, families=families)
    code = ctypes.create_string_buffer(assemble(program), len(program) * 8)
    # struct sock_fprog: a short length, padding, a pointer
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    forbid_new_privileges()
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, "the system call filter", ctypes.addressof(fprog))


def forbid_new_privileges() -> None:
    """No program gains rights by what it starts; the kernel asks for this before it takes a filter."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


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

"""The system call filter, run by a small interpreter of the kernel's filter language, call by call."""

from __future__ import annotations

import errno
import struct

import pytest

from kubecoderun_runner import confine
from kubecoderun_runner.environment import FAMILIES, SettingsError, program_environment, read_settings

NONE, RESTRICTED = FAMILIES["None"], FAMILIES["Restricted"]
AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK = 2, 10, 16, 17, 40
I386 = 0x40000003


def verdict(program: list[confine.Instruction], arch: int, number: int, *arguments: int) -> int:
    """What the kernel would do with a call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:
            return operand
        elif code == 0x45:
            position += if_true if accumulator & operand else if_false
        else:
            jump = accumulator == operand if code == 0x15 else accumulator >= operand
            position += if_true if jump else if_false


@pytest.mark.parametrize("name", confine.MACHINES)
class TestFilter:
    def test_only_unix_sockets(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=NONE)
        refused = confine.ERRNO | errno.EAFNOSUPPORT
        for call in (machine.socket, machine.socketpair):
            assert verdict(program, machine.audit_arch, call, confine.AF_UNIX) == confine.ALLOW
            for family in (0, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK, 255):
                assert verdict(program, machine.audit_arch, call, family) == refused

    def test_the_kernel_reads_the_family_as_32_bits(self, name: str) -> None:
        """High bits of the argument must not make an internet socket look like a unix one, or hide one."""
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=NONE)
        assert (
            verdict(program, machine.audit_arch, machine.socket, (1 << 32) | AF_INET)
            == confine.ERRNO | errno.EAFNOSUPPORT
        )

    def test_a_restricted_network_has_internet_sockets_and_routing_questions(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=RESTRICTED)
        refused = confine.ERRNO | errno.EAFNOSUPPORT
        for family in (confine.AF_UNIX, AF_INET, AF_INET6):
            for kind in (1, 2, 3):
                verdicts = verdict(program, machine.audit_arch, machine.socket, family, kind)
                assert verdicts == confine.ALLOW
        assert verdict(program, machine.audit_arch, machine.socket, AF_NETLINK, 3, 0) == confine.ALLOW
        for protocol in range(1, 24):
            assert verdict(program, machine.audit_arch, machine.socket, AF_NETLINK, 3, protocol) == refused
        for family in (0, 3, AF_PACKET, AF_VSOCK, 38, 45, 255):
            assert verdict(program, machine.audit_arch, machine.socket, family, 1, 0) == refused, family

    def test_any_socket_when_the_network_is_not_ours(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=None)
        assert verdict(program, machine.audit_arch, machine.socket, AF_INET) == confine.ALLOW

    @pytest.mark.parametrize("families", [None, NONE, RESTRICTED])
    def test_io_uring_does_not_exist(self, name: str, families: tuple[int, ...] | None) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=families)
        for call in (425, 426, 427):
            assert verdict(program, machine.audit_arch, call) == confine.ERRNO | errno.ENOSYS

    def test_other_system_call_tables_kill(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=NONE)
        assert verdict(program, I386, 102) == confine.KILL_PROCESS
        if machine.x32:
            assert verdict(program, machine.audit_arch, 0x40000000 | 41, AF_INET) == confine.KILL_PROCESS

    def test_no_namespaces_and_nothing_else_that_opens_the_kernel(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=None)
        refused = confine.ERRNO | errno.EPERM
        for call in machine.refused.values():
            assert verdict(program, machine.audit_arch, call) == refused, call
        for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
            assert verdict(program, machine.audit_arch, machine.clone, flag | 17) == refused, hex(flag)
        threads = 0x003D0F00
        assert verdict(program, machine.audit_arch, machine.clone, threads) == confine.ALLOW
        # its flags are out of a filter's sight; glibc goes on with clone
        assert verdict(program, machine.audit_arch, machine.clone3) == confine.ERRNO | errno.ENOSYS

    def test_nobody_takes_anything_from_process_1(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=None)
        for call in machine.aimed:
            for itself in (0, 2, 4711, 0xFFFFFFFF):
                assert verdict(program, machine.audit_arch, call, itself) == confine.ALLOW
            for first in (1, (1 << 32) | 1):
                assert verdict(program, machine.audit_arch, call, first) == confine.ERRNO | errno.EPERM

    def test_everything_else_is_allowed(self, name: str) -> None:
        machine = confine.MACHINES[name]
        program = confine.seccomp_program(machine, families=NONE)
        special = {
            machine.socket,
            machine.socketpair,
            machine.clone3,
            *machine.io_uring,
            *machine.refused.values(),
        }
        for call in range(470):
            if call not in special:
                assert verdict(program, machine.audit_arch, call) == confine.ALLOW, call


def test_the_assembled_program_is_the_kernels_structure() -> None:
    program = confine.seccomp_program(confine.MACHINES["x86_64"], families=NONE)
    assert len(confine.assemble(program)) == 8 * len(program)


def test_programs_do_not_see_our_variables() -> None:
    seen = program_environment(
        {"KCR_CHANNEL": "/x", "KUBERNETES_PORT": "t", "PATH": "/bin", "LANG": "C.UTF-8", "HOSTNAME": "pod"}
    )
    assert seen == {"PATH": "/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}


def test_settings_say_what_is_wrong() -> None:
    assert read_settings({"KCR_PRELOAD": " numpy , pandas,"}).preload == ("numpy", "pandas")
    assert read_settings({"KCR_NETWORK": "Unmanaged"}).network == "Unmanaged"
    assert (read_settings({}).open_files, read_settings({"KCR_OPEN_FILES": "99"}).open_files) == (4096, 99)
    assert read_settings({"KCR_PROCESSES": "64"}).processes == 64
    assert read_settings({}).processes == 512
    with pytest.raises(SettingsError, match="KCR_NETWORK"):
        read_settings({"KCR_NETWORK": "yes"})
    with pytest.raises(SettingsError, match="KCR_PROCESSES"):
        read_settings({"KCR_PROCESSES": "-1"})

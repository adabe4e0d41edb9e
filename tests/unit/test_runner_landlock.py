"""What each version of Landlock is asked to enforce. Pure: the kernel's own word is in the contract tests."""

from __future__ import annotations

import struct

import pytest

from kubecoderun_runner import landlock
from kubecoderun_runner.landlock import READ, WRITE_FILE, ruleset

HIGHEST_RIGHT = {1: 12, 2: 13, 3: 14, 4: 14, 5: 15, 6: 15, 7: 15}
"""The last bit each version knows: MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV."""


@pytest.mark.parametrize("abi", HIGHEST_RIGHT)
def test_a_kernel_is_asked_for_all_it_knows_and_for_nothing_else(abi: int) -> None:
    rules = ruleset(abi, "/mnt/data", network=False)
    assert rules.filesystem == (1 << (HIGHEST_RIGHT[abi] + 1)) - 1
    assert rules.network == (0b11 if abi >= 4 else 0)
    assert rules.scoped == (0b11 if abi >= 6 else 0)
    assert len(rules.attributes(abi)) == {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(abi, 24)
    assert struct.unpack("=Q", rules.attributes(abi)[:8]) == (rules.filesystem,)
    for path, allowed in rules.rules:
        assert allowed & ~rules.filesystem == 0, path


def test_programs_write_where_they_work_and_nowhere_else() -> None:
    allowed = dict(ruleset(7, "/work", network=False).rules)
    assert allowed["/"] == READ
    writable = {path for path, rights in allowed.items() if rights & landlock.REMOVE_AND_MAKE}
    assert writable == {"/work", "/tmp", "/dev/shm"}
    for path in writable:
        assert not allowed[path] & ((1 << 6) | (1 << 11)), "no device files"
    for path in ("/dev", "/proc"):
        assert allowed[path] & WRITE_FILE, path


def test_a_network_leaves_tcp_alone() -> None:
    assert ruleset(7, "/mnt/data", network=True).network == 0

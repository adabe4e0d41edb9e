"""From the words of an error to the limit behind it, and to a sentence about it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_crds.reasons import Reason as SessionReason
from kubecoderun_sidecar import limits
from kubecoderun_sidecar.answers import Reason
from kubecoderun_sidecar.limits import Bounds, advice, appended, reason_of, size

BOUNDS = Bounds(1 << 30, 512, 4096)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("OSError: [Errno 28] No space left on device", "DiskFull"),
        ("write /mnt/data/x: no space left on device", "DiskFull"),
        ("Error: ENOSPC: no space left on device, write", "DiskFull"),
        ("OSError: [Errno 24] Too many open files: 'x'", "OpenFilesLimit"),
        ("Error: EMFILE: too many open files, open 'x'", "OpenFilesLimit"),
        ("panic: open x: too many open files", "OpenFilesLimit"),
        ("RuntimeError: can't start new thread", "ProcessLimit"),
        ("java.lang.OutOfMemoryError: unable to create native thread: possibly", "ProcessLimit"),
        ("main.sh: fork: retry: Resource temporarily unavailable", "ProcessLimit"),
        (
            'File "subprocess.py", line 1883, in _execute_child\n    self.pid = _fork_exec(\n'
            "               ^^^^^^\nBlockingIOError: [Errno 11] Resource temporarily unavailable",
            "ProcessLimit",
        ),
        ("Error: spawn /bin/true EAGAIN", "ProcessLimit"),
        ("terminate called after throwing an instance of 'std::system_error'\n"
         "  what():  Resource temporarily unavailable", "ProcessLimit"),
        ('failed to spawn thread: Os { code: 11, kind: WouldBlock, message: "Resource', "ProcessLimit"),
        ("runtime: failed to create new OS thread (have 300 already; errno=11)", "ProcessLimit"),
        ("unable to fork, possible reason: Resource temporarily unavailable", "ProcessLimit"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", None),
        ("ValueError: no space for that", None),
        ("MemoryError", None),
        ("", None),
    ],
)  # fmt: skip
def test_words_of_errors(words: str, reason: str | None) -> None:
    assert reason_of(None, words.encode()) == reason


def test_the_runners_word_about_output_comes_first_and_about_the_disk_last() -> None:
    assert reason_of("output", b"OSError: [Errno 24] Too many open files") == "OutputLimit"
    assert reason_of("disk", b"OSError: [Errno 24] Too many open files") == "OpenFilesLimit"
    assert reason_of("disk", b"ValueError: x") == "DiskFull"
    assert reason_of("memory", b"ValueError: x") is None, "whoever killed the program has told so already"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TimeLimit", "after 1.5 s"),
        ("OOMKilled", "more than the 1 GiB it can have"),
        ("OutputLimit", "after printing 3 MiB"),
        ("DiskFull", "no space left"),
        ("ProcessLimit", "the limit of 512 holds for all together"),
        ("OpenFilesLimit", "can have 4096 files open"),
    ],
)
def test_every_limit_has_a_sentence_with_its_number(reason: Reason, words: str) -> None:
    said = advice(reason, BOUNDS, 1.5, 3 << 20, b"")
    assert said is not None
    assert words in said
    assert said.isascii()
    unknown = advice(reason, Bounds(), 1.5, 0, b"")
    assert unknown is not None
    assert "None" not in unknown
    # what the operator and the API server let pass beyond a preview
    assert len(appended([said], fresh_line=False)) < 256


def test_other_ends_have_none() -> None:
    for reason in ("Succeeded", "NonZeroExit", "Signalled", "Cancelled", "RuntimeLost"):
        assert advice(reason, BOUNDS, 1, 0, b"ValueError: x") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        "MemoryError: Unable to allocate 745. GiB for an array",
        "Error: cannot allocate vector of size 74.5 Gb",
        "OSError: [Errno 12] Cannot allocate memory",
        "what():  std::bad_alloc",
        'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space',
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "fatal error: runtime: out of memory",
        "memory allocation of 80000000000 bytes failed",
    ],
)
def test_a_refused_allocation_is_an_error_with_the_same_advice(words: str) -> None:
    said = advice("NonZeroExit", BOUNDS, 1, 0, words.encode())
    assert said == limits.memory_advice(1 << 30)


def test_every_reason_is_one_of_the_sessions() -> None:
    assert set(get_args(Reason)) <= set(SessionReason)


@given(st.binary(max_size=4096))
def test_any_bytes_are_judged_in_no_time(tail: bytes) -> None:
    assert reason_of(None, tail) in {None, "DiskFull", "ProcessLimit", "OpenFilesLimit"}


@pytest.mark.parametrize("word", [b"fork ", b"thread", b"system_error", b"fork\nresource temporarily "])
def test_words_cannot_keep_the_sidecar_busy(word: bytes) -> None:
    """The search is bounded: at most 400 bytes after each of a few hundred words."""
    tail = (word * limits.TAIL_BYTES)[: limits.TAIL_BYTES]
    assert reason_of(None, tail) is None


def test_lines_are_lines_of_their_own() -> None:
    assert appended([], fresh_line=False) == b""
    assert appended(["A.", "B."], fresh_line=True) == b"[kubecoderun] A.\n[kubecoderun] B.\n"
    assert appended(["A."], fresh_line=False) == b"\n[kubecoderun] A.\n"


def test_sizes() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 3 << 20, 1 << 30, 5 << 40, 5 << 50)] == [
        "0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "3 MiB", "1 GiB", "5 TiB", "5120 TiB",
    ]  # fmt: skip

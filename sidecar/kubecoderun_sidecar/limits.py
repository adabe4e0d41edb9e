"""Which limit a program met, and the sentence that tells its author what to do about it. Pure.

The sentences go to the end of stderr, for people and for language models. What a program printed decides
about its own reason only, so words are good enough: libraries and shells of all languages pass on those of
the C library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from kubecoderun_sidecar.answers import Reason

PREFIX: Final = "[kubecoderun] "
TAIL_BYTES: Final = 2048
"""How much of the end of stderr is looked at: the words of the error that ended the program."""
Limit = Literal["memory", "output", "disk"]

_DISK = re.compile(rb"no space left on device|disk quota exceeded|\bENOSPC\b", re.IGNORECASE)
_OPEN_FILES = re.compile(rb"too many open files|\bE[MN]FILE\b", re.IGNORECASE)
_PROCESSES = re.compile(
    rb"can't start new thread|unable to create (?:new )?native thread|failed to create new OS thread"
    rb"|\bunable to fork"
    rb"|(?:fork|spawn|thread|clone|system_error)(?s:.{0,400})(?:resource temporarily unavailable|\bEAGAIN\b)"
    rb"|(?:fork|spawn|thread|system_error)(?s:.{0,400})code: 11, kind: WouldBlock",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    rb"\bMemoryError\b|cannot allocate (?:memory|vector of size)|std::bad_alloc|java\.lang\.OutOfMemoryError"
    rb"|heap out of memory|runtime: out of memory|memory allocation of \d+ bytes failed",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the runner says holds for all programs of its container. None: no bound, or not known."""

    memory_bytes: int | None = None
    processes: int | None = None
    open_files: int | None = None


def reason_of(limit: Limit | None, stderr_tail: bytes) -> Reason | None:
    """The limit that a program met which has failed by itself; None for any other failure. `limit` is the
    runner's word. Memory is for whoever killed the program: an allocation that was refused is an error like
    others."""
    if limit == "output":
        return "OutputLimit"
    if _PROCESSES.search(stderr_tail):
        return "ProcessLimit"
    if _OPEN_FILES.search(stderr_tail):
        return "OpenFilesLimit"
    return "DiskFull" if limit == "disk" or _DISK.search(stderr_tail) else None


def advice(
    reason: Reason, bounds: Bounds, timeout_seconds: float, printed_bytes: int, stderr_tail: bytes
) -> str | None:
    """What to tell the author of a program that ended so; None when no limit is the cause."""
    match reason:
        case "TimeLimit":
            return (
                f"Time limit: the program was ended after {timeout_seconds:g} s. Work on less data, use a "
                "faster method, or split the work into several runs."
            )
        case "OOMKilled":
            return memory_advice(bounds.memory_bytes)
        case "OutputLimit":
            return (
                f"Output limit: the program was ended after printing {size(printed_bytes)}. Print a summary, "
                "or write to a file in the working directory."
            )
        case "DiskFull":
            return (
                "Disk limit: there was no space left in the working directory or in /tmp. Remove files that "
                "are not needed any more, or write less."
            )
        case "ProcessLimit":
            most = f" of {bounds.processes}" if bounds.processes is not None else ""
            return (
                f"Process limit: there were too many processes and threads at a time; the limit{most} holds "
                "for all together. Use fewer workers, and wait for those that were started."
            )
        case "OpenFilesLimit":
            most = f" {bounds.open_files}" if bounds.open_files is not None else " so many"
            return (
                f"Open files limit: a process can have{most} files open at a time. Close each file when it "
                "is done with, for example with a `with` block."
            )
        case "NonZeroExit" | "Signalled" if _MEMORY.search(stderr_tail):
            return memory_advice(bounds.memory_bytes)
    return None


def memory_advice(memory_bytes: int | None) -> str:
    """What to tell the author of a program that needed too much memory."""
    most = f"the {size(memory_bytes)} it can have" if memory_bytes is not None else "it can have"
    return (
        f"Memory limit: the program needed more than {most}, files in memory included. Read data in pieces, "
        "keep fewer copies, or use smaller types."
    )


def cut_advice(stream: str, kept_bytes: int, total_bytes: int) -> str:
    """What to tell about output that was not kept whole."""
    which = "beginning was" if stream == "stdout" else "beginning and the end were"
    return (
        f"Output limit: of the {size(total_bytes)} of {stream} only the {which} kept, "
        f"{size(kept_bytes)}. Print less, or write to a file in the working directory."
    )


def size(count: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.4g} {unit}"


def appended(lines: list[str], *, fresh_line: bool) -> bytes:
    """The sentences as they follow what a program wrote; `fresh_line`: that ended with a newline, or is
    empty."""
    text = "".join(f"{PREFIX}{line}\n" for line in lines)
    return (text if fresh_line or not text else f"\n{text}").encode("ascii")

"""What has to come of each hostile program, wherever it runs: in a cluster, or before a sidecar alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

OMITTED = r"\n\[\.\.\. \d+ bytes omitted \.\.\.\]\n"
PREFIX = "[kubecoderun] "


@dataclass(frozen=True)
class Case:
    """A program and what has to come of it: patterns that the whole of a stream matches, lines of stderr
    apart that are ours."""

    program: str
    reason: str
    stdout: str = ""
    told: str = ""
    """What our own line at the end of stderr begins with."""
    seconds: int = 30
    files: tuple[str, ...] | None = None
    kept: int | None = None
    """How many files are kept, where it cannot be said which."""
    needs_pod: bool = False
    """It is about what only a pod has."""

    def faults(self, reason: str, stdout: str, stderr: str, files: Sequence[str]) -> list[str]:
        """What differs from what it should be."""
        told = [line for line in stderr.splitlines() if line.startswith(PREFIX)]
        line = told[0].removeprefix(PREFIX) if told else ""
        found = []
        if not re.fullmatch(self.reason, reason):
            found.append(f"reason {reason}")
        if not re.fullmatch(self.stdout, stdout):
            found.append(f"stdout {stdout[:300]!r}")
        if bool(line) != bool(self.told) or not re.match(self.told, line):
            found.append(f"told {line!r}")
        if self.files is not None and tuple(files) != self.files:
            found.append(f"files {files}")
        if self.kept is not None and len(files) != self.kept:
            found.append(f"{len(files)} files")
        return found


CASES = (
    Case("fork_bomb", "TimeLimit", r"(begin\n)+", "Time limit", seconds=5),
    Case("too_many_processes", "ProcessLimit", "", "Process limit: .* of 64 "),
    Case("too_many_threads", "ProcessLimit", "", "Process limit"),
    Case("kill_everything", "Succeeded", "alone -9\n"),
    Case("memory_bomb", "OOMKilled", "begin\n", "Memory limit: .* 256 MiB"),
    Case("memory_bomb_of_many", "OOMKilled", "begin\n", "Memory limit"),
    Case("disk_bomb", "DiskFull", "begin\n", "Disk limit"),
    Case("disk_full_handled", "Succeeded", "ENOSPC\n", files=("small",)),
    # what runs out first is the node's affair: inodes, memory for them, or time
    Case("inode_bomb", "OOMKilled|DiskFull|TimeLimit", "begin\n", "(Memory|Disk|Time) limit", seconds=10),
    Case("open_files_bomb", "OpenFilesLimit", "", "Open files limit: .* 128 "),
    Case("grandchild_keeps_stdout", "Succeeded", "done\n", seconds=300),
    Case("deaf_daemon", "Succeeded", "done\n", seconds=300, files=("later",)),
    Case("stopped", "TimeLimit", "begin\n", "Time limit", seconds=3),
    Case("closed_streams", "Succeeded"),
    Case("flood", "OutputLimit", f"x+({OMITTED}x+)?", "Output limit"),
    Case("much_output", "Succeeded", f"first\nx+({OMITTED}x+\nlast\n)?", "Output limit: of"),
    Case(
        "strange_outputs",
        "Succeeded",
        "no way out\n",
        files=("-rf", "CON", "NUL", "aux.txt", "con\u00e9", "hard", "plain"),
    ),
    Case("many_files", "Succeeded", "made\n", seconds=60, kept=64),
    Case("closed_folder", "Succeeded", "(not mine\n)?closed\n", files=("file",)),
    Case(
        "channel",
        "Succeeded",
        r"\[\]\n\[0, 1, 2\] 4\nENOENT\n(EACCES|EROFS|EPERM|EBUSY|EXDEV|\n)+",
        needs_pod=True,
    ),
    Case("attach_to_the_runner", "Succeeded", r"\[('EACCES', )?'EPERM'\] 12\nstill there\n"),
    Case("proc", "Succeeded", r"\[\]\n\[\]\n"),
    Case("socket_families", "Succeeded", r"\{<AddressFamily.AF_UNIX: 1>\}\n|\{1\}\n"),
    Case("io_uring", "Succeeded", r"(-1 ENOSYS\n){3}"),
    Case("call_of_32_bits", "Signalled", "before\n"),
    Case("namespaces_and_mounts", "Succeeded", r"\['EPERM'\]\n"),
)  # fmt: skip

"""The programs that are run, and how often each was started: counted by the node's kernel.

A program gives its process a name of its own. A loop on the node looks for such names all the time; two
processes of one name would be a program that was started twice, whatever KubeCodeRun itself believes.
"""

import secrets
import subprocess
import threading
from collections import defaultdict
from typing import Final

from e2e.node import Node

PREFIX: Final = "kcz"
LENGTH: Final = 15
"""The kernel keeps so many characters of a name."""
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_LOOK_EVERY: Final = 0.15
_LONGEST_SECONDS: Final = 7200
"""After which the loop on the node ends in any case."""


def new_tag() -> str:
    """A name that no other program has."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH - len(PREFIX)))


def program(tag: str, seconds: float) -> str:
    """It names its process, takes so long, and prints its tag."""
    return (
        "import time\n"
        "try:\n"
        "    with open('/proc/self/comm', 'w') as name:\n"
        f"        name.write({tag!r})\n"
        "except OSError:\n"
        "    pass\n"
        f"time.sleep({seconds})\n"
        f"print({tag!r})\n"
    )


class ProcessCount:
    """Looks for named processes on the node from `start` to `stop`. Without a node it counts nothing."""

    def __init__(self, node: Node | None) -> None:
        self._node = node
        self._flag = f"/run/{new_tag()}"
        self._found: dict[str, set[int]] = defaultdict(set)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    @property
    def counts(self) -> bool:
        """Whether anything is counted."""
        return self._node is not None

    @property
    def found(self) -> dict[str, set[int]]:
        """Process ids by name, so far."""
        with self._lock:
            return {name: set(ids) for name, ids in self._found.items()}

    def start(self) -> None:
        """Begin to look."""
        if self._node is None:
            return
        names = PREFIX + "?" * (LENGTH - len(PREFIX))
        # Only words of the shell itself: a new process for each look would cost more than all else here.
        loop = (
            f"touch {self._flag}; while [ -e {self._flag} ]; do for file in /proc/[0-9]*/comm; do "
            f'{{ read -r name < "$file"; }} 2>/dev/null || continue; '
            f'case $name in {names}) echo "$file $name";; esac; done; sleep {_LOOK_EVERY}; done'
        )
        command = self._node.command("timeout", str(_LONGEST_SECONDS), "sh", "-c", loop)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        if self._node is not None and self._process is not None:
            self._node.inside("rm", "-f", self._flag)
            self._process.wait(30)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            file, _, name = line.strip().partition(" ")
            with self._lock:
                self._found[name].add(int(file.split("/")[2]))

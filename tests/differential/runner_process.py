"""The real runner as PID 1 of a PID namespace of its own, with the test in the sidecar's place."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = "numpy,pandas,matplotlib.pyplot"
HEADER_BYTES = 5


def namespace_command() -> list[str]:
    """Starts a command as PID 1 of a new PID namespace."""
    unprivileged = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *unprivileged, "--pid", "--fork", "--mount-proc", "--kill-child"]


def why_impossible() -> str | None:
    """Why no PID namespace can be made here, or None."""
    if shutil.which("unshare") is None:
        return "unshare (package util-linux) is missing"
    tried = subprocess.run(
        [*namespace_command(), "true"], capture_output=True, text=True, timeout=20, check=False
    )
    return None if tried.returncode == 0 else f"no PID namespace can be made: {tried.stderr.strip()}"


@dataclass
class Outcome:
    """What came back of one run."""

    stdout: bytes
    stderr: bytes
    exit: dict[str, Any]
    milliseconds: float
    """From G sent to X received."""
    output_bytes: int
    files: dict[str, bytes]
    """What it left in its folder, where that was asked for."""


class RunnerEnd:
    """The sidecar's side of the protocol with a runner that has connected: `prepare`, then `go`."""

    sock: socket.socket
    _outputs = 0

    def log_text(self) -> str:
        """What the runner has written to its log."""
        raise NotImplementedError

    def welcome(self, listener: socket.socket) -> None:
        """Take its connection, and wait until it is warm. TimeoutError when it does not come."""
        with listener:
            self.sock, _ = listener.accept()
        self.sock.settimeout(120)
        self.hello = self.expect("H")
        self.warm = self.expect("W")

    def send(self, kind: str, payload: bytes = b"{}") -> None:
        self.sock.sendall(kind.encode() + len(payload).to_bytes(4, "big") + payload)

    def receive(self) -> tuple[str, bytes]:
        head = self._exactly(HEADER_BYTES)
        return chr(head[0]), self._exactly(int.from_bytes(head[1:], "big"))

    def expect(self, kind: str) -> dict[str, Any]:
        got, payload = self.receive()
        assert got == kind, f"frame {got} {payload[:200]!r} instead of {kind}: {self.log_text()}"
        value = json.loads(payload)
        assert isinstance(value, dict)
        return value

    def prepare(
        self,
        code: bytes,
        *,
        language: str = "py",
        args: list[str] | None = None,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        seconds: float = 30.0,
        inputs: Mapping[str, bytes] | None = None,
        outputs: int = 0,
        output_bytes: int = 0,
    ) -> None:
        """Hand over a program and its input files; `outputs`: how many files may come back."""
        given = inputs or {}
        order = {"language": language, "args": args or [], "env": env or {}, "timeoutSeconds": seconds,
                 "stdinBytes": len(stdin), "codeBytes": len(code), "outputBytes": output_bytes,
                 "inputs": len(given), "inputBytes": sum(map(len, given.values())),
                 "files": {"count": outputs, "bytes": 1 << 20, "totalBytes": 1 << 24}}  # fmt: skip
        self.send("R", json.dumps(order).encode())
        for path, data in given.items():
            self.send("N", json.dumps({"path": path, "bytes": len(data)}).encode())
            self._send_pieces("D", data)
        self._send_pieces("C", code)
        self._send_pieces("I", stdin)
        self._outputs = outputs
        self.expect("P")

    def _send_pieces(self, kind: str, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            self.send(kind, data[start : start + 65536])

    def go(self, *, keep: int = 1 << 24, cancel_after_output: bool = False) -> Outcome:
        """Start, and read until the end; keeps at most `keep` bytes of each stream."""
        began = time.perf_counter()
        self.send("G")
        self.expect("S")
        streams = {"O": bytearray(), "E": bytearray()}
        total = 0
        while True:
            kind, payload = self.receive()
            if kind == "X":
                took = (time.perf_counter() - began) * 1000
                files = self._take_files() if self._outputs else {}
                ended = json.loads(payload)
                return Outcome(bytes(streams["O"]), bytes(streams["E"]), ended, took, total, files)
            assert kind in streams, f"frame {kind} {payload[:200]!r}: {self.log_text()}"
            total += len(payload)
            streams[kind] += payload[: max(0, keep - len(streams[kind]))]
            if cancel_after_output:
                cancel_after_output = False
                self.send("K")

    def _take_files(self) -> dict[str, bytes]:
        """What the program has left in its folder."""
        listed: list[tuple[str, int]] = []
        while (frame := self.receive())[0] == "L":
            file = json.loads(frame[1])
            listed.append((file["path"], file["bytes"]))
        assert frame[0] == "Z", frame
        found: dict[str, bytes] = {}
        for index, (path, length) in enumerate(listed):
            self.send("T", json.dumps({"index": index}).encode())
            data = b""
            while len(data) < length:
                kind, piece = self.receive()
                assert kind == "D", (kind, piece)
                data += piece
            found[path] = data
        return found

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionError(f"the runner is gone: {self.log_text()}")
            data += piece
        return bytes(data)


class RunnerProcess(RunnerEnd):
    """Starts the runner as a process; a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        preload: str = PRELOAD,
        env: Mapping[str, str] | None = None,
        network: str = "None",
        tools: str = "/usr/bin:/bin",
        scratch: str | None = None,
        uid: int | None = None,
        cgroup: Path | None = None,
    ) -> None:
        """For root only: `scratch`, size of a file system of its own for the working directory; `uid`,
        another user to run as; `cgroup`, a memory cgroup (v1), which becomes the only one that is seen."""
        self.workspace = folder
        self._temporary = tempfile.TemporaryDirectory(prefix="kcr-")
        base = Path(self._temporary.name)
        base.chmod(0o755)
        self._link_python(base, sys.executable if uid is None else "/usr/bin/python3")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = base / "runner.sock"
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(1)
        listener.settimeout(60)
        self.path = f"{base}/bin:{tools}"
        self.log = base / "log"
        variables = {
            "PATH": self.path,
            "LANG": "C.UTF-8",
            "MPLBACKEND": "agg",
            "MPLCONFIGDIR": "/tmp/kcr-test-matplotlib",
            "KCR_CHANNEL": str(path),
            "KCR_WORKSPACE": str(folder),
            "KCR_NETWORK": network,
            "KCR_PRELOAD": preload,
            **(env or {}),
        }
        command = (
            "import sys; sys.path.insert(0, sys.argv.pop(1));"
            "from kubecoderun_runner.__main__ import main; main()"
        )
        mount = f'mount -t tmpfs -o size={scratch} scratch {folder} && exec "$@"'
        mounted = ["sh", "-c", mount, "sh"] if scratch else []
        if cgroup is not None:
            seen = (
                f'echo $$ > {cgroup}/cgroup.procs && mount --bind {cgroup} /sys/fs/cgroup/memory && exec "$@"'
            )
            mounted = ["sh", "-c", seen, "sh", *mounted]
        if uid is not None:
            os.chown(folder, uid, uid)
            mounted += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *namespace_command(),
                    *mounted,
                    f"{base}/bin/python",
                    "-I",
                    "-c",
                    command,
                    str(ROOT / "runner"),
                ],
                env=variables,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            self.welcome(listener)
        except TimeoutError:
            self.close()
            raise AssertionError(f"the runner did not connect: {self.log_text()}") from None

    def _link_python(self, base: Path, interpreter: str) -> None:
        (base / "bin").mkdir()
        # a wrapper keeps the virtual environment, which a symbolic link would lose
        for name in ("python", "python3"):
            wrapper = base / "bin" / name
            wrapper.symlink_to(interpreter)
        if interpreter == sys.executable and sys.prefix != sys.base_prefix:
            shutil.copy(Path(sys.prefix) / "pyvenv.cfg", base / "pyvenv.cfg")
            (base / "lib").symlink_to(Path(sys.prefix) / "lib")
            (base / "lib64").symlink_to(Path(sys.prefix) / "lib")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        if hasattr(self, "sock"):
            self.sock.close()
        self.process.terminate()  # of unshare, whose child is killed with it
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._temporary.cleanup()

    def __enter__(self) -> RunnerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Object stores of the tests' own: real servers on 127.0.0.1, with a folder of their own, ended with the run.

`cluster/binaries.sh versitygw minio` builds the programs; `make test` does so before these tests.
"""

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from built import program
from store.target import Target

START_SECONDS = 60
STOP_SECONDS = 10
BUCKET = "kubecoderun"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    target: Target
    pid: int


def command_of(
    name: str, address: str, data: Path, keys: tuple[str, str]
) -> tuple[list[str], dict[str, str], str]:
    """Arguments, environment and health path; the same as in manifests/store."""
    if name == "versitygw":
        options = ["--port", address, "--health", "/health", "--keep-alive", "--quiet"]
        command = [*options, "posix", "--disable-object-lock-file", str(data)]
        return command, {"ROOT_ACCESS_KEY": keys[0], "ROOT_SECRET_KEY": keys[1]}, "/health"
    if name == "minio":
        environment = {
            "MINIO_ROOT_USER": keys[0],
            "MINIO_ROOT_PASSWORD": keys[1],
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
        command = [
            "server",
            "--quiet",
            "--address",
            address,
            "--certs-dir",
            str(data.parent / "certs"),
            str(data),
        ]
        return command, environment, "/minio/health/ready"
    raise ValueError(f"no such store: {name}")


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Running]:
    """Run a store, versitygw or minio, with one empty bucket, until the end of the block."""
    executable = program(name)
    keys = (f"suite{secrets.token_hex(6)}", secrets.token_hex(16))
    address = f"127.0.0.1:{_free_port()}"
    data = folder / "data"
    # a folder in the data folder is a bucket, for both
    (data / BUCKET).mkdir(parents=True)
    command, environment, health = command_of(name, address, data, keys)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [executable, *command],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_answering(process, f"http://{address}{health}", name, log)
        yield Running(Target(name, f"http://{address}", keys[0], keys[1], BUCKET), process.pid)
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_answering(process: "subprocess.Popen[bytes]", url: str, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    cause = ""
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            cause = str(error)
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{name} does not answer ({cause}); status {process.poll()}; its output:\n{tail}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

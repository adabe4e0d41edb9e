"""The runner in one of our images, as first process of a container; the test is in the sidecar's place."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from differential.runner_process import RunnerEnd

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {
    "python": ("py", "bash"),
    "nodejs": ("js", "ts"),
    "native": ("c", "cpp", "f90", "d", "rs", "go"),
    "jvm": ("java",),
    "php": ("php",),
    "r": ("r",),
}
"""Which languages each image is for."""
FAMILY_OF = {language: family for family, languages in FAMILIES.items() for language in languages}
_READY_SECONDS = 60


@functools.cache
def engine() -> str | None:
    """What runs containers here, or None."""
    given = os.environ.get("KCR_ENGINE")
    if given:
        return given
    for name in ("docker", "podman"):
        if shutil.which(name) and command(name, "info").returncode == 0:
            return name
    return None


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run to the end, with the development cluster's settings for podman where there are any."""
    settings = ROOT / "build" / "containers.conf"
    env = dict(os.environ)
    if settings.is_file():
        env.setdefault("CONTAINERS_CONF", str(settings))
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=False)


@functools.cache
def image_of(family: str) -> str | None:
    """The image of a family that cluster/images.sh has built from this checkout, or None."""
    built = ROOT / "build" / "images"
    lines = built.read_text().splitlines() if built.is_file() else []
    images = dict(line.split(" ", 1) for line in lines)
    with_engine = engine()
    if with_engine is None or family not in images:
        return None
    return (
        images[family] if command(with_engine, "image", "inspect", images[family]).returncode == 0 else None
    )


class RunnerContainer(RunnerEnd):
    """Starts a container confined as a pod's; a context manager."""

    def __init__(
        self, image: str, languages: Sequence[str], *, preload: str = "", memory: str = "512m"
    ) -> None:
        with_engine = engine()
        assert with_engine is not None
        self._engine = with_engine
        self._folder = tempfile.TemporaryDirectory(prefix="kcr-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / "runner.sock"))
        (folder / "runner.sock").chmod(0o666)
        listener.listen(1)
        listener.settimeout(_READY_SECONDS)
        started = command(
            *(with_engine, "run", "--detach", "--network", "none", "--read-only", "--user", "20000:20000"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", memory),
            *("--tmpfs", "/tmp:rw,exec,mode=1777", "--tmpfs", "/mnt/data:rw,exec,mode=1777"),
            *("--volume", f"{folder}:/run/kubecoderun", "--env", f"KCR_LANGUAGES={','.join(languages)}"),
            *("--env", f"KCR_PRELOAD={preload}", "--entrypoint", "/opt/kubecoderun/bin/runner", image),
        )
        assert started.returncode == 0, started.stderr
        self._container = started.stdout.strip()
        try:
            self.welcome(listener)
        except (TimeoutError, ConnectionError):
            log = self.log_text()
            self.close()
            raise AssertionError(f"the runner did not get ready: {log}") from None

    def log_text(self) -> str:
        """What the container has written."""
        log = command(self._engine, "logs", self._container)
        return log.stdout + log.stderr

    def close(self) -> None:
        """Remove it."""
        command(self._engine, "rm", "--force", "--time", "0", self._container)
        if hasattr(self, "sock"):
            self.sock.close()
        self._folder.cleanup()

    def __enter__(self) -> RunnerContainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

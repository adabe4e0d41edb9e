"""The node of a development cluster from inside: the only place that knows that it is a container."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ENGINES: Final = ("docker", "podman")


class NoNodeError(Exception):
    """The cluster's node is no container of this machine. The text says why."""


class Node:
    """The one node of a kind cluster."""

    def __init__(self, context: str) -> None:
        """context: the kubeconfig's current one, `kind-<cluster>` for a kind cluster. Raises NoNodeError."""
        if not context.startswith("kind-"):
            raise NoNodeError(f"the cluster {context} is no kind cluster")
        self.name = f"{context.removeprefix('kind-')}-control-plane"
        engine = next((engine for engine in ENGINES if self._runs(engine)), None)
        if engine is None:
            raise NoNodeError(f"no container {self.name} runs in docker or podman")
        self._engine = engine

    def command(self, *command: str) -> list[str]:
        """A command of this machine that runs one inside."""
        return [self._engine, "exec", self.name, *command]

    def inside(self, *command: str, seconds: float = 60.0) -> str:
        """What a command inside writes. Raises NoNodeError if it fails."""
        return self._run(self.command(*command), seconds)

    def write(self, path: str, content: str) -> None:
        """A file inside that only root can read, and the folders above it. Raises NoNodeError."""
        script = 'umask 077; mkdir -p "$(dirname "$0")" && cat > "$0"'
        self._run([self._engine, "exec", "-i", self.name, "sh", "-c", script, path], 60.0, content)

    def copy(self, source: Path, path: str) -> None:
        """A file of this machine, with its mode, into a folder that is there. Raises NoNodeError."""
        self._run([self._engine, "cp", str(source), f"{self.name}:{path}"], 60.0)

    def in_network_of(self, container_id: str, *command: str) -> str:
        """What a command of the node writes, run with the network of a pod: containerID as the pod's status
        has it. Raises NoNodeError if it fails."""
        bare = container_id.rpartition("/")[2]
        tasks = (line.split() for line in self.inside("ctr", "-n", "k8s.io", "tasks", "ls").splitlines())
        process = next((words[1] for words in tasks if words[0] == bare), None)
        if process is None:
            raise NoNodeError(f"no container {bare} runs in {self.name}")
        return self.inside("nsenter", "--target", process, "--net", *command)

    def kill_container(self, container_id: str) -> None:
        """SIGKILL for all processes of a container of a pod; containerID as the pod's status has it."""
        bare = container_id.rpartition("/")[2]
        self.inside("ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", bare)

    def restart_kubelet(self) -> None:
        """Also makes it forget how long it wanted to wait with containers that have crashed."""
        self.inside("systemctl", "restart", "kubelet")

    @contextmanager
    def frozen_kubelet(self) -> Iterator[None]:
        """Nothing on the node is restarted, asked to stop or cleared away meanwhile. The control plane misses
        the kubelet only after 40 seconds."""
        self.inside("systemctl", "kill", "--signal=STOP", "--kill-who=main", "kubelet")
        try:
            yield
        finally:
            self.inside("systemctl", "kill", "--signal=CONT", "--kill-who=main", "kubelet")

    def _run(self, command: list[str], seconds: float, given: str | None = None) -> str:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode != 0:
            raise NoNodeError(f"{' '.join(command)}: {done.stderr.strip()[:200]}")
        return done.stdout

    def _runs(self, engine: str) -> bool:
        try:
            asked = [engine, "inspect", "--type", "container", self.name]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
            return done.returncode == 0 and bool(json.loads(done.stdout)[0]["State"]["Running"])
        except (OSError, ValueError, LookupError, subprocess.TimeoutExpired):
            return False

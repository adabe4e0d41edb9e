"""Reads the audit log inside the development cluster's node: the only place that knows that a node is a
container."""

import json
import subprocess

LOG = "/var/log/kubernetes/audit.log"
ENGINES = ("docker", "podman")
BATCH_SECONDS = 3.0
"""The API server writes its audit log in batches; after so long everything that has happened is in it."""


class NoAuditLogError(Exception):
    """There is no node container or no log in it: another kind of cluster. The text says which."""


class NodeLog:
    """The audit log from now on."""

    def __init__(self, context: str) -> None:
        """`context` is the kubeconfig's current context, `kind-<cluster>` for a kind cluster. Raises
        NoAuditLogError."""
        if not context.startswith("kind-"):
            raise NoAuditLogError(
                f"the cluster {context} is no kind cluster, so its audit log cannot be read"
            )
        self._node = f"{context.removeprefix('kind-')}-control-plane"
        self._engine = next((engine for engine in ENGINES if self._runs(engine)), None)
        if self._engine is None:
            raise NoAuditLogError(f"no container {self._node} runs in docker or podman")
        self._start = self._size()

    def lines(self) -> list[str]:
        """The lines written since this object was made. Raises NoAuditLogError when the log was rotated
        meanwhile."""
        if self._size() < self._start:
            raise NoAuditLogError("the audit log was rotated during the measurement")
        return self._inside("tail", "-c", f"+{self._start + 1}", LOG).splitlines()

    def _size(self) -> int:
        return int(self._inside("stat", "-c", "%s", LOG))

    def _runs(self, engine: str) -> bool:
        try:
            asked = [engine, "inspect", "--type", "container", self._node]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
            return done.returncode == 0 and bool(json.loads(done.stdout)[0]["State"]["Running"])
        except (OSError, ValueError, LookupError, subprocess.TimeoutExpired):
            return False

    def _inside(self, *command: str) -> str:
        asked = [str(self._engine), "exec", self._node, *command]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise NoAuditLogError(f"{' '.join(command)} in {self._node}: {done.stderr.strip()[:200]}")
        return done.stdout

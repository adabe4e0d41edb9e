"""Reads the audit log inside the development cluster's node."""

from e2e.node import Node, NoNodeError

LOG = "/var/log/kubernetes/audit.log"
BATCH_SECONDS = 3.0
"""The API server writes its audit log in batches; after so long everything that has happened is in it."""


class NoAuditLogError(Exception):
    """There is no node container or no log in it: another kind of cluster. The text says which."""


class NodeLog:
    """The audit log from now on."""

    def __init__(self, context: str) -> None:
        """`context` is the kubeconfig's current context, `kind-<cluster>` for a kind cluster. Raises
        NoAuditLogError."""
        try:
            self._node = Node(context)
        except NoNodeError as error:
            raise NoAuditLogError(f"{error}, so its audit log cannot be read") from None
        self._start = self._size()

    def lines(self) -> list[str]:
        """The lines written since this object was made. Raises NoAuditLogError when the log was rotated
        meanwhile."""
        if self._size() < self._start:
            raise NoAuditLogError("the audit log was rotated during the measurement")
        return self._inside("tail", "-c", f"+{self._start + 1}", LOG).splitlines()

    def _size(self) -> int:
        return int(self._inside("stat", "-c", "%s", LOG))

    def _inside(self, *command: str) -> str:
        try:
            return self._node.inside(*command)
        except NoNodeError as error:
            raise NoAuditLogError(str(error)) from None

"""To whom the pod belongs, and which operator may speak: plain state, no I/O.

The first of `prepare` and `retire` wins for the life of the pod. This is the lock of the whole system: two
operators cannot both give the pod away, and a pool must win `retire` before it deletes a warm pod.
"""

from __future__ import annotations

from kubecoderun_sidecar.answers import Owner


class BoundElsewhereError(Exception):
    """The pod belongs to another owner."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(f"the pod belongs to {owner.kind} {owner.uid}")
        self.owner = owner


class NotBoundError(Exception):
    """The pod belongs to nobody yet."""


class StaleEpochError(Exception):
    """The caller's lease is older than one that has already spoken."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"epoch {epoch} has already spoken")
        self.epoch = epoch


class Binding:
    """One owner for life, and an epoch that only rises."""

    def __init__(self) -> None:
        self._owner: Owner | None = None
        self._epoch = 0

    @property
    def owner(self) -> Owner | None:
        return self._owner

    @property
    def epoch(self) -> int:
        return self._epoch

    def admit(self, epoch: int) -> None:
        """Take note of a caller's epoch, whatever it then asks for; StaleEpochError when it is too old."""
        if epoch < self._epoch:
            raise StaleEpochError(self._epoch)
        self._epoch = epoch

    def bind(self, session_uid: str) -> None:
        """Give the pod to a session; again for the same session is fine. BoundElsewhereError otherwise."""
        wanted = Owner("session", session_uid)
        if self._owner is None:
            self._owner = wanted
        elif self._owner != wanted:
            raise BoundElsewhereError(self._owner)

    def retire(self, uid: str) -> None:
        """Take the pod out of service; again, by whomever, is fine. BoundElsewhereError: it has a session."""
        if self._owner is None:
            self._owner = Owner("retired", uid)
        elif self._owner.kind != "retired":
            raise BoundElsewhereError(self._owner)

    def require(self, session_uid: str) -> None:
        """Pass only for the session that owns the pod: NotBoundError or BoundElsewhereError otherwise."""
        if self._owner is None:
            raise NotBoundError
        if self._owner != Owner("session", session_uid):
            raise BoundElsewhereError(self._owner)

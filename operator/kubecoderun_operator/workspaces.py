"""The workspaces that are being served, and how a run finds the one it names."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds.reasons import Mode, Reason
from kubecoderun_operator import orders
from kubecoderun_operator.binding import EndedError
from kubecoderun_operator.cluster import ApiError, Cluster
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outcomes import Outcome
from kubecoderun_operator.workspace import Workspace

_LOOKS: Final = 10
_LOOK_PAUSE: Final = 0.5


class Workspaces:
    """By namespace and name. Of one name there is one that is served, the one made last."""

    def __init__(self, cluster: Cluster, seen: Callable[[dict[str, Any]], None]) -> None:
        """seen: called with a session that no event has shown yet."""
        self._cluster = cluster
        self._seen = seen
        self._served: dict[tuple[str, str], Workspace] = {}

    def add(self, workspace: Workspace) -> None:
        """It begins."""
        self._served[workspace.session.namespace, workspace.session.name] = workspace

    def remove(self, workspace: Workspace) -> None:
        """It has ended."""
        workspace.settle()
        key = (workspace.session.namespace, workspace.session.name)
        if self._served.get(key) is workspace:
            del self._served[key]

    def of_pool(self, namespace: str, pool: str) -> int:
        """How many workspaces of the pool are being served."""
        return sum(
            workspace.session.namespace == namespace and workspace.session.pool == pool
            for workspace in self._served.values()
        )

    async def find(self, run: Session) -> Workspace:
        """The workspace that a run names. Raises EndedError if there is none for it."""
        name = str((run.request.get("workspaceRef") or {}).get("name", ""))
        found = self._served.get((run.namespace, name))
        if found is None:
            # Events of different sessions do not come in order.
            raw = await self._ask(run.namespace, name)
            session = orders.session(raw) if raw is not None else None
            if raw is None or session is None or not _fits(run, session):
                raise EndedError(_not_found(name))
            if not session.terminal:
                found = await self._begun(raw)
            if found is None:
                why = session.status.get("reason") or "it ends"
                raise EndedError(Outcome(Reason.WORKSPACE_ENDED, f"the workspace {name} had ended: {why}"))
        if not _fits(run, found.session):
            raise EndedError(_not_found(name))
        if run.pool and run.pool != found.session.pool:
            other = f"the workspace {name} is of the pool {found.session.pool}, not {run.pool}"
            raise EndedError(Outcome(Reason.INVALID_REQUEST, other))
        return found

    async def _begun(self, raw: dict[str, Any]) -> Workspace | None:
        """The workspace of a session that is not over. An operator that ends begins nothing any more, and
        neither is it to say that there is no workspace: it is about to stop the run that asks."""
        key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
        for _ in range(_LOOKS):
            self._seen(raw)
            if key in self._served:
                break
            await asyncio.sleep(_LOOK_PAUSE)
        return self._served.get(key)

    async def _ask(self, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._cluster.session(namespace, name)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise


def _fits(run: Session, found: Session) -> bool:
    """A workspace of another tenant is answered for like one that does not exist."""
    return found.mode == Mode.WORKSPACE and found.request.get("tenant") == run.request.get("tenant")


def _not_found(name: str) -> Outcome:
    return Outcome(Reason.WORKSPACE_NOT_FOUND, f"there is no workspace {name}")

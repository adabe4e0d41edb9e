"""The real operator between a fake API server and a fake node, in the test's own event loop."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from contract.fakes.apiserver import ApiServer
from contract.fakes.node import Node
from contract.fakes.store import Json
from contract.fakes_api.store import FakeStore, object_store
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES
from kubecoderun_operator.app import App
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.settings import Settings
from kubecoderun_operator.signing import Signatures

SIGNATURES = Signatures(bytes(range(32)))
NAMESPACE = "kubecoderun"
STORE = {
    "store_endpoint": "http://store.test:7070",
    "store_access_key": "test-access",
    "store_secret_key": "test-secret",
}


SHORT_LEASE: Final = {"lease_seconds": 4.0, "lease_renew_deadline": 3.0}
"""Settings for tests in which an operator takes over from one that has died. In all others a lease is long:
everything shares one event loop, which on a busy machine is late by seconds."""
PATIENCE_SECONDS: Final = 30.0
"""For what takes milliseconds on a machine that has nothing else to do."""


class System:
    """What a test needs: it makes resources, waits for what becomes of them, and restarts operators."""

    def __init__(self, api: ApiServer, node: Node, objects: FakeStore) -> None:
        self.api, self.node, self.objects = api, node, objects
        self.apps: list[tuple[App, asyncio.Task[None]]] = []
        self.overrides: dict[str, Any] = {}

    # --- operators --------------------------------------------------------------------------------

    async def start(self, *, wait: bool = True, **overrides: Any) -> App:
        """One more operator process, as far as one event loop can hold several."""
        number = len(self.apps)
        chosen = {
            "pod_uid": f"operator-{number}",
            "sidecar_port": self.node.port,
            "api_attempt_seconds": 1.0,
            "lease_renew_seconds": 0.5,
            "lease_retry_seconds": 0.1,
            "lease_seconds": 60.0,
            "lease_renew_deadline": 50.0,
            "drain_seconds": 0.0,
            "pool_status_seconds": 0.2,
            **STORE,
            "store_endpoint": self.objects.url,
            **self.overrides,
            **overrides,
        }
        app = App(Settings(**chosen), Connection(self.api.url), SIGNATURES)
        task = asyncio.create_task(app.run(), name=f"operator {number}")
        self.apps.append((app, task))
        if wait:
            await asyncio.wait_for(app.ready.wait(), PATIENCE_SECONDS)
        return app

    async def stop(self, app: App) -> None:
        """SIGTERM."""
        task = next(task for found, task in self.apps if found is app)
        app.stop()
        await asyncio.wait_for(task, 15)

    async def kill(self, app: App) -> None:
        """As good as SIGKILL: from now on nothing that this process does reaches anybody."""
        task = next(task for found, task in self.apps if found is app)
        await app._cluster.close()
        await app._sidecars.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def end(self) -> None:
        for app, task in self.apps:
            if not task.done():
                app.stop()
        for _, task in self.apps:
            if not task.done():
                await asyncio.wait({task}, timeout=15)
                task.cancel()

    # --- resources --------------------------------------------------------------------------------

    def pool(self, name: str = "python", *, image: str = "python:1", **spec: Any) -> Json:
        """Create a pool."""
        runtime = {"image": image, "languages": ["py"], **spec.pop("runtime", {})}
        body = {
            "metadata": {"name": name},
            "spec": {"replicas": 2, "maxPods": 10, "runtime": runtime, **spec},
        }
        return self.api.store.create(names.POOL_PLURAL, NAMESPACE, body)

    def edit_pool(self, name: str = "python", **spec: Any) -> None:
        """Change fields of a pool's spec."""

        def edit(found: Json) -> Json:
            found["spec"] = {**found["spec"], **spec}
            return found

        self.api.store.change(names.POOL_PLURAL, NAMESPACE, name, edit)

    def session(
        self,
        code: str | None = "print:hello",
        *,
        name: str = "",
        pool: str = "python",
        expires_at: str | None = None,
        **request: Any,
    ) -> Json:
        """Create a session, as the front end does."""
        given = {"poolRef": {"name": pool}, "language": "py", "code": code, **request}
        return self._create(
            name, {key: value for key, value in given.items() if value is not None}, expires_at
        )

    def workspace(self, name: str = "mine", *, pool: str = "python", **request: Any) -> Json:
        """Create a session of mode Workspace."""
        return self._create(name, {"mode": "Workspace", "poolRef": {"name": pool}, **request}, None)

    def run_in(self, workspace: str, code: str, **request: Any) -> Json:
        """Create a session that runs in a workspace."""
        given = {"workspaceRef": {"name": workspace}, "language": "py", "code": code, **request}
        return self._create("", given, None)

    def delete(self, session: Json) -> None:
        self.api.store.delete(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"])

    def files(self, *files: Json, name: str = "", expires_at: str | None = None, **request: Any) -> Json:
        """Create a session that holds files, by default one of three bytes, as an upload does."""
        name = name or names.session_name()
        held = list(files) or [{"id": names.file_id(name), "path": "data.csv", "bytes": 3}]
        return self._create(name, {"mode": "Files", "files": held, **request}, expires_at)

    def _create(self, name: str, request: Json, expires_at: str | None) -> Json:
        spec: Json = {"request": request, "cancel": False}
        if expires_at is not None:
            spec["expiresAt"] = expires_at
        body = {"metadata": {"name": name or names.session_name()}, "spec": spec}
        return self.api.store.create(names.SESSION_PLURAL, NAMESPACE, body)

    def edit_session(self, session: Json, **spec: Any) -> None:
        """Change fields of a session's spec."""

        def edit(found: Json) -> Json:
            found["spec"] = {**found["spec"], **spec}
            return found

        self.api.store.change(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"], edit)

    def cancel(self, session: Json) -> None:
        self.edit_session(session, cancel=True)

    def status(self, session: Json) -> Json:
        """The session's status as it is now."""
        found = self.api.store.get(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"])
        return found.get("status") or {}

    def pool_status(self, name: str = "python") -> Json:
        return self.api.store.get(names.POOL_PLURAL, NAMESPACE, name).get("status") or {}

    def condition(self, kind: str, name: str = "python") -> Json:
        found = [entry for entry in self.pool_status(name).get("conditions", ()) if entry["type"] == kind]
        return found[0] if found else {}

    def pods(self, state: str = "") -> list[Json]:
        """Pods that are not being deleted, of one state or all."""
        return [
            pod
            for pod in self.api.store.all("pods")
            if not pod["metadata"].get("deletionTimestamp")
            and (not state or pod["metadata"]["labels"][names.LABEL_STATE] == state)
        ]

    def used_pods(self) -> list[Json]:
        """Pods that the status of a session names and that are not being deleted, whatever their label
        says."""
        sessions = self.api.store.all(names.SESSION_PLURAL)
        named = {((found.get("status") or {}).get("pod") or {}).get("uid") for found in sessions}
        return [pod for pod in self.pods() if pod["metadata"]["uid"] in named]

    def pod_of(self, session: Json) -> Json:
        """The pod that the session's status names."""
        uid = self.status(session)["pod"]["uid"]
        return next(pod for pod in self.pods() if pod["metadata"]["uid"] == uid)

    def ready_pods(self) -> list[Json]:
        return [pod for pod in self.pods("warm") if (pod.get("status") or {}).get("podIP")]

    def pod_names(self, state: str = "") -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods(state)}

    # --- waiting ----------------------------------------------------------------------------------

    async def until(self, true: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds; fail with what it was otherwise."""
        give_up = time.monotonic() + seconds
        while not true():
            if time.monotonic() > give_up:
                raise AssertionError(f"not within {seconds} s: {what}")
            await asyncio.sleep(0.005)

    async def conditions(self, **expected: str) -> None:
        """Wait for conditions of the pool, given as Type="Status Reason"."""

        def hold() -> bool:
            found = {kind: self.condition(kind) for kind in expected}
            return all(
                f"{found[kind].get('status')} {found[kind].get('reason')}" == want
                for kind, want in expected.items()
            )

        await self.until(hold, f"{expected}; at first it was {self.pool_status()}")

    async def ended(self, session: Json, seconds: float = PATIENCE_SECONDS) -> Json:
        """The status of the session when it has ended."""
        name = session["metadata"]["name"]
        await self.until(
            lambda: self.status(session).get("phase") in TERMINAL_PHASES, f"session {name} has ended", seconds
        )
        return self.status(session)

    async def ready(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many warm pods are ready and known as such in the pool's status."""
        await self.until(
            lambda: len(self.ready_pods()) == count and self.pool_status().get("readyReplicas") == count,
            f"{count} ready pods, there are {len(self.ready_pods())}",
            seconds,
        )


async def running(on: System, code: str) -> Json:
    """A session whose program has started."""
    session = on.session(code)
    uid = session["metadata"]["uid"]
    await on.until(lambda: any(side.starts for side in on.node.of_session(uid)), "the program runs")
    return session


@asynccontextmanager
async def system(**overrides: Any) -> AsyncIterator[System]:
    """A cluster with a node; operators are started by the test."""
    async with (
        ApiServer().serving() as api,
        Node(api, SIGNATURES.public_key).serving() as node,
        object_store() as objects,
    ):
        made = System(api, node, objects)
        made.overrides = overrides
        try:
            yield made
        finally:
            await made.end()


@asynccontextmanager
async def operating(**overrides: Any) -> AsyncIterator[System]:
    """The same with one operator, already leading."""
    async with system(**overrides) as made:
        await made.start()
        yield made

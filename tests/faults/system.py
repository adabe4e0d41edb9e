"""Everything together: real API server, proxies, node, store, operator and front end, and the watcher of the
invariants, which sees the API server itself."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from contract.fakes.system import SIGNATURES
from contract.fakes_api.store import FakeStore, object_store
from e2e.deployment import Deployment
from e2e.kube import Kube
from e2e.watching import InvariantWatcher
from faults.control_plane import (
    LEASES,
    MERGE_PATCH,
    PODS,
    POOLS,
    SESSIONS,
    Api,
    ControlPlane,
    Json,
)
from faults.load import Account, Load, settle
from faults.node import Node
from faults.plan import Plan
from faults.programs import FrontEndProgram, OperatorProgram, Program
from faults.proxy import FaultProxy
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES

POOL: Final = "python"
SETTLE_SECONDS: Final = 120.0
PATIENCE: Final = 120.0
"""Seconds after which a caller without an answer counts as one that never gets one."""


@dataclass
class System:
    """What a test needs."""

    api: Api
    node: Node
    store: FakeStore
    operator_side: FaultProxy
    api_side: FaultProxy
    folder: Path
    plane: ControlPlane
    replicas: int = 4
    operators: list[OperatorProgram] = field(default_factory=list)
    front_ends: list[FrontEndProgram] = field(default_factory=list)

    # --- programs ---------------------------------------------------------------------------------

    async def with_programs(self, operators: int = 1, front_ends: int = 1, **spec: Any) -> None:
        """The pool, with fields of its spec, so many operators and front ends; wait until all is ready and
        the pool full."""
        await self.pool(**spec)
        for _ in range(operators):
            await self.operator()
        for _ in range(front_ends):
            await self.front_end()
        for front_end in self.front_ends:
            await front_end.until_ready()
        await self.full()

    async def operator(
        self, *, keep: bool = True, side: FaultProxy | None = None, **settings: Any
    ) -> OperatorProgram:
        """One more operator; side: its own way to the API server, instead of that of all operators."""
        name = f"operator-{len(self.operators)}"
        kubeconfig = self.plane.kubeconfig(name, (side or self.operator_side).url)
        made = OperatorProgram(
            self.folder, name, kubeconfig, self.node.port, **self._store_settings(), **settings
        )
        self.operators.append(made)
        await self._run(made, keep)
        return made

    async def front_end(self, *, keep: bool = True, **settings: Any) -> FrontEndProgram:
        """One more front end, not yet ready."""
        name = f"front-end-{len(self.front_ends)}"
        kubeconfig = self.plane.kubeconfig(name, self.api_side.url)
        made = FrontEndProgram(self.folder, name, kubeconfig, **self._store_settings(), **settings)
        self.front_ends.append(made)
        await self._run(made, keep)
        return made

    async def _run(self, program: Program, keep: bool) -> None:
        await program.start()
        if keep:
            program.keep()

    def proxy(self) -> FaultProxy:
        """One more way to the API server; enter it with `serving`."""
        return FaultProxy(self.plane.url, tls=self.plane.tls, token=self.plane.token)

    async def leader(self) -> str:
        """Name of the operator that holds the Lease; empty if none does."""
        leases = await self.api.items(LEASES)
        holders = [lease["spec"].get("holderIdentity") or "" for lease in leases]
        return holders[0] if holders else ""

    def _store_settings(self) -> dict[str, str]:
        return {"store_endpoint": self.store.url, "store_access_key": "test", "store_secret_key": "test-test"}

    # --- faults -----------------------------------------------------------------------------------

    def plan(self, plan: Plan) -> None:
        """Let both sides suffer it, each with draws of its own."""
        self.operator_side.plan = plan
        self.api_side.plan = Plan(plan.seed + 1000, plan.rules)

    def calm(self) -> dict[str, int]:
        """No faults any more; how often each has struck."""
        struck = self.operator_side.plan.struck + self.api_side.plan.struck
        self.operator_side.plan = self.api_side.plan = Plan()
        self.operator_side.thaw()
        self.api_side.thaw()
        return dict(struck)

    # --- resources --------------------------------------------------------------------------------

    async def pool(self, **spec: Any) -> None:
        """Create the pool."""
        runtime = {"image": "localhost/test:1", "languages": ["py"]}
        wanted = {"replicas": self.replicas, "maxPods": 3 * self.replicas, "runtime": runtime, **spec}
        await self.api.request(
            "POST",
            POOLS,
            {
                "apiVersion": names.API_VERSION,
                "kind": names.POOL_KIND,
                "metadata": {"name": POOL},
                "spec": wanted,
            },
        )

    async def edit_pool(self, **spec: Any) -> None:
        """Change fields of the pool's spec."""
        await self.api.request("PATCH", f"{POOLS}/{POOL}", {"spec": spec}, MERGE_PATCH)

    async def session(self, code: str | None, **request: Any) -> Json:
        """Create a session, as kubectl would; a value of None leaves a field out."""
        fields = {"poolRef": {"name": POOL}, "language": "py", "code": code, **request}
        given = {key: value for key, value in fields.items() if value is not None}
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.SESSION_KIND,
            "metadata": {"name": names.session_name()},
            "spec": {"request": given},
        }
        return await self.api.request("POST", SESSIONS, body)

    async def status(self, session: Json) -> Json:
        found = await self.api.request("GET", f"{SESSIONS}/{session['metadata']['name']}")
        return found.get("status") or {}

    async def ended(self, session: Json, seconds: float = 60.0) -> Json:
        """The session's status when it has ended."""
        found: Json = {}

        async def look() -> bool:
            nonlocal found
            found = await self.status(session)
            return found.get("phase") in TERMINAL_PHASES

        await self.until(look, f"session {session['metadata']['name']} has ended: {found}", seconds)
        return found

    async def started(self, session: Json, seconds: float = 60.0) -> str:
        """Wait until the session's program runs; the name of its pod."""
        uid = session["metadata"]["uid"]

        async def look() -> bool:
            return any(sidecar.starts for sidecar in self.node.of_session(uid))

        await self.until(look, "the program runs", seconds)
        return next(sidecar.name for sidecar in self.node.of_session(uid) if sidecar.starts)

    async def pods(self, state: str = "") -> list[Json]:
        """Pods that are not being deleted, of one state or all."""
        return [
            pod
            for pod in await self.api.items(PODS)
            if "deletionTimestamp" not in pod["metadata"]
            and (not state or pod["metadata"]["labels"][names.LABEL_STATE] == state)
        ]

    async def full(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until the pool has exactly its warm pods, ready and known as such, and there is no other."""

        seen: list[Json] = []

        async def look() -> bool:
            pods = await self.api.items(PODS)
            status = (await self.api.request("GET", f"{POOLS}/{POOL}")).get("status") or {}
            seen[:] = [status, *map(_in_short, pods)]
            return (
                len(pods) == self.replicas
                and all(_is_warm_and_ready(pod) for pod in pods)
                and status.get("readyReplicas") == self.replicas
            )

        try:
            await self.until(look, "the pool is full and idle", seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}; there is {seen}; the node: {self.node.errors}") from None

    async def until(
        self, look: Callable[[], Awaitable[object]], what: str, seconds: float, every: float = 0.05
    ) -> None:
        """Wait for something; fail with what it was."""
        give_up = time.monotonic() + seconds
        while not await look():
            if time.monotonic() > give_up:
                raise AssertionError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(every)

    # --- load -------------------------------------------------------------------------------------

    def load(self, callers: int = 4, patience: float = PATIENCE) -> Load:
        """Callers of all front ends."""
        return Load(lambda: [front_end.url for front_end in self.front_ends], callers, patience)

    async def account(self, load: Load) -> Account:
        """What became of the calls of a load, once their sessions have ended (or it takes too long)."""
        codes = {call.code for call in load.calls}

        async def sessions() -> list[Json]:
            return [
                session
                for session in await self.api.items(SESSIONS)
                if session["spec"]["request"].get("code") in codes
            ]

        async def look() -> bool:
            return all(
                (session.get("status") or {}).get("phase") in TERMINAL_PHASES for session in await sessions()
            )

        try:
            await self.until(look, "all sessions have ended", SETTLE_SECONDS, every=0.2)
        except AssertionError:
            print(f"{SETTLE_SECONDS:.0f} s after the load not all sessions have ended", file=sys.stderr)
        return settle(load.calls, await sessions(), self.node.starts())


def _in_short(pod: Json) -> Json:
    """What a person wants to know of a pod that should not be there."""
    meta = pod["metadata"]
    labels = {name.removeprefix(names.LABEL_PREFIX): value for name, value in meta["labels"].items()}
    kept = ("state", "session")
    found = {"name": meta["name"], **{name: labels[name] for name in kept if name in labels}}
    return {**found, "ready": _is_warm_and_ready(pod), "deleting": "deletionTimestamp" in meta}


def _is_warm_and_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions", ())
    return (
        "deletionTimestamp" not in pod["metadata"]
        and pod["metadata"]["labels"].get(names.LABEL_STATE) == names.PodState.WARM
        and any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
    )


@asynccontextmanager
async def system(
    plane: ControlPlane, folder: Path, node_class: type[Node] = Node, **attributes: Any
) -> AsyncIterator[System]:
    """A system without operator and front end. At the end all it made is taken away, and the watcher of the
    invariants has its say."""
    async with AsyncExitStack() as stack:
        api = plane.api()
        stack.push_async_callback(api.close)
        await _clear(api)
        node = await stack.enter_async_context(node_class(api, SIGNATURES.public_key).serving())
        store = await stack.enter_async_context(object_store())
        sides = [
            await stack.enter_async_context(FaultProxy(plane.url, tls=plane.tls, token=plane.token).serving())
            for _ in range(2)
        ]
        made = System(api, node, store, sides[0], sides[1], folder, plane, **attributes)
        deployment = Deployment(plane.kubeconfig("watcher"), "http://127.0.0.1:1", "none", folder)
        watcher = InvariantWatcher(Kube(deployment))
        await asyncio.to_thread(watcher.start)
        try:
            yield made
            made.calm()
            await asyncio.sleep(0.5)
        finally:
            await asyncio.gather(*(program.end() for program in (*made.operators, *made.front_ends)))
            broken = await asyncio.to_thread(watcher.finish, 0.0)
        assert not broken, "\n".join(broken)
        assert node.errors == []
        await _clear(api)


async def _clear(api: Api) -> None:
    """Take away all pools, sessions, pods and leases."""
    for path in (POOLS, SESSIONS, LEASES, PODS):
        for found in await api.items(path):
            await api.delete(f"{path}/{found['metadata']['name']}", {"gracePeriodSeconds": 0})

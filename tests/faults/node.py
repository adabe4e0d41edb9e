"""A node for a real API server: binds pods, makes them ready, ends them, and runs their sidecars.

The sidecars are those of the contract tests, listening on loopback addresses. A program that runs longer than
the operator's `afterSeconds` has its result put into the object store before it is told, as a real one has.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from contract.fakes.node import Sidecar, moment
from contract.fakes.store import now
from faults.control_plane import MERGE_PATCH, PODS, Api, Json, RefusedError
from kubecoderun_crds import names
from kubecoderun_sidecar.protocol import InlineCode, Verifier

NODE = "node-1"


@dataclass
class PodSidecar(Sidecar):
    """A sidecar that can die, and that stores results."""

    name: str = ""
    """Of its pod."""
    streams: set[Any] = field(default_factory=set)
    began: float = 0.0

    @property
    def code(self) -> str:
        """The program it was given, if any."""
        code = self.request.code if self.request is not None else None
        return code.text if isinstance(code, InlineCode) else ""

    def die(self) -> None:
        """The process is gone: connections break, and the program with it."""
        self.unreachable = True
        self.stop()
        for transport in list(self.streams):
            transport.abort()

    async def _start(self, request: web.Request, body: bytes) -> web.StreamResponse:
        self.streams.add(request.transport)
        self.began = self.began or time.monotonic()
        try:
            return await super()._start(request, body)
        finally:
            self.streams.discard(request.transport)

    async def conclude(self) -> None:
        target = self.target.result if self.target is not None else None
        if target is None or self.result is None or time.monotonic() - self.began <= target.after_seconds:
            return
        stored = replace(self.result, stored=True, stored_at=moment())
        async with (
            aiohttp.ClientSession() as session,
            session.put(target.url, data=stored.to_json()) as answer,
        ):
            assert answer.status < 300
        self.result = stored


class Node:
    """Plays the kubelet for all pods of the namespace, and remembers all their sidecars."""

    def __init__(self, api: Api, public_key: str) -> None:
        self.port = 0
        self.sidecars: list[PodSidecar] = []
        """Of all pods there have been."""
        self.ready_after = 0.05
        self.ends_after = 0.05
        self.errors: list[BaseException] = []
        """Of the node itself: a test that sees any has shown nothing."""
        self._api = api
        self._public_key = public_key
        self._by_pod: dict[str, PodSidecar] = {}
        self._by_address: dict[str, PodSidecar] = {}
        self._ending: set[str] = set()
        self._addresses = (
            f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 9), range(1, 250), range(1, 250))
        )
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Node"]:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 0).start()
        self.port = runner.addresses[0][1]
        self._spawn(self._kubelet())
        try:
            yield self
        finally:
            for sidecar in self.sidecars:
                sidecar.die()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()

    # --- what tests ask and do --------------------------------------------------------------------

    def starts(self) -> dict[str, int]:
        """By code: how often a program of that code was started."""
        found: dict[str, int] = {}
        for sidecar in self.sidecars:
            if sidecar.starts:
                found[sidecar.code] = found.get(sidecar.code, 0) + sidecar.starts
        return found

    def of_session(self, uid: str) -> list[PodSidecar]:
        """Sidecars that a session has bound."""
        return [found for found in self.sidecars if found.owner is not None and found.owner.uid == uid]

    async def vanish(self, name: str) -> None:
        """The pod is gone at once, sidecar and all, as when its node is deleted."""
        if name in self._by_pod:
            self._by_pod[name].die()
        await self._api.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0})

    async def kill_container(self, name: str, container: str, reason: str = "Error") -> None:
        """A container of a pod dies, as the kubelet would say it."""
        if container == "sidecar":
            self._by_pod[name].die()
        pod = await self._api.request("GET", f"{PODS}/{name}")
        status = pod["status"]
        for entry in status["containerStatuses"]:
            if entry["name"] == container:
                entry["state"] = {"terminated": {"reason": reason, "exitCode": 137}}
                entry["ready"] = False
        for condition in status["conditions"]:
            if condition["type"] == "Ready":
                condition.update(status="False", lastTransitionTime=now())
        await self._patch_status(name, status)

    # --- the kubelet ------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        sidecar = self._by_address.get(request.transport.get_extra_info("sockname")[0])
        if sidecar is None or sidecar.unreachable:
            request.transport.abort()
            return web.Response(status=500)
        return await sidecar.answer(request)

    async def _kubelet(self) -> None:
        while True:
            listed = await self._api.request("GET", PODS)
            for pod in listed["items"]:
                self._see("ADDED", pod)
            with suppress(RefusedError, aiohttp.ClientError):
                async for kind, pod in self._api.watch(PODS, listed["metadata"]["resourceVersion"]):
                    self._see(kind, pod)

    def _see(self, kind: str, pod: Json) -> None:
        meta = pod["metadata"]
        if names.LABEL_POOL not in meta.get("labels", {}):
            return
        known = self._by_pod.get(meta["name"])
        if kind == "DELETED":
            if known is not None and known.pod_uid == meta["uid"]:
                known.die()
        elif meta.get("deletionTimestamp"):
            if meta["uid"] not in self._ending:
                self._ending.add(meta["uid"])
                self._spawn(self._end(meta["name"], meta["uid"]))
        elif known is None or known.pod_uid != meta["uid"]:
            self._spawn(self._start(meta["name"], meta["uid"]))

    def _make(self, name: str, uid: str) -> PodSidecar:
        """The sidecar of a new pod."""
        return PodSidecar(uid, Verifier([self._public_key], uid), name=name)

    async def _warm_up(self, sidecar: PodSidecar) -> None:
        """What comes before a pod is ready."""
        await asyncio.sleep(self.ready_after)

    async def _start(self, name: str, uid: str) -> None:
        address = next(self._addresses)
        sidecar = self._by_pod[name] = self._by_address[address] = self._make(name, uid)
        self.sidecars.append(sidecar)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": NODE},
        }
        try:
            await self._api.request("POST", f"{PODS}/{name}/binding", binding)
        except RefusedError as refused:
            # 404: deleted meanwhile. 409: bound already, by a node of an earlier test.
            if refused.status not in (404, 409):
                raise
        await self._warm_up(sidecar)
        running = {"running": {"startedAt": now()}}
        await self._patch_status(
            name,
            {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now(),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now()}],
                "containerStatuses": [
                    {
                        "name": container,
                        "image": "x",
                        "imageID": "x",
                        "restartCount": 0,
                        "ready": True,
                        "state": running,
                    }
                    for container in ("sidecar", "runtime")
                ],
            },
        )

    async def _end(self, name: str, uid: str) -> None:
        await asyncio.sleep(self.ends_after)
        known = self._by_pod.get(name)
        if known is not None and known.pod_uid == uid:
            known.die()
        await self._api.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}})

    async def _patch_status(self, name: str, status: Json) -> None:
        try:
            await self._api.request("PATCH", f"{PODS}/{name}/status", {"status": status}, MERGE_PATCH)
        except RefusedError as refused:
            if refused.status != 404:
                raise

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

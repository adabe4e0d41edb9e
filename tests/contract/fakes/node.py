"""One node: gives pods addresses, makes them ready, and ends them; and the sidecars that run in them.

A pod's code says what its program does: words like `print:hello`, `sleep:0.2`, `exit:3`, separated by
spaces. See `Sidecar._program`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from contract.fakes.apiserver import ApiServer
from contract.fakes.silent import SilentAddress
from contract.fakes.store import Json, RefusedError, now
from kubecoderun_sidecar import protocol
from kubecoderun_sidecar.protocol import (
    Called,
    Captured,
    Finished,
    Heartbeat,
    OutputFile,
    Owner,
    PrepareRequest,
    Refusal,
    ResultsRequest,
    RunResult,
    SkippedFile,
    Started,
    StartRequest,
    StateAnswer,
    ToolCall,
    ToolResult,
    Usage,
    Verifier,
)

MISSING = "0" * 64
"""Hash of code that the store does not have."""


def moment() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Sidecar:
    """The sidecar of one pod, its runner included."""

    pod_uid: str
    verifier: Verifier
    owner: Owner | None = None
    epoch: int = 0
    request: PrepareRequest | None = None
    target: StartRequest | None = None
    started_at: str = ""
    starts: int = 0
    """Programs started; more than one would be a fault of the sidecar."""
    calls: list[str] = field(default_factory=list)
    result: RunResult | None = None
    written: bytes = b""
    """Standard output so far."""
    blind: bool = False
    """An older release: it cannot tell the output of a run in progress."""
    cancelled: bool = False
    unreachable: bool = False
    deaf: bool = False
    """Requests get no answer and are never read; when this ends, their connections break."""
    frozen: bool = False
    """Its process stands still: nothing comes from it. What it has started goes on."""
    drops: int = 0
    """Streams to break after the first event."""
    refuse_prepare: tuple[int, Refusal] | None = None
    fetching: asyncio.Event | None = None
    """Input files are there when this is set; until then prepare does not answer."""
    targets: list[StartRequest] = field(default_factory=list)
    """What each start brought."""
    reserved: bool = False
    started: list[str] = field(default_factory=list)
    """UIDs of the sessions whose programs were started, in that order."""
    outdated: bool = False
    """It does not know of workspaces."""
    waiting: dict[str, ToolCall] = field(default_factory=dict)
    """Tool calls without a result."""
    given: dict[str, ToolResult] = field(default_factory=dict)
    """Results of tool calls; the first one counts."""
    refuse_results: list[tuple[int, Refusal]] = field(default_factory=list)
    """How to answer the next requests that bring results."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _done: asyncio.Event = field(default_factory=asyncio.Event)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _run: asyncio.Task[None] | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if await self._heard_nothing():
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        await self._thawed()
        if request.path in (protocol.PATH_HEALTH, protocol.PATH_READY):
            return web.Response(text="ok")
        call = request.path.rpartition("/")[2]
        self.calls.append(call)
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            caller = self.verifier.verify(
                request.method, request.path, headers, body, datetime.now(UTC).timestamp()
            )
        except protocol.SignatureError as error:
            return _refuse(401, Refusal("unauthorized", str(error)))
        if caller.epoch < self.epoch:
            return _refuse(412, Refusal("stale_epoch", epoch=self.epoch))
        self.epoch = caller.epoch
        if call == "state":
            session = self.request.session if self.request is not None else None
            state = StateAnswer(
                self.owner,
                self.epoch,
                self._state(),
                "warm",
                session=session,
                reserved=self.reserved,
                started=self.starts,
            )
            return web.Response(body=state.to_json())
        wanted = Owner("retired" if call == "retire" else "session", caller.session_uid)
        if self.owner is not None and (self.owner.kind != wanted.kind or self.owner.uid != wanted.uid):
            return _refuse(409, Refusal("bound", owner=self.owner))
        if call == "retire":
            self.owner = wanted
            return web.json_response({})
        if call == "reserve":
            if self.outdated:
                return _refuse(404, Refusal("not_found"))
            self.owner, self.reserved = wanted, True
            return web.json_response({})
        if call == "prepare":
            response = await self._prepare(wanted, body)
            if self.unreachable and request.transport is not None:
                request.transport.abort()
            return response
        of_a_run = call in ("cancel", "start", "output", "results")
        run = protocol.CancelRequest.parse(body).run or wanted.uid if of_a_run else None
        if self.owner is None or self.request is None or run not in (None, self.request.session.uid):
            return _refuse(409, Refusal("not_prepared"))
        if call == "cancel":
            self.cancelled = True
            self._wake.set()
            return web.json_response({}, status=202)
        if call == "results":
            if self.refuse_results:
                return _refuse(*self.refuse_results.pop(0))
            for result in ResultsRequest.parse(body).results:
                if self.waiting.pop(result.id, None) is not None:
                    self.given[result.id] = result
            self._wake.set()
            return web.json_response({"state": "taken"})
        if call == "output" and not self.blind:
            return web.Response(body=(await self._look(protocol.OutputRequest.parse(body))).to_json())
        if call != "start":
            return _refuse(404, Refusal("not_found"))
        return await self._start(request, body)

    async def _look(self, asked: protocol.OutputRequest) -> protocol.OutputAnswer:
        until = asyncio.get_running_loop().time() + asked.wait_seconds
        while not self._done.is_set() and len(self.written) <= asked.stdout:
            if asyncio.get_running_loop().time() >= until:
                break
            await asyncio.sleep(0.005)
        if self._done.is_set():
            return protocol.OutputAnswer("finished", protocol.Piece(0, b"", 0), protocol.Piece(0, b"", 0))
        data, total = self.written[asked.stdout :], len(self.written)
        piece = protocol.Piece(min(asked.stdout, total), data, total)
        return protocol.OutputAnswer("running", piece, protocol.Piece(0, b"", 0))

    async def _prepare(self, wanted: Owner, body: bytes) -> web.Response:
        if self.refuse_prepare is not None:
            return _refuse(*self.refuse_prepare)
        request = PrepareRequest.parse(body)
        code = request.code
        if isinstance(code, protocol.StoredCode) and code.sha256 == MISSING:
            return _refuse(422, Refusal("code_unavailable", "the store answered 404"))
        self.owner = wanted
        if self.fetching is not None:
            await self.fetching.wait()
        if self.reserved and self.request is not None and self.request.session != request.session:
            if self._state() == "running":
                return _refuse(409, Refusal("run_in_progress"))
            self._run, self.result, self.cancelled, self.written = None, None, False, b""
            self._done, self._wake = asyncio.Event(), asyncio.Event()
        self.request = request
        return web.json_response({"state": "prepared"})

    async def _start(self, request: web.Request, body: bytes) -> web.StreamResponse:
        self.target = StartRequest.parse(body)
        self.targets.append(self.target)
        if self._run is None:
            self.starts += 1
            assert self.request is not None
            self.started.append(self.request.session.uid)
            self.started_at = moment()
            self._run = asyncio.get_running_loop().create_task(self._program())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(protocol.event_line(Started(self.started_at)))
        if self.drops:
            self.drops -= 1
            if request.transport is not None:
                request.transport.abort()
            return response
        told: set[str] = set()
        while not self._done.is_set():
            calls = tuple(call for id, call in self.waiting.items() if id not in told)
            told.update(call.id for call in calls)
            if calls:
                await response.write(protocol.event_line(Called(calls)))
            try:
                await asyncio.wait_for(self._news.wait(), 1.0)
                self._news.clear()
            except TimeoutError:
                if request.transport is None or request.transport.is_closing():
                    return response
                if not self.frozen:
                    await response.write(protocol.event_line(Heartbeat()))
        await self._thawed()
        assert self.result is not None
        await response.write(protocol.event_line(Finished(self.result)))
        return response

    async def _heard_nothing(self) -> bool:
        """Whether it was deaf to this request, which is over then."""
        deaf = self.deaf
        while self.deaf:  # noqa: ASYNC110 - set by tests
            await asyncio.sleep(0.02)
        return deaf

    async def _thawed(self) -> None:
        while self.frozen:  # noqa: ASYNC110 - set by tests
            await asyncio.sleep(0.02)

    async def _program(self) -> None:
        """print:TEXT, escape, sleep:SECONDS, exit:CODE, signal:NAME, timeout, lost, oom, big:BYTES,
        raw:BASE64, file:PATH (a new file), change:PATH (of an input), skip:PATH (too large), call:N (as many
        tool calls at the same time, whose results are printed), store:BYTES (a call whose input is in the
        store)."""
        assert self.request is not None
        code = self.request.code
        words = (code.text if isinstance(code, protocol.InlineCode) else "print:stored").split()
        out, reason = "", "Succeeded"
        base64: str | None = None
        exit_code: int | None = 0
        signal: str | None = None
        files: list[OutputFile] = []
        skipped: list[SkippedFile] = []
        for word in words:
            name, _, value = word.partition(":")
            if name == "print":
                out += value
                self.written += value.encode()
            elif name == "big":
                out += "x" * int(value)
            elif name in ("file", "change") and self.target is not None and self.target.outputs is not None:
                id = f"{self.target.outputs.id_prefix}{len(files):08d}"
                files.append(OutputFile(id, value, 3, replaces=name == "change"))
            elif name == "skip":
                skipped.append(SkippedFile(value, "size"))
            elif name in ("call", "store"):
                out += await self._call(name, int(value))
            elif name == "escape":
                out += "\x1b[31m"
            elif name == "raw":
                base64 = value
            elif name == "sleep":
                try:
                    await asyncio.wait_for(self._wake.wait(), float(value))
                except TimeoutError:
                    continue
                break
            elif name == "exit":
                exit_code, reason = int(value), "NonZeroExit"
            elif name == "signal":
                exit_code, signal, reason = None, value, "Signalled"
            elif name == "timeout":
                exit_code, signal, reason = None, "SIGKILL", "TimeLimit"
            elif name == "lost":
                exit_code, reason = None, "RuntimeLost"
        if self.cancelled:
            exit_code, signal, reason = None, "SIGKILL", "Cancelled"
        stdout = Captured(None if base64 else out, base64, len(out), False)
        usage = Usage(0.01, 1 << 20, 0.01)
        self.result = RunResult(
            reason,  # type: ignore[arg-type]
            exit_code,
            signal,
            self.started_at,
            moment(),
            None,
            stdout,
            Captured(),
            False,
            usage,
            tuple(files),
            tuple(skipped),
            len(skipped),
        )
        await self.conclude()
        self._done.set()
        self._news.set()

    async def _call(self, kind: str, count: int) -> str:
        """Make calls and wait for their results."""
        made = []
        for _ in range(count if kind == "call" else 1):
            id = f"call_{len(self.given) + len(self.waiting) + 1:03d}"
            stored = ToolCall(id, "add", None, count, "a" * 64)
            self.waiting[id] = ToolCall(id, "add", f'{{"id":"{id}"}}') if kind == "call" else stored
            made.append(id)
        self._news.set()
        while self.waiting and not self.cancelled:
            self._wake.clear()
            await self._wake.wait()
        return "".join(f"{self.given[id].value or self.given[id].error}," for id in made if id in self.given)

    async def conclude(self) -> None:
        """What comes between the end of the program and the answer; nothing here."""

    def _state(self) -> Any:
        if self.result is not None:
            return "finished"
        if self._run is not None:
            return "running"
        return "prepared" if self.request is not None else None

    def stop(self) -> None:
        if self._run is not None:
            self._run.cancel()


def _refuse(status: int, refusal: Refusal) -> web.Response:
    return web.Response(status=status, body=refusal.to_json())


class Node:
    """Watches the pods of an API server and plays the kubelet for all of them."""

    def __init__(self, api: ApiServer, public_key: str) -> None:
        self.api = api
        self.port = 0
        self.sidecars: dict[str, Sidecar] = {}
        """By pod name, also of pods that are gone."""
        self.ready_after = 0.02
        self.ends_after = 0.02
        self.waiting: dict[str, str] = {}
        """Waiting reasons by image: pods with it never start."""
        self.unschedulable = ""
        """Message of the scheduler while no pod fits anywhere."""
        self._public_key = public_key
        self._by_address: dict[str, Sidecar] = {}
        self._silent: list[SilentAddress] = []
        self._addresses = (
            f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 9), range(1, 250), range(1, 250))
        )
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Node"]:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        # So that one address can be given a socket that takes nothing, see `fall_silent`.
        await web.TCPSite(runner, "0.0.0.0", 0, reuse_port=True).start()
        self.port = runner.addresses[0][1]
        self.api.delete_pod = self._end
        self._spawn(self._kubelet())
        try:
            yield self
        finally:
            for silent in self._silent:
                silent.close()
            for sidecar in self.sidecars.values():
                sidecar.frozen = sidecar.deaf = False
                sidecar.stop()
            for task in list(self._tasks):
                task.cancel()
            await runner.cleanup()

    def sidecar(self, pod: str) -> Sidecar:
        return self.sidecars[pod]

    def of_session(self, uid: str) -> list[Sidecar]:
        """Sidecars that a session has bound."""
        return [found for found in self.sidecars.values() if found.owner == Owner("session", uid)]

    def kill_container(self, pod: str, container: str, reason: str, exit_code: int) -> None:
        """A container of a pod ends, as the kubelet would say it."""

        def edit(found: Json) -> Json:
            for entry in found["status"]["containerStatuses"]:
                if entry["name"] == container:
                    entry["state"] = {"terminated": {"reason": reason, "exitCode": exit_code}}
                    entry["ready"] = False
            for condition in found["status"]["conditions"]:
                if condition["type"] == "Ready":
                    condition.update(status="False", lastTransitionTime=now())
            return found

        self._change(pod, edit)

    def cut_off(self, pod: str) -> None:
        """The sidecar of the pod does not answer any more."""
        self.sidecars[pod].unreachable = True

    def fall_silent(self, pod: str) -> None:
        """As if the pod's node had lost its power: nothing comes from it, and it takes no connections."""
        self.sidecars[pod].frozen = True
        address = next(address for address, found in self._by_address.items() if found is self.sidecars[pod])
        self._silent.append(SilentAddress(address, self.port))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        sidecar = self._by_address.get(address)
        if sidecar is None or sidecar.unreachable:
            request.transport.abort()
            return web.Response(status=500)
        return await sidecar.answer(request)

    async def _kubelet(self) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.api.store.collections["pods"].watchers.add(queue)
        try:
            while True:
                event = await queue.get()
                if event is None:
                    # The watches were cut; a node notices nothing of that.
                    self.api.store.collections["pods"].watchers.add(queue)
                elif event.kind == "ADDED":
                    self._spawn(self._start(event.object["metadata"]["name"]))
        finally:
            self.api.store.collections["pods"].watchers.discard(queue)

    async def _start(self, name: str) -> None:
        pod = self.api.store.get("pods", "kubecoderun", name)
        image = pod["spec"]["containers"][1]["image"]
        if self.unschedulable:
            blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            blocked["message"] = self.unschedulable
            self._change(
                name, lambda found: _with_status(found, {"phase": "Pending", "conditions": [blocked]})
            )
            return
        if image in self.waiting:
            reason = self.waiting[image]
            waiting = {"waiting": {"reason": reason, "message": f"cannot use {image}"}}
            status = {
                "phase": "Pending",
                "startTime": now(),
                "containerStatuses": [{"name": "runtime", "image": image, "state": waiting}],
            }
            self._change(name, lambda found: _with_status(found, status))
            return
        await asyncio.sleep(self.ready_after)
        address = next(self._addresses)
        uid = pod["metadata"]["uid"]
        sidecar = Sidecar(uid, Verifier([self._public_key], uid))
        self.sidecars[name] = self._by_address[address] = sidecar
        running = {"running": {"startedAt": now()}}
        status = {
            "phase": "Running",
            "podIP": address,
            "startTime": now(),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now()}],
            "containerStatuses": [
                {"name": name, "image": "x", "ready": True, "state": running}
                for name in ("sidecar", "runtime")
            ],
        }
        self._change(name, lambda found: _with_status(found, status, node="node-1"))

    def _end(self, pod: Json, grace: int) -> None:
        name = pod["metadata"]["name"]

        def edit(found: Json) -> Json:
            found["metadata"]["deletionTimestamp"] = now()
            found["metadata"]["deletionGracePeriodSeconds"] = grace
            return found

        if not pod["metadata"].get("deletionTimestamp"):
            self._change(name, edit)
            self._spawn(self._remove(name))

    async def _remove(self, name: str) -> None:
        await asyncio.sleep(self.ends_after)
        if name in self.sidecars:
            self.sidecars[name].unreachable = True
            self.sidecars[name].stop()
        try:
            self.api.store.delete("pods", "kubecoderun", name)
        except RefusedError:
            return

    def _change(self, name: str, edit: Any) -> None:
        try:
            self.api.store.change("pods", "kubecoderun", name, edit)
        except RefusedError as error:
            if error.status != 404:
                raise

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with_status(pod: Json, status: Json, node: str = "") -> Json:
    pod["status"] = status
    if node:
        pod["spec"]["nodeName"] = node
    return pod

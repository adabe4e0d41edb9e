"""Every request to a pod is sent from here: signed, over connections that are kept alive."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

import aiohttp

from kubecoderun_operator import metrics
from kubecoderun_operator.members import Member
from kubecoderun_operator.presence import KNOCK_SECONDS, Knock
from kubecoderun_operator.vigil import SidecarUnreachableError, Vigil
from kubecoderun_sidecar import protocol
from kubecoderun_sidecar.protocol import (
    Called,
    CancelRequest,
    Finished,
    PrepareRequest,
    ProtocolError,
    Refusal,
    ResultsRequest,
    RunResult,
    Started,
    StartRequest,
    StateAnswer,
    ToolCall,
)

_IDLE_SECONDS: Final = 3600
"""Connections to warm pods stay open until the pod goes; the sidecar closes what it does not want to keep."""
_LINE_BUFFER: Final = protocol.MAX_EVENT_BYTES // 2
"""aiohttp refuses lines longer than twice its buffer."""


class SidecarRefusedError(Exception):
    """The sidecar's answer to a request that it does not carry out."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(f"{status} {refusal.error}: {refusal.message}".rstrip(": "))
        self.status = status
        self.refusal = refusal

    @property
    def error(self) -> str:
        """The fixed word of the protocol: bound, cancelled, code_unavailable, not_prepared, ..."""
        return self.refusal.error


class Signing(Protocol):
    """What makes the signature headers of a request."""

    def headers(
        self, method: str, path: str, *, pod_uid: str, owner: str, epoch: int, body: bytes
    ) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class SidecarLimits:
    """Seconds: for a connection, an answer, an answer that needs the object store, silence in a run, and
    silence of a node that takes no connections."""

    connect: float
    answer: float
    fetch: float
    silence: float
    node_silence: float = 4.0


class Sidecars:
    """The client of all sidecars."""

    def __init__(
        self,
        signing: Signing,
        limits: SidecarLimits,
        port: int,
        epoch: Callable[[], int],
        raise_epoch: Callable[[int], Awaitable[None]],
    ) -> None:
        """epoch: of this leader. raise_epoch(n): called when a sidecar has seen a higher one; makes ours
        n."""
        self._signing = signing
        self._limits = limits
        self._port = port
        self._epoch = epoch
        self._raise_epoch = raise_epoch
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=_LINE_BUFFER)

    async def close(self) -> None:
        await self._session.close()

    async def greet(self, pod: Member) -> None:
        """Open a connection ahead of the first request; failing to is no error, the request will show it."""
        timeout = aiohttp.ClientTimeout(total=self._limits.connect)
        try:
            async with self._session.get(self._url(pod, protocol.PATH_HEALTH), timeout=timeout) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            metrics.SIDECAR_REQUESTS.labels("greet", "0").inc()

    async def state(self, pod: Member, owner: str) -> StateAnswer:
        """Whose pod it is and how far its run is."""
        return StateAnswer.parse(await self._ask("GET", protocol.PATH_STATE, pod, owner, b""))

    async def prepare(self, pod: Member, request: PrepareRequest, owner: str = "") -> None:
        """Bind the pod to the session for life and deliver code and input. Repeating it does no harm.

        owner: the workspace that has reserved the pod, for one of its runs.
        """
        fetches = isinstance(request.code, protocol.StoredCode) or bool(request.inputs)
        async with self._while_there(pod):
            await self._ask(
                "POST",
                protocol.PATH_PREPARE,
                pod,
                owner or request.session.uid,
                request.to_json(),
                seconds=self._limits.fetch if fetches else self._limits.answer,
            )

    async def reserve(self, pod: Member, owner: str) -> None:
        """Bind the pod to a workspace for life. Repeating it does no harm."""
        await self._ask("POST", protocol.PATH_RESERVE, pod, owner, b"{}")

    async def cancel(self, pod: Member, owner: str, run: str | None = None) -> None:
        """End the run; its stream ends with reason Cancelled. run: which one is meant, in a workspace."""
        await self._ask("POST", protocol.PATH_CANCEL, pod, owner, CancelRequest(run).to_json())

    async def output(self, pod: Member, owner: str, request: protocol.OutputRequest) -> protocol.OutputAnswer:
        """What the program has written beyond some offsets; waits for more as the request says."""
        seconds = request.wait_seconds + self._limits.answer
        answer = await self._ask("POST", protocol.PATH_OUTPUT, pod, owner, request.to_json(), seconds)
        try:
            return protocol.OutputAnswer.parse(answer)
        except ProtocolError:
            raise SidecarUnreachableError("output: the answer is malformed") from None

    async def results(self, pod: Member, owner: str, request: ResultsRequest) -> None:
        """Bring results of tool calls. Repeating it does no harm."""
        await self._ask(
            "POST", protocol.PATH_RESULTS, pod, owner, request.to_json(), seconds=self._limits.fetch
        )

    async def retire(self, pod: Member) -> None:
        """Take the pod out of service for ever; refused with 409 if a session has it."""
        await self._ask("POST", protocol.PATH_RETIRE, pod, pod.uid, b"{}")

    async def start(
        self,
        pod: Member,
        owner: str,
        request: StartRequest,
        started: Callable[[str], None],
        called: Callable[[Sequence[ToolCall]], None] = lambda _: None,
    ) -> RunResult:
        """Start the prepared program, or attach to its run, and stay until it has ended.

        started is called with the time at which the program started, called with tool calls that wait for
        their results: at first all there are, then new ones. SidecarUnreachableError if the
        connection breaks or stays silent; then repeat the call. NodeSilentError if that
        makes no sense.
        """
        body = request.to_json()
        async with self._while_there(pod) as vigil:
            return await self._start(pod, owner, body, started, called, vigil.hear)

    async def knock(self, pod: Member) -> Knock:
        """Whether the pod's node takes a connection; nothing is said over it."""
        try:
            async with asyncio.timeout(KNOCK_SECONDS):
                _, writer = await asyncio.open_connection(pod.ip, self._port)
        except ConnectionRefusedError:
            return Knock.REFUSED
        except OSError:  # TimeoutError is one
            return Knock.SILENT
        writer.transport.abort()
        return Knock.TAKEN

    # --- inside -----------------------------------------------------------------------------------

    def _while_there(self, pod: Member) -> Vigil:
        return Vigil(lambda: self.knock(pod), self._limits.node_silence)

    async def _start(
        self,
        pod: Member,
        owner: str,
        body: bytes,
        started: Callable[[str], None],
        called: Callable[[Sequence[ToolCall]], None],
        heard: Callable[[], None],
    ) -> RunResult:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.connect, sock_read=self._limits.silence
        )
        for attempt in (1, 2):
            headers = self._headers("POST", protocol.PATH_START, pod, owner, body)
            try:
                async with self._session.post(
                    self._url(pod, protocol.PATH_START), data=body, headers=headers, timeout=timeout
                ) as response:
                    if response.status != HTTPStatus.OK:
                        await self._refuse(response, attempt)
                        continue
                    metrics.SIDECAR_REQUESTS.labels("start", "200").inc()
                    return await self._follow(response, started, called, heard)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # ValueError: a line over the limit, or (ProtocolError) one that is not an event.
                metrics.SIDECAR_REQUESTS.labels("start", "0").inc()
                raise SidecarUnreachableError(f"start: {type(error).__name__}") from None
        raise SidecarUnreachableError("start: the epoch was refused twice")

    async def _follow(
        self,
        response: aiohttp.ClientResponse,
        started: Callable[[str], None],
        called: Callable[[Sequence[ToolCall]], None],
        heard: Callable[[], None],
    ) -> RunResult:
        async for line in response.content:
            heard()
            event = protocol.parse_event(line)
            if isinstance(event, Started):
                started(event.at)
            elif isinstance(event, Called):
                called(event.calls)
            elif isinstance(event, Finished):
                return event.result
        raise ProtocolError("the stream ended without a result")

    async def _ask(
        self, method: str, path: str, pod: Member, owner: str, body: bytes, seconds: float | None = None
    ) -> bytes:
        give_up = time.monotonic() + (self._limits.answer if seconds is None else seconds)
        url = self._url(pod, path)
        call = path.rpartition("/")[2]
        for attempt in (1, 2):
            headers = self._headers(method, path, pod, owner, body)
            timeout = aiohttp.ClientTimeout(
                total=max(0.05, give_up - time.monotonic()), sock_connect=self._limits.connect
            )
            try:
                async with self._session.request(
                    method, url, data=body or None, headers=headers, timeout=timeout
                ) as response:
                    if response.status < HTTPStatus.BAD_REQUEST:
                        metrics.SIDECAR_REQUESTS.labels(call, str(response.status)).inc()
                        return await response.read()
                    await self._refuse(response, attempt)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError) as error:
                # A connection kept alive may have been closed meanwhile. All requests can be repeated.
                if attempt == 1:
                    continue
                metrics.SIDECAR_REQUESTS.labels(call, "0").inc()
                raise SidecarUnreachableError(f"{call}: {type(error).__name__}") from None
            except (aiohttp.ClientError, TimeoutError, OSError, ProtocolError) as error:
                metrics.SIDECAR_REQUESTS.labels(call, "0").inc()
                raise SidecarUnreachableError(f"{call}: {type(error).__name__}") from None
        raise SidecarUnreachableError(f"{call}: the epoch was refused twice")

    async def _refuse(self, response: aiohttp.ClientResponse, attempt: int) -> None:
        """Raise the refusal, unless it is about the epoch and that could be raised for another attempt."""
        call = response.url.path.rpartition("/")[2]
        metrics.SIDECAR_REQUESTS.labels(call, str(response.status)).inc()
        body = await response.content.read(64 << 10)
        try:
            refusal = Refusal.parse(body)
        except ProtocolError:
            refusal = Refusal("not_understood")
        stale = response.status == HTTPStatus.PRECONDITION_FAILED and refusal.epoch is not None
        if not stale or refusal.epoch is None or attempt > 1:
            raise SidecarRefusedError(response.status, refusal)
        await self._raise_epoch(refusal.epoch)

    def _headers(self, method: str, path: str, pod: Member, owner: str, body: bytes) -> dict[str, str]:
        headers = self._signing.headers(
            method, path, pod_uid=pod.uid, owner=owner, epoch=self._epoch(), body=body
        )
        if body:
            headers["Content-Type"] = "application/json"
        return headers

    def _url(self, pod: Member, path: str) -> str:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        return f"http://{host}:{self._port}{path}"


async def ask_states(
    sidecars: Sidecars, pods: list[Member], owner: str, attempts: int, pause: float
) -> list[StateAnswer | None]:
    """Ask several pods at once, each so often before it counts as unreachable (None)."""

    async def ask(pod: Member) -> StateAnswer | None:
        for attempt in range(attempts):
            if not pod.ip or pod.sidecar_ending is not None:
                return None
            if attempt:
                await asyncio.sleep(pause)
            try:
                return await sidecars.state(pod, owner)
            except (SidecarUnreachableError, SidecarRefusedError):
                continue
        return None

    return list(await asyncio.gather(*(ask(pod) for pod in pods)))

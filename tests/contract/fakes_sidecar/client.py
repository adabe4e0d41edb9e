"""A small operator: signed requests over one keep-alive connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import h11

from kubecoderun_sidecar.protocol import (
    Caller,
    Event,
    Finished,
    InlineCode,
    Limits,
    OutputTarget,
    PrepareRequest,
    ResultTarget,
    RunResult,
    SessionRef,
    Signer,
    StartRequest,
    StoredCode,
    parse_event,
)

SIGNER = Signer(b"s" * 32)
POD_UID = "0d0d0d0d-pod"
SESSION = "5e55-session"


def job(
    code: str | StoredCode = "print(1)",
    *,
    session: str = SESSION,
    timeout: float = 30,
    output_bytes: int = 65536,
    files: int = 0,
    file_bytes: int = 1 << 30,
    total_bytes: int = 1 << 30,
    **more: Any,
) -> bytes:
    """Body of a prepare. `files`: how many may be handed back."""
    return PrepareRequest(
        SessionRef("kubecoderun", "hello", session),
        more.pop("language", "py"),
        InlineCode(code) if isinstance(code, str) else code,
        limits=Limits(timeout, output_bytes, files, file_bytes, total_bytes),
        **more,
    ).to_json()


def start(
    url: str | None = None,
    inline_bytes: int = 16384,
    after_seconds: float = 1.0,
    outputs: OutputTarget | None = None,
) -> bytes:
    """Body of a start."""
    return StartRequest(ResultTarget(url, inline_bytes, after_seconds) if url else None, outputs).to_json()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to the sidecar, opened on first use and again after the sidecar closed it."""

    def __init__(self, port: int, signer: Signer = SIGNER) -> None:
        self._port = port
        self._signer = signer
        self._http: h11.Connection | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.connections = 0

    async def request(self, method: str, path: str, body: bytes = b"", **signing: Any) -> Answer:
        """A signed request and its whole answer."""
        return await self.raw(method, path, body, self.signature(method, path, body, **signing))

    def signature(self, method: str, path: str, body: bytes, **changes: Any) -> dict[str, str]:
        """Headers for a request; `changes`: pod_uid, session, epoch, expires (seconds ahead)."""
        return self._signer.headers(
            method,
            path,
            pod_uid=changes.get("pod_uid", POD_UID),
            caller=Caller(changes.get("session", SESSION), changes.get("epoch", 1)),
            body=body,
            expires=int(time.time()) + changes.get("expires", 60),
        )

    async def raw(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """A request as it is."""
        await self._send(method, path, body, headers)
        head = await self._head()
        data = b"".join([chunk async for chunk in self._body()])
        return Answer(head.status_code, {k.decode(): v.decode() for k, v in head.headers}, data)

    async def stream(self, body: bytes, **signing: Any) -> AsyncGenerator[Event]:
        """The events of a start."""
        await self._send("POST", "/v1/start", body, self.signature("POST", "/v1/start", body, **signing))
        head = await self._head()
        assert head.status_code == 200, head
        pending = b""
        async for chunk in self._body():
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                yield parse_event(line)
        assert not pending

    async def result(self, body: bytes | None = None, **signing: Any) -> RunResult:
        """Start, and wait for the last event."""
        events = [event async for event in self.stream(start() if body is None else body, **signing)]
        assert isinstance(events[-1], Finished)
        return events[-1].result

    def close(self) -> None:
        if self._http is not None:
            self._writer.transport.abort()
            self._http = None

    async def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        if self._http is None or self._http.our_state is not h11.IDLE:
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._http = h11.Connection(h11.CLIENT)
            self.connections += 1
        fields = [("Host", "sidecar"), ("Content-Length", str(len(body))), *headers.items()]
        data = self._http.send(h11.Request(method=method, target=path, headers=fields)) or b""
        data += (self._http.send(h11.Data(data=body)) or b"") if body else b""
        self._writer.write(data + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()

    async def _head(self) -> h11.Response:
        event = await self._event()
        assert isinstance(event, h11.Response), event
        return event

    async def _body(self) -> AsyncGenerator[bytes]:
        assert self._http is not None
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            yield bytes(event.data)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def _event(self) -> object:
        assert self._http is not None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(65536))
        return event

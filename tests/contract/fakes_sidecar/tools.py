"""A host of tools: follows a run as the operator does, and answers its calls as LibreChat's client does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from contract.fakes_sidecar.client import SESSION, Client, job
from kubecoderun_sidecar.protocol import (
    Called,
    Finished,
    Limits,
    ResultsRequest,
    RunResult,
    StartRequest,
    Tool,
    ToolCall,
    ToolResult,
)

Handler = Callable[[str, Any], Any]
"""Tool and input to a result; what it raises is the error that the program sees."""


class Host:
    """Runs one program, and answers its calls by a function."""

    def __init__(self, port: int, handler: Handler, *, workspace: str = "", run: str = SESSION) -> None:
        """workspace: uid of the one that has reserved the pod, if one has. run: uid of the session."""
        self._port = port
        self._handler = handler
        self._owner = workspace or run
        self._session = run
        self._run = run if workspace else None
        self.rounds: list[tuple[ToolCall, ...]] = []
        """Calls as they were told, those told together in one entry."""

    async def run(
        self,
        code: str,
        tools: Sequence[Tool],
        *,
        language: str = "py",
        limits: Limits | None = None,
        start_body: bytes | None = None,
        patience: float = 30,
    ) -> RunResult:
        """Prepare, start, answer, until the end."""
        client = Client(self._port)
        body = job(code, language=language, tools=tuple(tools), session=self._session)
        if limits is not None:
            fields = json.loads(body)
            fields["limits"]["timeoutSeconds"] = limits.timeout_seconds
            fields["limits"]["toolWaitSeconds"] = limits.tool_wait_seconds
            fields["limits"]["allToolWaitsSeconds"] = limits.all_tool_waits_seconds
            body = json.dumps(fields).encode()
        answer = await client.request("POST", "/v1/prepare", body, session=self._owner)
        assert answer.status == 200, answer
        async with asyncio.timeout(patience):
            return await self.follow(start_body or StartRequest(run=self._run).to_json())

    async def follow(self, start_body: bytes) -> RunResult:
        """Read the events from where the run is."""
        client = Client(self._port)
        try:
            async for event in client.stream(start_body, session=self._owner):
                if isinstance(event, Finished):
                    return event.result
                if isinstance(event, Called):
                    self.rounds.append(event.calls)
                    await self.answer(event.calls)
        finally:
            client.close()
        raise AssertionError("the stream ended without a result")

    async def answer(self, calls: Sequence[ToolCall]) -> None:
        """Give the results of these calls."""
        given = await self.give([self.result(call) for call in calls])
        assert given == 200

    async def give(self, results: Sequence[ToolResult]) -> int:
        """Status of the answer to these results."""
        client = Client(self._port)
        try:
            body = ResultsRequest(tuple(results), self._run).to_json()
            return (await client.request("POST", "/v1/results", body, session=self._owner)).status
        finally:
            client.close()

    def result(self, call: ToolCall) -> ToolResult:
        """What the handler makes of a call."""
        assert call.input is not None
        try:
            value = self._handler(call.name, json.loads(call.input))
        except Exception as error:
            return ToolResult(call.id, error=str(error))
        return ToolResult(call.id, value=json.dumps(value))

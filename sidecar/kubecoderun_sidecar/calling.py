"""Carries the tool calls of one run: from the runner to whoever reads the start stream, and results back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from kubecoderun_sidecar.timelimit import TimeLimit
from kubecoderun_sidecar.toolcalls import (
    AskedCall,
    CallBook,
    CallRefusedError,
    PendingCall,
    Tool,
    ToolCall,
    ToolResult,
)
from kubecoderun_sidecar.transfer import Store, TransferError, whole

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.03
"""After a call that does not say that it is the last of several: how long another one is waited for, so that
calls made at the same time are told together."""
STORE_SECONDS = 60.0
"""Longest time for one input on its way to the store."""
_MAX_REFUSALS = 1000
"""A program that makes so many calls that are refused, without taking the answers, is up to something."""


class ResultUnavailableError(Exception):
    """A result cannot be fetched: its place among those given, and why."""

    def __init__(self, place: int, cause: TransferError) -> None:
        super().__init__(cause.message)
        self.place = place
        self.cause = cause


class Link(Protocol):
    """The way to the runner."""

    async def answer(self, number: int, value: bytes | None, error: str | None) -> None: ...

    def lose(self, detail: str) -> None: ...


class Calling:
    """The calls of one run. All methods belong to the event loop."""

    def __init__(
        self,
        link: Link,
        store: Store,
        tools: tuple[Tool, ...],
        limit: TimeLimit,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when there is something new for readers."""
        self._link = link
        self._store = store
        self._book = CallBook(frozenset(tool.name for tool in tools))
        self._limit = limit
        self._wake = wake
        self._slots: dict[str, str] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._giving = asyncio.Lock()
        self._storing = asyncio.Semaphore(2)
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = 0

    def grant(self, slots: dict[str, str]) -> None:
        """Where long inputs go: a presigned PUT by the id of the call. Newer grants replace older ones."""
        self._slots.update(slots)

    def on_call(self, asked: AskedCall) -> None:
        """The program calls a tool."""
        try:
            call = self._book.add(asked)
        except CallRefusedError as error:
            self._refuse(asked.number, str(error))
            return
        if len(self._book.waiting) == 1:
            self._limit.wait()
        if not call.short:
            self._spawn(self._store_input(call))
        if asked.settled:
            self._release()
        else:
            self._settle()

    def news(self, told: set[str]) -> tuple[ToolCall, ...]:
        """Calls that wait for their results and are not yet in `told`, which they are added to."""
        new = [call for call in self._book.waiting.values() if call.released and call.id not in told]
        told.update(call.id for call in new)
        return tuple(call.told() for call in new)

    async def give(self, results: tuple[ToolResult, ...]) -> None:
        """Bring results to the program. Each call takes one; what is for no call that waits is dropped.

        Raises ResultUnavailableError; results before that place have been given.
        """
        async with self._giving:
            for place, result in enumerate(results):
                call = self._book.waiting.get(result.id)
                if call is None:
                    continue
                try:
                    value = await self._value(result)
                except TransferError as error:
                    raise ResultUnavailableError(place, error) from None
                if self._book.waiting.pop(result.id, None) is None:
                    continue
                # The time is the program's again before it has the result, not after.
                if self._book.waiting:
                    self._limit.wait()
                else:
                    self._limit.go_on()
                await self._link.answer(call.number, value, result.error)

    def close(self) -> None:
        """The program has ended: nothing waits any more."""
        self._book.waiting.clear()
        if self._settling is not None:
            self._settling.cancel()
        for task in self._tasks:
            task.cancel()

    async def _value(self, result: ToolResult) -> bytes | None:
        if result.error is not None:
            return None
        if result.value is not None:
            return result.value.encode("utf-8")
        data = bytearray()
        async for piece in self._store.fetch(result.url, result.bytes, result.sha256):
            data += piece
        return bytes(data)

    def _settle(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._release)

    def _release(self) -> None:
        """Tell readers of all calls there are, as far as their inputs are where they should be."""
        for call in self._book.waiting.values():
            call.released = call.released or call.short or call.stored
        self._wake()

    async def _store_input(self, call: PendingCall) -> None:
        """Bring a long input to the store; when that fails the program is told."""
        url, data = self._slots.get(call.id), call.text.encode("ascii")
        failure = "its input is too long without an object store"
        if url is not None:
            try:
                async with self._storing, asyncio.timeout(STORE_SECONDS):
                    await self._store.put(url, len(data), lambda: whole(data), "application/json")
                call.stored, call.text = True, ""
                self._release()
                return
            except (TransferError, TimeoutError) as error:
                failure = "its input could not be stored"
                log.warning("the input of a tool call was not stored: %s", error)
        await self.give((ToolResult(call.id, error=failure),))

    def _refuse(self, number: int, text: str) -> None:
        if self._refusals >= _MAX_REFUSALS:
            self._link.lose("the program makes calls and does not take the answers")
            return
        self._refusals += 1
        self._spawn(self._refused(number, text))

    async def _refused(self, number: int, text: str) -> None:
        async with self._giving:
            await self._link.answer(number, None, text)
        self._refusals -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            # Also a lost runtime comes here, which its observer has been told.
            log.info("a tool call was not carried to its end", exc_info=True)

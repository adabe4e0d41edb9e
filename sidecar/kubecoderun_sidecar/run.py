"""One run: prepared, running, finished. It hears what happens to the program, and makes the one answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from kubecoderun_sidecar.answers import (
    Event,
    Finished,
    Heartbeat,
    Reason,
    RunResult,
    RunState,
    Started,
    Usage,
)
from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.dialogue import ExitReport
from kubecoderun_sidecar.output import Kept, OutputKeeper
from kubecoderun_sidecar.protocol import HEARTBEAT_SECONDS, Limits, ResultTarget
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.transfer import Store, TransferError, whole

log = logging.getLogger(__name__)

START_SECONDS = 10.0
"""From G to S: the runner has everything, so only a fork and an exec are left."""
TIME_LIMIT_GRACE_SECONDS = 5.0
"""The runner enforces the time limit; this much later it has failed to, and the sidecar does."""
CANCEL_SECONDS = 2.0
STORE_SECONDS = 30.0
"""Longest time for result.json, all attempts together."""
DEFAULT_INLINE_BYTES = 16384


class Run:
    """The one run of this pod. Its methods belong to the event loop; those named on_* come from the link."""

    def __init__(self, link: RuntimeLink, store: Store, limits: Limits) -> None:
        self._link = link
        self._store = store
        self._limits = limits
        self._outputs = (OutputKeeper(limits.output_bytes), OutputKeeper(limits.output_bytes))
        self._target: ResultTarget | None = None
        self._asked = False
        self._cancel_asked = False
        self._overdue = False
        self._ended = False
        self._started_wall: float | None = None
        self._started_monotonic = 0.0
        self._result: RunResult | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._waiters: set[asyncio.Future[bool]] = set()
        self._storing: asyncio.Task[None] | None = None

    @property
    def state(self) -> RunState:
        """ "running" lasts until the result is there, so it covers the upload of result.json."""
        if self._result is not None:
            return "finished"
        return "running" if self._asked else "prepared"

    @property
    def result(self) -> RunResult | None:
        return self._result

    def start(self, target: ResultTarget | None) -> None:
        """Start the program, once. Again: only `target` is taken over, as an older URL may have expired."""
        self._target = target or self._target
        if self._asked or self._ended:
            return
        self._asked = True
        self._after(START_SECONDS, "the runner did not start the program in time")
        self._link.go(self)

    def cancel(self) -> None:
        """End the run with reason Cancelled; a run that has ended keeps its result."""
        if self._ended or self._cancel_asked:
            return
        self._cancel_asked = True
        if not self._asked:
            self._end("Cancelled", None, None)
            return
        self._after(CANCEL_SECONDS, "the runner did not end the program after a cancel")
        self._link.cancel()

    async def events(self) -> AsyncGenerator[list[Event]]:
        """What a reader of the start stream is told, in groups that are there at the same time. Any number
        of readers, from any moment on; a reader that leaves changes nothing."""
        told_start = False
        while True:
            group: list[Event] = []
            if self._started_wall is not None and not told_start:
                told_start = True
                group.append(Started(rfc3339(self._started_wall)))
            if self._result is not None:
                yield [*group, Finished(self._result)]
                return
            if group:
                yield group
            elif not await self._changed(HEARTBEAT_SECONDS):
                yield [Heartbeat()]

    async def finished(self) -> None:
        """Wait for the result."""
        while self._result is None:
            await self._changed(None)

    # -- what the runner does

    def on_started(self) -> None:
        self._started_wall, self._started_monotonic = time.time(), time.monotonic()
        if not self._cancel_asked:
            self._stop_timers()
            seconds = self._limits.timeout_seconds + TIME_LIMIT_GRACE_SECONDS
            self._timers.append(asyncio.get_running_loop().call_later(seconds, self._on_overdue))
        self._wake()

    def on_output(self, is_stderr: bool, chunk: memoryview) -> None:
        self._outputs[is_stderr].add(chunk)

    def on_exit(self, report: ExitReport) -> None:
        reason = report.reason(cancel_asked=self._cancel_asked)
        lost = reason == "RuntimeLost"
        self._end(reason, report, "the runner reported a cancel that nobody asked for" if lost else None)

    def on_lost(self, detail: str) -> None:
        if self._cancel_asked:
            self._end("Cancelled", None, detail)
        else:
            self._end("TimeLimit" if self._overdue else "RuntimeLost", None, detail)

    # -- the end

    def _on_overdue(self) -> None:
        self._overdue = True
        self._link.lose("the runner did not end the program at its time limit")

    def _end(self, reason: Reason, report: ExitReport | None, detail: str | None) -> None:
        """The program is over: make the result, and store it first if it has to be."""
        if self._ended:
            return
        self._ended = True
        self._stop_timers()
        elapsed = time.monotonic() - self._started_monotonic if self._started_wall is not None else 0.0
        kept = (self._outputs[0].kept(), self._outputs[1].kept())
        result = self._assemble(kept, reason, report, detail, elapsed)
        target = self._target
        if target is not None and self._must_store(target, kept, elapsed):
            self._storing = asyncio.get_running_loop().create_task(
                self._store_then_conclude(target, result, kept)
            )
        else:
            inline = target.inline_bytes if target is not None else DEFAULT_INLINE_BYTES
            self._conclude(_preview(result, kept, inline))

    def _assemble(
        self,
        kept: tuple[Kept, Kept],
        reason: Reason,
        report: ExitReport | None,
        detail: str | None,
        elapsed: float,
    ) -> RunResult:
        """The result with all kept output."""
        started = self._started_wall
        if report is None:
            usage = Usage(None, None, elapsed)
        else:
            usage = Usage(report.cpu_seconds, report.max_rss_bytes, report.wall_seconds)
        return RunResult(
            reason=reason,
            exit_code=report.exit_code if report else None,
            signal=report.signal if report else None,
            started_at=rfc3339(started) if started is not None else None,
            # Not read from the clock a second time: a step of the clock must not end a run before its start.
            finished_at=rfc3339(started + elapsed if started is not None else time.time()),
            stored_at=None,
            stdout=kept[0].captured(kept[0].joined()),
            stderr=kept[1].captured(kept[1].joined()),
            stored=False,
            usage=usage,
            detail=detail,
        )

    def _must_store(self, target: ResultTarget, kept: tuple[Kept, Kept], elapsed: float) -> bool:
        if self._started_wall is None:
            return False
        return elapsed > target.after_seconds or any(
            len(part.joined()) > target.inline_bytes for part in kept
        )

    async def _store_then_conclude(
        self, target: ResultTarget, result: RunResult, kept: tuple[Kept, Kept]
    ) -> None:
        # result.json must say that it is stored, and when, before it is: the moment before the upload.
        data = replace(result, stored=True, stored_at=rfc3339(time.time())).to_json()
        preview = _preview(result, kept, target.inline_bytes)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.put(target.url, len(data), lambda: whole(data), "application/json")
        except TransferError as error:
            self._conclude(replace(preview, store_error=error.message))
        except TimeoutError:
            self._conclude(replace(preview, store_error="the store did not take the result in time"))
        except Exception:
            log.exception("storing the result failed unexpectedly")
            self._conclude(replace(preview, store_error="storing the result failed unexpectedly"))
        else:
            self._conclude(replace(preview, stored=True, stored_at=rfc3339(time.time())))

    def _conclude(self, result: RunResult) -> None:
        self._result = result
        # Their bytes are in the result now; the pod may idle for a long time before it is deleted.
        self._outputs = (OutputKeeper(0), OutputKeeper(0))
        self._wake()
        # The readers have been woken, and come before this: the answer first, then the log.
        asyncio.get_running_loop().call_soon(_log_end, result)

    # -- waiting

    def _after(self, seconds: float, detail: str) -> None:
        """Lose the runtime then, unless something better happens before."""
        self._stop_timers()
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self._link.lose, detail))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _wake(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter, True)

    async def _changed(self, seconds: float | None) -> bool:
        """Wait for the next change; False when `seconds` pass without one."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _resolve, waiter, False) if seconds is not None else None
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _resolve(waiter: asyncio.Future[bool], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)


def _log_end(result: RunResult) -> None:
    log.info(
        "run finished: reason=%s stdout=%d stderr=%d stored=%s detail=%s storeError=%s",
        result.reason,
        result.stdout.bytes,
        result.stderr.bytes,
        result.stored,
        result.detail,
        result.store_error,
    )


def _preview(result: RunResult, kept: tuple[Kept, Kept], limit: int) -> RunResult:
    """The same result with at most `limit` bytes of each stream."""
    return replace(
        result,
        stdout=kept[0].captured(kept[0].preview(limit)),
        stderr=kept[1].captured(kept[1].preview(limit)),
    )

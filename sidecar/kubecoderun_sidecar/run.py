"""One run: prepared, running, finished. It hears what happens to the program, and makes the one answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from kubecoderun_sidecar import metrics
from kubecoderun_sidecar.answers import (
    Called,
    Event,
    Finished,
    Heartbeat,
    OutputFile,
    Reason,
    RunResult,
    RunState,
    Started,
)
from kubecoderun_sidecar.calling import Calling
from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.collection import Collector
from kubecoderun_sidecar.conclusion import (
    Ending,
    KeptOutput,
    assemble,
    must_store,
    preview,
    store_result,
)
from kubecoderun_sidecar.dialogue import ExitReport
from kubecoderun_sidecar.limits import TAIL_BYTES, advice, appended, cut_advice, reason_of
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.output import OutputKeeper
from kubecoderun_sidecar.protocol import (
    HEARTBEAT_SECONDS,
    Limits,
    OutputTarget,
    ResultTarget,
    StartRequest,
)
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.timelimit import TimeLimit
from kubecoderun_sidecar.toolcalls import AskedCall, Tool, ToolResult
from kubecoderun_sidecar.transfer import Store

log = logging.getLogger(__name__)

START_SECONDS = 10.0
"""From G to S: the runner has everything, so only a fork and an exec are left."""
TIME_LIMIT_GRACE_SECONDS = 5.0
"""The runner enforces the time limit; this much later it has failed to, and the sidecar does."""
OUTPUT_GRACE_BYTES = 64 << 20
"""The runner enforces the limit on output; so much later it has failed to, and the sidecar does."""
CANCEL_SECONDS = 2.0
COLLECT_SECONDS = 120.0
"""From the end of the program until its files are in the store; what is not there by then is skipped."""


class Run:
    """The one run of this pod. Its methods belong to the event loop; those named on_* come from the link."""

    def __init__(
        self,
        link: RuntimeLink,
        store: Store,
        limits: Limits,
        listing: Listing,
        tools: tuple[Tool, ...] = (),
    ) -> None:
        """`listing` is the one the link fills. `tools`: those that the program may call."""
        self._link = link
        self._store = store
        self._limits = limits
        self._listing = listing
        self._outputs = (OutputKeeper(limits.output_bytes, prefix=True), OutputKeeper(limits.output_bytes))
        self._result_target: ResultTarget | None = None
        self._file_target: OutputTarget | None = None
        self._asked = False
        self._cancel_asked = False
        self._overdue = False
        self._overprinted = False
        self._abandoned = False
        self._ending: Ending | None = None
        self._collect_until = 0.0
        self._started_wall: float | None = None
        self._started_monotonic = 0.0
        self._result: RunResult | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._waiters: set[asyncio.Future[bool]] = set()
        self._work: asyncio.Task[None] | None = None
        self._limit = TimeLimit(
            limits.timeout_seconds + TIME_LIMIT_GRACE_SECONDS,
            limits.tool_wait_seconds,
            limits.all_tool_waits_seconds,
            overdue=self._on_overdue,
            abandoned=self._on_abandoned,
        )
        self._calling = Calling(link, store, tools, self._limit, self._wake)

    @property
    def state(self) -> RunState:
        """ "running" lasts until the result is there, so it covers the upload of files and result.json."""
        if self._result is not None:
            return "finished"
        return "running" if self._asked else "prepared"

    @property
    def result(self) -> RunResult | None:
        return self._result

    def start(self, request: StartRequest) -> None:
        """Start the program, once. Again: only the grants are taken over, as older ones may have expired."""
        self._result_target = request.result or self._result_target
        self._file_target = request.outputs or self._file_target
        self._calling.grant({slot.id: slot.url for slot in request.call_slots})
        if self._asked or self._ending is not None:
            return
        self._asked = True
        self._after(START_SECONDS, "the runner did not start the program in time")
        self._link.go(self)

    def cancel(self) -> None:
        """End the run with reason Cancelled; a run that has ended keeps its result."""
        if self._ending is not None or self._cancel_asked:
            return
        self._cancel_asked = True
        if not self._asked:
            self._end("Cancelled", None, None)
            self._conclude()
            return
        self._limit.stop()
        self._after(CANCEL_SECONDS, "the runner did not end the program after a cancel")
        self._link.cancel()

    async def give(self, results: tuple[ToolResult, ...]) -> None:
        """Bring results of tool calls to the program. Raises ResultUnavailableError or RuntimeLostError."""
        await self._calling.give(results)

    async def events(self) -> AsyncGenerator[list[Event]]:
        """What a reader of the start stream is told, in groups that are there at the same time. Any number
        of readers, from any moment on; a reader that leaves changes nothing."""
        told_start = False
        told_calls: set[str] = set()
        while True:
            group: list[Event] = []
            if self._started_wall is not None and not told_start:
                told_start = True
                group.append(Started(rfc3339(self._started_wall)))
            if calls := self._calling.news(told_calls):
                group.append(Called(calls))
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
            self._limit.start()
        self._wake()

    def on_output(self, is_stderr: bool, chunk: memoryview) -> None:
        self._outputs[is_stderr].add(chunk)
        most = self._limits.printed_bytes
        if most and self._outputs[0].total + self._outputs[1].total > most + OUTPUT_GRACE_BYTES:
            self._overprinted = True
            self._link.lose("the runner did not end the program at its output limit")

    def on_call(self, call: AskedCall) -> None:
        self._calling.on_call(call)

    def on_exit(self, report: ExitReport) -> None:
        reason = report.reason(cancel_asked=self._cancel_asked or self._abandoned)
        if reason == "Cancelled" and not self._cancel_asked:
            reason = "ToolWaitExpired"
        if reason in ("NonZeroExit", "Signalled"):
            reason = reason_of(report.limit, self._outputs[1].last(TAIL_BYTES)) or reason
        lost = reason == "RuntimeLost"
        self._end(reason, report, "the runner reported a cancel that nobody asked for" if lost else None)
        if self._listing.wanted:
            self._collect_until = time.monotonic() + COLLECT_SECONDS
            self._after(COLLECT_SECONDS, "the runner did not list its files in time")
        else:
            self._conclude()

    def on_listed(self) -> None:
        self._stop_timers()
        if self._file_target is not None and self._listing.files:
            self._work = asyncio.get_running_loop().create_task(self._collect())
        else:
            self._link.finish()
            self._conclude()

    def on_lost(self, detail: str) -> None:
        if self._ending is not None:
            # The program had ended before: only its files are lost.
            for file in self._listing.files:
                self._listing.skip(file.path, "unreadable")
            self._note_lost_files(detail)
        elif self._cancel_asked:
            self._end("Cancelled", None, detail)
        elif self._abandoned:
            self._end("ToolWaitExpired", None, detail)
        else:
            lost: Reason = "OutputLimit" if self._overprinted else "RuntimeLost"
            self._end("TimeLimit" if self._overdue else lost, None, detail)
        self._conclude()

    # -- the end

    def _on_overdue(self) -> None:
        self._overdue = True
        self._link.lose("the runner did not end the program at its time limit")

    def _on_abandoned(self) -> None:
        """Nobody brings results: end the program."""
        if self._ending is not None or self._cancel_asked:
            return
        self._abandoned = True
        self._limit.stop()
        self._after(CANCEL_SECONDS, "the runner did not end a program that nobody brings results")
        self._link.cancel()

    def _end(self, reason: Reason, report: ExitReport | None, detail: str | None) -> None:
        """The program is over."""
        self._stop_timers()
        self._limit.stop()
        self._calling.close()
        elapsed = time.monotonic() - self._started_monotonic if self._started_wall is not None else 0.0
        told = advice(
            reason,
            self._link.bounds,
            self._limits.timeout_seconds,
            self._outputs[0].total + self._outputs[1].total,
            self._outputs[1].last(TAIL_BYTES),
        )
        self._ending = Ending(reason, report, detail, self._started_wall, elapsed, told)

    async def _collect(self) -> None:
        """Bring the listed files to the store, then conclude."""
        collector = Collector(self._link, self._store, self._listing.files, lambda: self._file_target)
        try:
            await collector.collect(self._collect_until - time.monotonic())
        except Exception:
            log.exception("collecting files failed unexpectedly")
        lost = self._link.lost_because
        if lost is not None:
            self._note_lost_files(lost)
        self._link.finish()
        files: list[OutputFile] = []
        for place, file in enumerate(self._listing.files):
            if place in collector.collected:
                files.append(collector.collected[place])
            else:
                self._listing.skip(file.path, collector.failed.get(place, "store"))
        self._conclude(files)

    def _note_lost_files(self, detail: str) -> None:
        wanted = self._file_target is not None
        if wanted and self._ending is not None and self._ending.detail is None:
            self._ending = replace(self._ending, detail=f"files could not be collected: {detail}")

    def _conclude(self, files: list[OutputFile] | None = None) -> None:
        """Make the result, and store it first if it has to be."""
        ending, self._work = self._ending, None
        if ending is None:
            return
        self._stop_timers()
        kept = (self._outputs[0].kept(), self._outputs[1].kept())
        ending = self._ending = self._with_notes(ending, kept)
        listing = self._listing if self._file_target is not None else None
        result = assemble(ending, kept, files or [], listing)
        target = self._result_target
        passed = time.monotonic() - self._started_monotonic
        if target is not None and must_store(target, kept, ending, passed):
            storing = self._store_and_publish(target, result, kept, ending.notes)
            self._work = asyncio.get_running_loop().create_task(storing)
        else:
            self._publish(preview(result, kept, ending.notes, target))

    def _with_notes(self, ending: Ending, kept: KeptOutput) -> Ending:
        """The same ending with what its author can do about the limits that the program met."""
        cut = [
            cut_advice(name, len(part.head) + len(part.tail), part.total)
            for name, part in zip(("stdout", "stderr"), kept, strict=True)
            if not part.complete
        ]
        if ending.reason == "OutputLimit":
            cut = []
        lines = [ending.advice, *cut] if ending.advice else cut
        last = self._outputs[1].last(1)
        return replace(ending, notes=appended(lines, fresh_line=last in (b"", b"\n")))

    async def _store_and_publish(
        self, target: ResultTarget, result: RunResult, kept: KeptOutput, notes: bytes
    ) -> None:
        self._publish(await store_result(self._store, target, result, kept, notes))

    def _publish(self, result: RunResult) -> None:
        metrics.RUNS.inc(result.reason)
        metrics.OUTPUT.inc("stdout", result.stdout.bytes)
        metrics.OUTPUT.inc("stderr", result.stderr.bytes)
        self._result = result
        # Their bytes are in the result now; the pod may idle for a long time before it is deleted.
        self._outputs = (OutputKeeper(0, prefix=True), OutputKeeper(0))
        self._store.close()
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
        "run finished: reason=%s stdout=%d stderr=%d files=%d skipped=%d stored=%s detail=%s storeError=%s",
        result.reason,
        result.stdout.bytes,
        result.stderr.bytes,
        len(result.files),
        result.skipped_count,
        result.stored,
        result.detail,
        result.store_error,
    )

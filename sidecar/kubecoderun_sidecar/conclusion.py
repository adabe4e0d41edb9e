"""From the end of a run to its result: what the result says, and whether and how result.json is stored."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

from kubecoderun_sidecar.answers import OutputFile, Reason, RunResult, Usage
from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.dialogue import ExitReport
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.output import Kept
from kubecoderun_sidecar.protocol import ResultTarget
from kubecoderun_sidecar.transfer import Store, TransferError, whole

log = logging.getLogger(__name__)

STORE_SECONDS = 30.0
"""Longest time for result.json, all attempts together, when it has more than the answer."""
SPARE_SECONDS = 3.0
"""The same when the answer has all of it: it is stored only in case that gets lost, and somebody waits."""
DEFAULT_INLINE_BYTES = 16384
_LEAST_PREVIEW = 256

KeptOutput = tuple[Kept, Kept]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended. `started`: unix seconds, None when it never did. `elapsed`: seconds since then."""

    reason: Reason
    report: ExitReport | None
    detail: str | None
    started: float | None
    elapsed: float
    advice: str | None = None
    """What to tell the program's author, if it met a limit."""
    notes: bytes = b""
    """What is put after the program's stderr."""


def assemble(ending: Ending, kept: KeptOutput, files: list[OutputFile], listing: Listing | None) -> RunResult:
    """The result with all kept output. `listing` tells what was skipped; None: no files were wanted."""
    report, started = ending.report, ending.started
    if report is None:
        usage = Usage(None, None, ending.elapsed)
    else:
        usage = Usage(report.cpu_seconds, report.max_rss_bytes, report.wall_seconds)
    return RunResult(
        reason=ending.reason,
        exit_code=report.exit_code if report else None,
        signal=report.signal if report else None,
        started_at=rfc3339(started) if started is not None else None,
        # Not read from the clock a second time: a step of the clock must not end a run before its start.
        finished_at=rfc3339(started + ending.elapsed if started is not None else time.time()),
        stored_at=None,
        stdout=kept[0].captured(kept[0].joined()),
        stderr=kept[1].captured(kept[1].joined(), ending.notes),
        stored=False,
        usage=usage,
        files=tuple(files),
        skipped=tuple(listing.skipped) if listing is not None else (),
        skipped_count=listing.skipped_count if listing is not None else 0,
        deleted=tuple(listing.deleted) if listing is not None else (),
        detail=ending.detail,
    )


def must_store(target: ResultTarget, kept: KeptOutput, ending: Ending, seconds: float) -> bool:
    """Whether result.json is due; `seconds` have passed since the start, files included."""
    if ending.started is None:
        return False
    return seconds > target.after_seconds or _exceeds(target, kept, ending.notes)


def _exceeds(target: ResultTarget, kept: KeptOutput, notes: bytes) -> bool:
    """Whether the answer cannot have all the output."""
    return max(len(kept[0].joined()), len(kept[1].joined()) + len(notes)) > target.inline_bytes


def preview(result: RunResult, kept: KeptOutput, notes: bytes, target: ResultTarget | None) -> RunResult:
    """The same result with as much of each stream as may be inline, `notes` always."""
    limit = target.inline_bytes if target is not None else DEFAULT_INLINE_BYTES
    return replace(
        result,
        stdout=kept[0].captured(kept[0].preview(limit)),
        stderr=kept[1].captured(kept[1].preview(max(_LEAST_PREVIEW, limit - len(notes))), notes),
    )


async def store_result(
    store: Store, target: ResultTarget, result: RunResult, kept: KeptOutput, notes: bytes
) -> RunResult:
    """Store result.json; what to answer, whatever came of it."""
    # result.json must say that it is stored, and when, before it is: the moment before the upload.
    data = replace(result, stored=True, stored_at=rfc3339(time.time())).to_json()
    answer = preview(result, kept, notes, target)
    try:
        async with asyncio.timeout(STORE_SECONDS if _exceeds(target, kept, notes) else SPARE_SECONDS):
            await store.put(target.url, len(data), lambda: whole(data), "application/json")
    except TransferError as error:
        return replace(answer, store_error=error.message)
    except TimeoutError:
        return replace(answer, store_error="the store did not take the result in time")
    except Exception:
        log.exception("storing the result failed unexpectedly")
        return replace(answer, store_error="storing the result failed unexpectedly")
    return replace(answer, stored=True, stored_at=rfc3339(time.time()))

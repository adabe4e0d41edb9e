"""Passes on what a program has written so far, for a front end whose client watches the run.

One question is one request to one sidecar; nothing is kept here, so it costs nothing when nobody watches.
"""

import asyncio
import logging
import time
from collections import Counter
from typing import Final, Protocol

from aiohttp import web

from kubecoderun_crds.relay import HEADER, PATH, Glance, Piece, Question, RelayError, RunState, is_signed
from kubecoderun_operator import metrics
from kubecoderun_operator.log import about
from kubecoderun_operator.run import Run
from kubecoderun_operator.sidecars import SidecarRefusedError, Sidecars
from kubecoderun_operator.vigil import SidecarUnreachableError
from kubecoderun_sidecar import protocol

logger = logging.getLogger(__name__)

QUESTIONS_AT_ONCE: Final = 4
"""Of one session: a sidecar has few connections, and most of them are for other things."""
WAITING: Final = Glance("waiting")


class Runs(Protocol):
    """Who knows the runs in progress."""

    def run_of(self, uid: str) -> Run | None:
        """The run of that session while it is served here."""


class Relay:
    """Answers questions of front ends. Standbys serve no run, so they know none."""

    def __init__(self, runs: Runs, sidecars: Sidecars, key: bytes) -> None:
        self._runs = runs
        self._sidecars = sidecars
        self._key = key
        self._open: Counter[str] = Counter()

    def add_to(self, app: web.Application) -> None:
        """Serve the relay's path."""
        app.router.add_get(PATH, self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        if not is_signed(self._key, request.raw_path, request.headers.get(HEADER, ""), time.time()):
            return _refusal(401, "unauthorized")
        try:
            question = Question.parse(dict(request.query))
        except RelayError:
            return _refusal(400, "bad_request")
        run = self._runs.run_of(question.uid)
        if run is None or (run.session.namespace, run.session.name) != (question.namespace, question.name):
            return _refusal(404, "not_served")
        if self._open[question.uid] >= QUESTIONS_AT_ONCE:
            return _refusal(429, "too_many")
        self._open[question.uid] += 1
        try:
            found = await self._look(run, question)
        finally:
            self._open[question.uid] -= 1
            self._open += Counter()  # forgets those at zero
        if found is None:
            return _refusal(502, "unreachable")
        return web.Response(body=found.to_json(), content_type="application/json")

    async def _look(self, run: Run, question: Question) -> Glance | None:
        """None: the sidecar does not answer, or cannot tell (one of an older release)."""
        until = time.monotonic() + question.wait_seconds
        try:
            async with asyncio.timeout(question.wait_seconds):
                await run.under_way.wait()
        except TimeoutError:
            return WAITING
        if run.held is None:
            return WAITING
        pod = run.held.pod
        left = max(0.0, until - time.monotonic())
        wanted = protocol.OutputRequest(question.stdout, question.stderr, left, run.run_uid)
        try:
            found = await self._sidecars.output(pod, run.owner, wanted)
        except (SidecarRefusedError, SidecarUnreachableError) as error:
            logger.info("output could not be asked for", extra=about(pod=pod.name, cause=str(error)))
            return None
        state: RunState = "finished" if found.run == "finished" else "running"
        return Glance(state, _piece(found.stdout), _piece(found.stderr))


def _piece(found: protocol.Piece) -> Piece:
    return Piece(found.at, found.data, found.total)


def _refusal(status: int, error: str) -> web.Response:
    metrics.RELAY_REFUSALS.labels(error).inc()
    return web.json_response({"error": error}, status=status)

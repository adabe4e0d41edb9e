"""An operator as front ends see it: it knows what programs in progress have written."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from contract.fakes_api.serving import serve
from kubecoderun_crds.relay import HEADER, PATH, Glance, Piece, Question, is_signed

RELAY_KEY = "a-key-for-the-relay-of-tests"


@dataclass
class FakeRun:
    """What there is to tell of one session."""

    stdout: bytes = b""
    stderr: bytes = b""
    state: str = "running"
    lost: int = 0
    """Bytes at the beginning of stdout that are not kept."""


@dataclass
class FakeOperator:
    """Runs by the UID of their session."""

    runs: dict[str, FakeRun] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        if not is_signed(RELAY_KEY.encode(), request.raw_path, request.headers.get(HEADER, ""), time.time()):
            return web.json_response({"error": "unauthorized"}, status=401)
        asked = Question.parse(dict(request.query))
        self.questions.append(asked)
        until = time.monotonic() + asked.wait_seconds
        while time.monotonic() < until:
            run = self.runs.get(asked.uid)
            if run is None:
                return web.json_response({"error": "not_served"}, status=404)
            if run.state == "finished":
                return _glance(Glance("finished"))
            if len(run.stdout) > asked.stdout or len(run.stderr) > asked.stderr:
                break
            await asyncio.sleep(0.01)
        run = self.runs[asked.uid]
        if run.state == "waiting":
            return _glance(Glance("waiting"))
        at = max(asked.stdout, run.lost)
        out = Piece(at, run.stdout[at:], len(run.stdout))
        return _glance(
            Glance("running", out, Piece(asked.stderr, run.stderr[asked.stderr :], len(run.stderr)))
        )


def _glance(glance: Glance) -> web.Response:
    return web.Response(body=glance.to_json(), content_type="application/json")


@asynccontextmanager
async def operator() -> AsyncIterator[FakeOperator]:
    made = FakeOperator()
    app = web.Application()
    app.router.add_get(PATH, made.answer)
    async with serve(app) as made.url:
        yield made

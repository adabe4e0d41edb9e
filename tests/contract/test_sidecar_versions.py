"""Today's operator with the sidecar of the minor version before: recorded exchanges, played back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kubecoderun_operator.members import Member
from kubecoderun_operator.outcomes import Record, ended
from kubecoderun_operator.outputs import FileReport
from kubecoderun_operator.sidecars import SidecarLimits, SidecarRefusedError, Sidecars
from kubecoderun_operator.signing import Signatures
from kubecoderun_sidecar.answers import FIRST_PROTOCOL, PROTOCOL
from kubecoderun_sidecar.protocol import (
    FileSlot,
    InlineCode,
    Limits,
    OutputTarget,
    Owner,
    PrepareRequest,
    RunResult,
    SessionRef,
    StartRequest,
)
from unit.test_operator_outcomes import POD

RECORDED = Path(__file__).parent / "recorded"
OLD: list[dict[str, Any]] = json.loads((RECORDED / "sidecar-1.0.json").read_text())
BY_NAME = {exchange["name"]: exchange for exchange in OLD}
SESSION = "5e55-session"


@dataclass
class OldSidecar:
    """Answers with what was recorded under a name."""

    sidecars: Sidecars
    pod: Member
    bodies: list[Any]
    said: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        recorded = BY_NAME[self.said]
        assert (request.method, request.path) == (recorded["method"], recorded["path"])
        body = await request.read()
        self.bodies.append(json.loads(body) if body else None)
        headers = {"Content-Type": recorded["contentType"]}
        return web.Response(status=recorded["status"], body=recorded["answer"].encode(), headers=headers)

    def says(self, name: str) -> OldSidecar:
        """The next answer."""
        self.said = name
        return self

    async def start(self, request: StartRequest | None = None) -> RunResult:
        return await self.sidecars.start(self.pod, SESSION, request or StartRequest(), lambda _at: None)


@pytest.fixture
async def old() -> AsyncIterator[OldSidecar]:
    async with serving() as sidecar:
        yield sidecar


@asynccontextmanager
async def serving() -> AsyncIterator[OldSidecar]:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None)

    async def no_raise(_epoch: int) -> None:
        return None

    pod = replace(POD, ip="127.0.0.1")
    sidecar = OldSidecar.__new__(OldSidecar)

    async def answer(request: web.Request) -> web.Response:
        return await sidecar.answer(request)

    app.router.add_route("*", "/{path:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = Sidecars(Signatures(bytes(32)), SidecarLimits(2, 5, 5, 5), port, lambda: 1, no_raise)
    sidecar.__init__(client, pod, [])  # type: ignore[misc]
    try:
        yield sidecar
    finally:
        await client.close()
        await runner.cleanup()


def request(**limits: Any) -> PrepareRequest:
    """The one that was recorded, as today's operator sends it."""
    return PrepareRequest(
        SessionRef("kubecoderun", "hello", SESSION),
        "py",
        InlineCode("print(1)"),
        ("a",),
        "in",
        {"A": "b"},
        limits=Limits(30, 65536, 0, 1 << 30, 1 << 30, **limits),
    )


def missing(old: Any, new: Any, where: str = "") -> list[str]:
    """What the old side read and the new one does not say any more, or says otherwise."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            place
            for key, value in old.items()
            for place in (missing(value, new[key], f"{where}.{key}") if key in new else [f"{where}.{key}"])
        ]
    return [] if old == new else [where]


def test_the_versions_are_neighbours() -> None:
    assert FIRST_PROTOCOL == "1.0"
    assert PROTOCOL.split(".")[0] == "1"
    minor = int(PROTOCOL.split(".")[1])
    assert (RECORDED / f"sidecar-1.{minor - 1}.json").exists(), "record the version before this one"


async def test_states(old: OldSidecar) -> None:
    for name, owner, run in (
        ("state of a warm pod", None, None),
        ("state of a prepared pod", Owner("session", SESSION), "prepared"),
        ("state of a finished pod", Owner("session", SESSION), "finished"),
        ("state of a retired pod", Owner("retired", "0d0d0d0d-pod"), None),
    ):
        found = await old.says(name).sidecars.state(old.pod, SESSION)
        assert (found.owner, found.run, found.runtime, found.protocol) == (owner, run, "warm", "1.0"), name


async def test_nothing_that_an_old_sidecar_reads_is_missing(old: OldSidecar) -> None:
    await old.says("prepare").sidecars.prepare(old.pod, request(printed_bytes=1 << 20))
    (sent,) = old.bodies
    assert missing(BY_NAME["prepare"]["request"], sent) == []
    files = BY_NAME["a run with files"]["request"]
    slots = tuple(FileSlot(slot["id"], slot["url"]) for slot in files["outputs"]["slots"])
    await old.says("a run with files").start(StartRequest(None, OutputTarget("prefix", None, slots)))
    assert missing(files, old.bodies[-1]) == []


@pytest.mark.parametrize(
    ("name", "reason", "fields"),
    [
        ("a run with exit code 3", "NonZeroExit", {"exitCode": 3, "stdout": "out\n", "stderr": "err\n"}),
        ("a run at its time limit", "TimeLimit", {"signal": "SIGKILL", "stdoutBase64": "/wA="}),
        ("a run out of memory", "OOMKilled", {"signal": "SIGKILL"}),
        ("a run that is cancelled", "Cancelled", {"signal": "SIGKILL"}),
        ("a run with files", "Succeeded", {"exitCode": 0}),
    ],
)
async def test_results_become_a_status(
    old: OldSidecar, name: str, reason: str, fields: dict[str, Any]
) -> None:
    found = await old.says(name).start()
    assert found.reason == reason
    status = Record(1, 2).completed(ended(found, 30, FileReport(0)), 5.0)
    assert status["reason"] == reason
    assert fields.items() <= status["result"].items()
    if name == "a run with files":
        assert [file.path for file in found.files] == ["a.csv"]
        assert [(file.path, file.reason) for file in found.skipped] == [("big.bin", "size")]


async def test_refusals(old: OldSidecar) -> None:
    async def refused(name: str, call: Any) -> SidecarRefusedError:
        old.says(name)
        with pytest.raises(SidecarRefusedError) as error:
            await call
        return error.value

    bound = await refused("prepare for another owner", old.sidecars.prepare(old.pod, request()))
    assert (bound.status, bound.error, bound.refusal.owner) == (409, "bound", Owner("session", SESSION))
    early = await refused("start before prepare", old.start())
    assert (early.status, early.error) == (409, "not_prepared")
    unknown = await refused("a language that is not offered", old.sidecars.prepare(old.pod, request()))
    assert (unknown.status, unknown.error) == (422, "language_unavailable")
    used = await refused("retire a used pod", old.sidecars.retire(old.pod))
    assert (used.status, used.error) == (409, "bound")
    stale = await refused("an older epoch", old.sidecars.state(old.pod, SESSION))
    assert (stale.status, stale.refusal.epoch) == (412, 5)


async def test_the_rest(old: OldSidecar) -> None:
    await old.says("cancel").sidecars.cancel(old.pod, SESSION)
    await old.says("retire").sidecars.retire(old.pod)
    await old.says("alive").sidecars.greet(old.pod)

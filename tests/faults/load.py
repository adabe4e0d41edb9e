"""Callers that send programs one after the other, and the account of what became of each."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kubecoderun_crds.reasons import TERMINAL_PHASES

Json = dict[str, Any]
PROGRAMS = ("", "", "sleep:0.2 ", "", "sleep:1.3 ")
"""What programs do before they print; in turn."""


@dataclass
class Call:
    """One request to a front end, and its answer."""

    nonce: str
    code: str
    url: str
    """Of the front end."""
    began: float
    seconds: float = 0.0
    status: int = 0
    """Of HTTP; 0 if the connection broke or there was none."""
    answer: Json = field(default_factory=dict)
    fault: str = ""
    """Why there is no answer: refused (nobody listens), broken (on the way), silent (none came in time)."""

    @property
    def right(self) -> bool:
        """The program's own output came back."""
        return self.status == 200 and self.answer.get("stdout") == self.nonce

    @property
    def outcome(self) -> str:
        """One word: right, told (an error), refused, broken, silent, or wrong."""
        if self.fault:
            return self.fault
        if self.right:
            return "right"
        told = self.status >= 400 or (self.status == 200 and self.answer.get("stderr"))
        return "told" if told and self.answer.get("stdout", "") == "" else "wrong"


class Load:
    """So many callers at once, for as long as the block lasts; calls that began in it are waited for."""

    def __init__(self, urls: Callable[[], Sequence[str]], callers: int, patience: float) -> None:
        """urls: the front ends there are; patience: seconds after which no answer is a lost one."""
        self.calls: list[Call] = []
        self.account = Account(Counter(), Counter(), 0.0, [])
        """Filled in when all has come to rest."""
        self._urls = urls
        self._callers = callers
        self._patience = patience
        self._numbers = itertools.count()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        self._tasks = [asyncio.create_task(self._call_for_ever(number)) for number in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def _call_for_ever(self, caller: int) -> None:
        while not self._stopping:
            call = await self.call(caller)
            if call.fault == "refused":
                await asyncio.sleep(0.1)

    async def call(self, caller: int = 0) -> Call:
        """One call, waited for."""
        number = next(self._numbers)
        nonce = f"n{caller}x{number}x{time.time_ns()}"
        urls = self._urls()
        code = f"{PROGRAMS[number % len(PROGRAMS)]}print:{nonce}"
        call = Call(nonce, code, urls[number % len(urls)], time.monotonic())
        self.calls.append(call)
        await send(self._client, call, self._patience)
        return call


async def send(client: aiohttp.ClientSession, call: Call, patience: float, **more: str) -> None:
    """Make the call, and note in it what came of it. more: further fields of the body."""
    try:
        async with client.post(
            f"{call.url}/exec",
            json={"lang": "py", "code": call.code, **more},
            timeout=aiohttp.ClientTimeout(total=patience),
        ) as response:
            call.answer = json.loads(await response.read())
            call.status = response.status
    except aiohttp.ClientConnectorError:
        call.fault = "refused"
    except TimeoutError:
        call.fault = "silent"
    except (aiohttp.ClientError, ValueError):
        call.fault = "broken"
    call.seconds = time.monotonic() - call.began


@dataclass
class Account:
    """What became of all calls. `broken` has a sentence for each promise that was not kept."""

    outcomes: Counter[str]
    reasons: Counter[str]
    """Of all sessions."""
    longest: float
    """Seconds that the slowest answer took."""
    broken: list[str]

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} {word}" for word, count in self.outcomes.most_common())
        reasons = ", ".join(f"{count} {word}" for word, count in self.reasons.most_common())
        return f"calls: {outcomes}; sessions: {reasons}; longest {self.longest:.1f} s"


def settle(calls: Sequence[Call], sessions: Sequence[Json], starts: dict[str, int]) -> Account:
    """Compare what callers were told with what sessions say and how often each program was started.

    sessions: all there are, when nothing runs any more. starts: by code.
    """
    broken = []
    of_code: dict[str, list[Json]] = {}
    for session in sessions:
        of_code.setdefault(session["spec"]["request"].get("code", ""), []).append(session)
    for call in calls:
        own, started = of_code.get(call.code, []), starts.get(call.code, 0)
        if call.outcome in ("silent", "wrong"):
            broken.append(f"{call.nonce} got no answer ({call.outcome}): {call.status} {call.answer}")
        if started > 1:
            broken.append(f"{call.nonce} was started {started} times")
        if len(own) > 1:
            broken.append(f"{call.nonce} has {len(own)} sessions")
        if call.right and started != 1:
            broken.append(f"{call.nonce} was answered and started {started} times")
    for session in sessions:
        name, status = session["metadata"]["name"], session.get("status") or {}
        if status.get("phase") not in TERMINAL_PHASES:
            broken.append(f"session {name} has not ended: {status}")
    answered = [call.seconds for call in calls if call.status]
    return Account(
        Counter(call.outcome for call in calls),
        Counter((session.get("status") or {}).get("reason", "none") for session in sessions),
        max(answered, default=0.0),
        broken,
    )

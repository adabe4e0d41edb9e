"""Strikes victims again and again under load, and settles the account of each."""

import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from chaos.account import TERMINAL, Figures, figures
from chaos.load import Load
from chaos.programs import ProcessCount
from chaos.victims import AWAY, Victim, Victims, steadily
from e2e.deployment import SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import Kube
from e2e.node import Node, NoNodeError
from e2e.pools import at_target
from e2e.waiting import eventually

PAUSE_SECONDS = (0.5, 2.5)
"""Between a system that answers again and the next strike, at random."""
SETTLE_SECONDS = 120.0
"""Longest time, after the load, until every session has ended."""


class Chaos:
    """A deployed system that is about to suffer."""

    def __init__(self, kube: Kube, front_end: FrontEnd, callers: int, seed: int) -> None:
        self._kube, self._front_end, self._callers = kube, front_end, callers
        self._chance = random.Random(seed)
        first = front_end.exec("print(1)")
        if first.status != 200:
            raise RuntimeError(f"the front end does not answer: {first.status} {first.body[:200]!r}")
        self.pool = str(kube.session(first.session)["spec"]["request"]["poolRef"]["name"])
        try:
            self.node: Node | None = Node(kube.kubectl("config", "current-context").stdout.strip())
        except NoNodeError as missing:
            print(f"only pods are struck: {missing}", file=sys.stderr)
            self.node = None
        self.victims = Victims(kube, self.node, self.pool, self._chance).all()

    def run(self, victims: Sequence[Victim], strikes: int, seconds: float) -> Iterator[Figures]:
        """Strike each of these so often, and no longer than so many seconds each. One line after the
        other."""
        counter = ProcessCount(self.node)
        counter.start()
        try:
            for victim in victims:
                yield self._one(victim, strikes, seconds, counter)
        finally:
            counter.stop()

    def _one(self, victim: Victim, strikes: int, seconds: float, counter: ProcessCount) -> Figures:
        self._rest()
        moments: list[float] = []
        troubles: list[str] = []
        sessions: dict[str, dict[str, Any]] = {}
        end = time.monotonic() + seconds
        with Load(self._front_end, self._callers) as load:
            while len(moments) < strikes and time.monotonic() < end and not troubles:
                time.sleep(self._chance.uniform(*PAUSE_SECONDS))
                try:
                    self._strike(victim, moments)
                except AssertionError as never:
                    troubles.append(str(never))
                self._note(sessions)
            if moments and not troubles:
                try:
                    eventually(
                        lambda: load.answered_since(moments[-1]), f"a call is answered after {victim.name}"
                    )
                except AssertionError as never:
                    troubles.append(str(never))
        try:
            eventually(steadily(lambda: self._all_ended(sessions)), "all sessions have ended", SETTLE_SECONDS)
            self._rest()
        except AssertionError as never:
            troubles.append(str(never))
        return figures(
            victim.name,
            moments,
            load.calls,
            list(sessions.values()),
            counter.found,
            counted=counter.counts,
            troubles=troubles,
        )

    def _strike(self, victim: Victim, moments: list[float]) -> None:
        """Once, and wait until the victim is there again; the next may come before anything else has
        recovered. Fails with what does not come back."""
        moment = time.monotonic()
        try:
            done = victim.strike()
        except (*AWAY, NoNodeError):
            return  # nothing to strike: the API server is not back yet, or the process has just ended
        if not done:
            return
        moments.append(moment)
        print(f"{time.strftime('%X')} {victim.name} {len(moments)}: {done}", file=sys.stderr, flush=True)
        victim.wait()

    def _rest(self) -> None:
        eventually(steadily(lambda: at_target(self._kube, self.pool)), f"pool {self.pool} is at its target")

    def _note(self, sessions: dict[str, dict[str, Any]]) -> None:
        """Remember all sessions as they are now: those that have ended are deleted after a while."""
        try:
            for session in self._kube.items(SESSIONS):
                sessions[session["metadata"]["uid"]] = session
        except AWAY:
            return  # the next look sees them

    def _all_ended(self, sessions: dict[str, dict[str, Any]]) -> bool:
        for session in self._kube.items(SESSIONS):
            sessions[session["metadata"]["uid"]] = session
        return all((each.get("status") or {}).get("phase") in TERMINAL for each in sessions.values())

"""Whoever waits for a session, and what may come of it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Pause = Callable[[Mapping[str, Any]], Json | None]
"""What a session that has not ended waits for, or None."""


class NoResult(Exception):  # noqa: N818 - says what there is, or is not
    """The session has no result that could be told; `name` is a key of `answers.OWN_FAULTS`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class Waiter:
    """Somebody who waits for one session."""

    name: str
    end: asyncio.Future[Json | NoResult] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """The status of the finished session, or why there will be none."""
    pause: Pause | None = None
    """What counts as an answer besides the end."""
    since: int = 0
    """Version of the session from which on a pause counts: what is older was answered before."""
    ours: bool = True
    """Whether the session has the label of this process, as far as is known."""
    keyed: bool = False
    """Whether the name stands for an idempotency key, so that others may make the same session."""
    former: str = ""
    """UID of an earlier session of that name, of which the watch may still tell."""
    exists: bool = False
    """Whether the API server has said that the session is there."""

    def finish(self, status: Json) -> None:
        if not self.end.done():
            self.end.set_result(status)

    def fail(self, name: str) -> None:
        if not self.end.done():
            self.end.set_result(NoResult(name))

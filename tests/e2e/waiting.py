"""Waiting for a state instead of for a time: limits are generous, because a slow machine is not a failed
test."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 180.0
"""Seconds until a state that should have come counts as missing."""


def eventually(look: Callable[[], T | None], what: str, patience: float = PATIENCE, every: float = 0.25) -> T:
    """Call `look` until it returns something true and return that. Fails after `patience` seconds, naming
    `what` and the last thing seen. An AssertionError inside `look` means "not yet"."""
    deadline = time.monotonic() + patience
    last: object = None
    while True:
        try:
            seen = look()
            if seen:
                return seen
            last = seen
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {patience:.0f} s: {what}; last seen: {last!r}")
        time.sleep(every)

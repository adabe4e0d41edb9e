"""What KubeCodeRun needs each test for, and the one line that sums a run up. Plain data, no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Need:
    """What a group of tests is about."""

    ability: str
    """What the store must be able to do, a few words."""
    why: str
    """What KubeCodeRun does with it."""
    instead: str = ""
    """The setting with which KubeCodeRun does without, if there is one, such as NAME=value."""

    def explain(self) -> str:
        """What a failure means to the person who set the store up."""
        way_out = f"{self.instead} avoids it." if self.instead else "No setting avoids it."
        return f"KubeCodeRun needs {self.ability} {self.why}. {way_out}"


def needs(ability: str, *, why: str, instead: str = "") -> pytest.MarkDecorator:
    """Mark a test, or a module by `pytestmark`. `why` goes on after "KubeCodeRun needs <ability> "."""
    return pytest.mark.needs(Need(ability, why, instead))


@dataclass(frozen=True)
class Result:
    """How one test ended at one store."""

    store: str
    need: Need
    passed: bool


def verdicts(results: Iterable[Result]) -> list[str]:
    """One line per store: whether it works for KubeCodeRun, or with which settings, or what it lacks."""
    by_store: dict[str, list[Result]] = {}
    for result in results:
        by_store.setdefault(result.store, []).append(result)
    return [f"{store}: {_verdict(found)}" for store, found in by_store.items()]


def _verdict(results: list[Result]) -> str:
    failed = [result.need for result in results if not result.passed]
    count = f"{len(results) - len(failed)} of {len(results)} cases"
    if not failed:
        return f"works for KubeCodeRun ({count})"
    lacks = ", ".join(sorted({need.ability for need in failed}))
    if all(need.instead for need in failed):
        settings = " and ".join(sorted({need.instead for need in failed}))
        return f"works for KubeCodeRun with {settings} ({count}; missing: {lacks})"
    return f"does NOT work for KubeCodeRun ({count}; missing: {lacks})"

"""Pytest plugin: after the last test, list what was skipped and why.

A skipped test is easily overlooked in a long run. The list groups the skipped tests by their reason, so that
a required case that cannot run on this machine is read as just that.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest

SHOWN_PER_REASON = 8
PREFIX = "Skipped: "


def reason_of(report: Any) -> str:
    """The reason given for a skip, without the location and the word pytest puts before it."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(text).removeprefix(PREFIX).strip() or "no reason given"


def skip_lines(reports: Iterable[Any]) -> list[str]:
    """One block per reason: how many tests it kept from running, and the first names of them."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        by_reason[reason_of(report)].append(report.nodeid)
    lines: list[str] = []
    for reason, names in sorted(by_reason.items()):
        lines.append(f"{len(names)} not run: {reason}")
        lines.extend(f"    {name}" for name in sorted(names)[:SHOWN_PER_REASON])
        if len(names) > SHOWN_PER_REASON:
            lines.append(f"    ... and {len(names) - SHOWN_PER_REASON} more")
    return lines


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the list, also when it is empty: silence could mean that nobody looked."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_sep("-", f"skipped tests: {len(skipped)}")
    for line in skip_lines(skipped):
        terminalreporter.write_line(line)

"""The list of skipped tests at the end of a run."""

from types import SimpleNamespace

from skips import SHOWN_PER_REASON, skip_lines


def report(name: str, reason: str) -> SimpleNamespace:
    return SimpleNamespace(nodeid=name, longrepr=("file.py", 1, f"Skipped: {reason}"))


def test_tests_are_grouped_by_reason() -> None:
    lines = skip_lines([report("b", "no node"), report("a", "no node"), report("c", "no cluster")])
    assert lines == ["1 not run: no cluster", "    c", "2 not run: no node", "    a", "    b"]


def test_long_lists_are_cut_with_a_count() -> None:
    lines = skip_lines([report(f"t{number:02}", "why") for number in range(SHOWN_PER_REASON + 3)])
    assert lines[-1] == "    ... and 3 more"
    assert len(lines) == SHOWN_PER_REASON + 2

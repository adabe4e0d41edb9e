"""docs/reasons.md has a row for each reason, condition and Event there is, and a test that produces it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from kubecoderun_crds.reasons import (
    EVENT_MEANINGS,
    POOL_CONDITION_REASONS,
    POOL_REASON_MEANINGS,
    REASON_MEANINGS,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reasons.md"
ROWS = re.findall(r"^\| (.+?) \| `(\w+)` \| (.+?) \| `(\w+\.py)::(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
EXPECTED = [
    *(("session", str(reason), meaning) for reason, meaning in REASON_MEANINGS.items()),
    *(
        (f"`{condition}` {status}", str(reason), POOL_REASON_MEANINGS[reason])
        for condition, by_status in POOL_CONDITION_REASONS.items()
        for status, reasons in by_status.items()
        for reason in reasons
    ),
    *(("event", str(reason), meaning) for reason, meaning in EVENT_MEANINGS.items()),
]


@cache
def functions_of(file: str) -> dict[str, str]:
    """The source of each test of a module of the contract or unit tests, decorators included."""
    paths = [path for folder in ("contract", "unit") if (path := ROOT / "tests" / folder / file).is_file()]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name: ast.unparse(node)
        for path in paths
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, functions)
    }


def test_each_has_a_row_and_there_are_no_others() -> None:
    """If this fails: add the row to docs/reasons.md, with a test that produces the reason."""
    found = [row[:3] for row in ROWS]
    assert sorted(set(EXPECTED) - set(found)) == []
    assert sorted(set(found) - set(EXPECTED)) == []
    assert len(found) == len(set(found))


@pytest.mark.parametrize(("where", "reason", "meaning", "file", "test"), ROWS)
def test_its_test_is_there_and_speaks_of_it(
    where: str, reason: str, meaning: str, file: str, test: str
) -> None:
    assert test in functions_of(file), f"{file} has no {test}"
    assert reason in functions_of(file)[test], f"{test} says nothing of {reason}"

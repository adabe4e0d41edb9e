"""docs/comparison.md: what we say of ourselves names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "comparison.md"
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}


def rows() -> list[list[str]]:
    """Cells of all tables, without heads."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "Feature" and not set(row[0]) <= {"-"}]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_claim_has_its_test(row: list[str]) -> None:
    assert len(row) == 4
    ours = row[3]
    named = re.findall(r"`(test_\w+)`", ours)
    assert set(named) <= TESTS, "a test that does not exist"
    if ours == "no":
        return
    assert ours.startswith(("yes: ", "in part, "))
    assert named, "a claim without a test"

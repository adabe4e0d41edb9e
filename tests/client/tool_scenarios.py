"""The scenarios of tools.cjs, and what the model reads of those that go well."""

from typing import Final

READ_BY_THE_MODEL: Final = (
    ("parallel", "A 3\n", 2),
    ("sequence", "20\n", 20),
    ("names", "[1, 2] 20\n", 2),
    ("caught", "caught out of order\n", 1),
    ("pandas", "20\n", 1),
    ("noTools", "plain\n", 0),
    ("bash", '{"city":"C","t":20}\n5\n', 2),
    ("bashParallel", "2\n4\n", 2),
    ("bashBroken", "failed 1\n", 1),
)
"""Scenario, standard output, and how many calls the tools get."""
SCENARIOS: Final = (*(name for name, _, _ in READ_BY_THE_MODEL), "uncaught", "file", "timeout", "abort")

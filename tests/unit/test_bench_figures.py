"""The benchmark's arithmetic: a wrong percentile would make every number in the documents wrong."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import WANTED, median_of, missed, percentile, summary

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (1, 50, 1),
        (4, 50, 2),
        (5, 50, 3),
        (100, 99, 99),
        (100, 50, 50),
        (40, 99, 40),
        (10, 0, 1),
        (10, 100, 10),
    ],
)
def test_nearest_rank(count: int, share: float, expected: float) -> None:
    assert percentile(list(range(count, 0, -1)), share) == expected


@given(SAMPLES, st.floats(0, 100))
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(
    samples: list[float], share: float
) -> None:
    found = percentile(samples, share)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= math.floor(share / 100 * len(samples))
    assert sum(sample < found for sample in samples) < max(1.0, share / 100 * len(samples))


@pytest.mark.parametrize(("samples", "share"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentiles_that_do_not_exist(samples: list[float], share: float) -> None:
    with pytest.raises(ValueError, match=r"sample|percentile"):
        percentile(samples, share)


def test_summary_is_in_milliseconds() -> None:
    assert summary([0.001, 0.002, 0.01], ["wrong"]) == {
        "n": 3, "errors": 1, "first_errors": ["wrong"],
        "min_ms": 1.0, "p50_ms": 2.0, "p90_ms": 10.0, "p99_ms": 10.0, "max_ms": 10.0,
    }  # fmt: skip


def test_summary_of_nothing_has_no_percentiles() -> None:
    assert summary([], ["a", "b"]) == {"n": 0, "errors": 2, "first_errors": ["a", "b"]}


def test_medians_use_the_rows_that_have_the_column() -> None:
    assert median_of([{"a": 1.0}, {"a": 3.0, "b": 5.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}


def test_missed_figures() -> None:
    limit = WANTED["exec_print_1", "p50_ms"]
    assert missed("exec_print_1", {"p50_ms": limit, "p99_ms": 1e9}) == ["p99_ms"]
    assert missed("exec_pandas_1", {"p50_ms": 1e9}) == []

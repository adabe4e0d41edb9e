"""Numbers out of samples. Nothing here measures or prints."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Scenario = dict[str, Any]

WANTED: Mapping[tuple[str, str], float] = {
    ("exec_print_1", "p50_ms"): 25.0,
    ("exec_print_1", "p99_ms"): 60.0,
    ("api_writes_per_session", "own_writes"): 8.0,
    ("idle_memory", "sidecar_mib"): 30.0,
    ("pod_ready", "ratio"): 1.2,
    ("canary_steady", "ratio_p99"): 2.0,
    ("canary_hostile", "ratio_p99"): 2.0,
    ("canary_paced", "ratio_p99"): 2.0,
    ("pod_output_1gb", "sidecar_most_mib"): 30.0,
    ("sleep10_none", "p50_ms"): 25.0,
    ("sleep10_2kb", "p50_ms"): 35.0,
    ("sleep10_45mb", "p50_ms"): 250.0,
    ("upload_150mb", "growth_mib"): 32.0,
    ("operator_asked_to_stop", "max_ms"): 2000.0,
    ("operator_container_killed", "max_ms"): 5000.0,
    ("operator_pod_killed", "max_ms"): 10_000.0,
    ("operator_restart_large", "max_ms"): 5000.0,
    ("lost_pod", "max_ms"): 5000.0,
    ("lost_sidecar", "max_ms"): 5000.0,
    ("lost_runtime", "max_ms"): 5000.0,
    ("operator_restart_large", "idle_writes"): 0.0,
}
"""What a figure should not exceed, by scenario and name."""


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `share` percent of all samples do not
    exceed.

    It is always a value that was measured. With fewer than 100 samples the 99th percentile is the largest
    one. Raises ValueError without samples or for a share outside 0..100.
    """
    if not samples:
        raise ValueError("no samples")
    if not 0 <= share <= 100:
        raise ValueError("a percentile is between 0 and 100")
    rank = max(1, math.ceil(share / 100 * len(samples)))
    return sorted(samples)[rank - 1]


def summary(seconds: Sequence[float], errors: Sequence[str] = ()) -> Scenario:
    """The usual figures of a latency scenario, in milliseconds; without samples only the counts."""
    result: Scenario = {"n": len(seconds), "errors": len(errors)}
    if errors:
        result["first_errors"] = list(errors[:3])
    if seconds:
        shares = {"min_ms": 0, "p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "max_ms": 100}
        result |= {name: milliseconds(percentile(seconds, share)) for name, share in shares.items()}
    return result


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds with two decimals."""
    return round(seconds * 1000, 2)


def median_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every column that occurs, over the rows that have it."""
    columns = {name: None for row in rows for name in row}
    return {name: statistics.median(row[name] for row in rows if name in row) for name in columns}


def missed(name: str, scenario: Scenario) -> list[str]:
    """The figures of a scenario that exceed what is wanted."""
    return [
        figure
        for (wanted_in, figure), limit in WANTED.items()
        if wanted_in == name and scenario.get(figure, 0) > limit
    ]

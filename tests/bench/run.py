"""Measures a deployed system. usage: run.py [--only NAME,...] [--n N] [--quick] [--out FILE]

Prints a table and writes it as JSON. Ends with 1 when a scenario failed or an answer was wrong; a figure
that misses what is wanted is marked, and is no failure.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Instead of this folder, whose modules have the names of folders of tests.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.canary import canary
from bench.costs import api_writes, idle_memory
from bench.figures import Scenario
from bench.files import download_50, slow_exec, upload_150
from bench.languages import languages
from bench.large_restart import large_restart
from bench.latency import exec_fresh, exec_pandas, exec_print
from bench.load import LOOP_SECONDS, burst, throughput
from bench.lost import lost_runs
from bench.pod_files import pod_45mb
from bench.pod_memory import output_1gb
from bench.readiness import pod_ready
from bench.report import facts, table
from bench.system import System
from bench.takeover import asked_to_stop, container_killed, pod_killed
from e2e.deployment import Deployment, NotDeployedError

ROOT = Path(__file__).resolve().parents[2]
Measure = Callable[[System, int, float], dict[str, Scenario]]

MEASURES: dict[str, tuple[int, int, Measure]] = {
    "idle_memory": (1, 1, lambda system, _n, _t: idle_memory(system)),
    "exec_print_1": (100, 15, lambda system, n, _t: exec_print(system, n)),
    "exec_print_1_fresh_connection": (30, 5, lambda system, n, _t: exec_fresh(system, n)),
    "exec_pandas_1": (30, 5, lambda system, n, _t: exec_pandas(system, n)),
    "api_writes_per_session": (20, 5, lambda system, n, _t: api_writes(system, n)),
    "pod_ready": (12, 3, lambda system, n, _t: pod_ready(system, n)),
    "burst_10": (3, 1, lambda system, n, _t: burst(system, 10, n)),
    "sleep10_none": (10, 2, lambda system, n, _t: slow_exec(system, "sleep10_none", 0, n)),
    "sleep10_2kb": (10, 2, lambda system, n, _t: slow_exec(system, "sleep10_2kb", 2 << 10, n)),
    "sleep10_45mb": (10, 2, lambda system, n, _t: slow_exec(system, "sleep10_45mb", 45 << 20, n)),
    "download_50_parallel": (5, 2, lambda system, n, _t: download_50(system, n)),
    "upload_150mb": (5, 1, lambda system, n, _t: upload_150(system, n)),
    "languages": (10, 3, lambda system, n, _t: languages(system, n)),
    "operator_asked_to_stop": (10, 2, lambda system, n, _t: asked_to_stop(system, n)),
    "operator_container_killed": (10, 2, lambda system, n, _t: container_killed(system, n)),
    "operator_pod_killed": (10, 2, lambda system, n, _t: pod_killed(system, n)),
    "lost_runs": (5, 1, lambda system, n, _t: lost_runs(system, n)),
    "operator_restart_large": (5, 2, lambda _system, n, _t: large_restart(n)),
    "canary": (30, 5, lambda system, n, _t: canary(system, n)),
    "pod_output_1gb": (3, 1, lambda _system, n, _t: output_1gb(n)),
    "pod_45mb": (5, 1, lambda _system, n, _t: pod_45mb(n)),
    "throughput_1": (1, 1, lambda system, _n, seconds: throughput(system, 1, seconds)),
    "throughput_4": (1, 1, lambda system, _n, seconds: throughput(system, 4, seconds)),
}
"""By name: samples in a full run, samples in a quick one, and what measures."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the deployed system.")
    parser.add_argument("--only", default="", help=f"comma separated names out of: {', '.join(MEASURES)}")
    parser.add_argument("--n", type=int, help="samples of every scenario instead of its own number")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the JSON goes")
    parsed = parser.parse_args()
    parsed.names = [name for name in parsed.only.split(",") if name] or list(MEASURES)
    unknown = set(parsed.names) - set(MEASURES)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return parsed


def measure(system: System, options: argparse.Namespace) -> Iterator[dict[str, Scenario]]:
    """Run the wanted scenarios one after the other. One that fails is recorded, and the others still run."""
    for name in options.names:
        full, quick, scenario = MEASURES[name]
        n = options.n or (quick if options.quick else full)
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            yield scenario(system, n, LOOP_SECONDS / 3 if options.quick else LOOP_SECONDS)
        except Exception as failure:  # the other scenarios are worth their time all the same
            yield {name: {"failed": f"{type(failure).__name__}: {failure}"}}


def bad(scenario: Scenario) -> bool:
    """Whether a scenario failed or had wrong answers."""
    return "failed" in scenario or scenario.get("errors", 0) > 0


def main() -> int:
    """Measure, write after every scenario, print."""
    # Asked to stop, the scenarios still put back what they have changed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = arguments()
    try:
        system = System(Deployment.find(os.environ, ROOT / "build" / "env"))
    except NotDeployedError as missing:
        print(f"nothing to measure: {missing}", file=sys.stderr)
        return 2
    meta: dict[str, Any] = facts(system.kube, system.pool, ROOT) | {"quick": options.quick}
    scenarios: dict[str, Scenario] = {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for measured in measure(system, options):
        scenarios |= measured
        options.out.write_text(json.dumps({"meta": meta, "scenarios": scenarios}, indent=1) + "\n")
    print("\n".join(f"{name}: {value}" for name, value in meta.items()))
    print(table(scenarios))
    print(f"written to {options.out}")
    return 1 if any(map(bad, scenarios.values())) else 0


if __name__ == "__main__":
    sys.exit(main())

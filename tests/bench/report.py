"""The benchmark's output: facts about the machine, a table for people, and the lines that say what was
missed."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import WANTED, Scenario, missed

LATENCIES = ("p50_ms", "p90_ms", "p99_ms", "max_ms")
PLAIN = ("n", "errors", "min_ms", *LATENCIES, "first_errors", "in_detail", "by_account", "skipped", "failed")


def facts(kube: Any, pool: str, root: Path) -> dict[str, Any]:
    """What a reader needs to judge the numbers. Sizes are in MiB."""
    spec = kube.pool(pool)["spec"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "kubernetes": kube.request("GET", "/version")["gitVersion"],
        "nodes": len(kube.items("/api/v1/nodes")),
        "git_commit": git_commit(root),
        "pool": {
            "replicas": spec["replicas"],
            "maxPods": spec.get("maxPods"),
            "image": spec["runtime"]["image"],
        },
    }


def cpu_model() -> str:
    """The processor's name, or the machine type where it is not told."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def git_commit(root: Path) -> str:
    """The commit that is checked out, with a plus sign when files differ from it; `unknown` without git."""
    try:
        commit = git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(root: Path, *arguments: str) -> str:
    """Output of a git command."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def table(scenarios: Mapping[str, Scenario]) -> str:
    """Latencies as a table, then every other figure on a line of its own, each beside what is wanted."""
    head = f"{'scenario':32}{'n':>6}{'err':>5}" + "".join(
        f"{name.removesuffix('_ms'):>10}" for name in LATENCIES
    )
    lines = [head + "   wanted"]
    others: list[str] = []
    for name, scenario in scenarios.items():
        if "p50_ms" in scenario:
            lines.append(latency_line(name, scenario))
        others += other_lines(name, scenario)
    return "\n".join(["latencies in ms", *lines, "", *others])


def latency_line(name: str, scenario: Scenario) -> str:
    """One row of the table."""
    cells = "".join(f"{scenario[figure]:>10.1f}" for figure in LATENCIES)
    marks = [
        f"{figure.removesuffix('_ms')} {limit:g}{mark(name, scenario, figure)}"
        for (wanted_in, figure), limit in WANTED.items()
        if wanted_in == name and figure in LATENCIES
    ]
    return f"{name:32}{scenario['n']:>6}{scenario['errors']:>5}{cells}   {', '.join(marks)}".rstrip()


def mark(name: str, scenario: Scenario, figure: str) -> str:
    """What stands behind an aim that was missed."""
    return " MISSED" if figure in missed(name, scenario) else ""


def other_lines(name: str, scenario: Scenario) -> list[str]:
    """The figures of a scenario that are not in the table, and why it has none."""
    lines = [f"{name}: {what} {scenario[what]}" for what in ("skipped", "failed") if what in scenario]
    lines += [f"{name}: error: {error}" for error in scenario.get("first_errors", [])]
    for figure, value in scenario.items():
        if figure in PLAIN:
            continue
        limit = WANTED.get((name, figure))
        wanted = f"   wanted <= {limit:g}{mark(name, scenario, figure)}" if limit is not None else ""
        lines.append(f"{name}.{figure} = {value}{wanted}")
    for what, count in scenario.get("in_detail", {}).items():
        lines.append(f"{name}: {count:>6} {what}")
    return lines

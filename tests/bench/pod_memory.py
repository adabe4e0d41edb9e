"""Memory of a sidecar and a runner, each a process of its own on this machine: idle, and while a program
prints. Needs no cluster, but root, for the runner's PID namespace."""

import asyncio
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import Scenario

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "sidecar"), str(ROOT / "operator"), str(ROOT / "crds")]

from contract.fakes_sidecar.client import job, start  # noqa: E402
from contract.fakes_sidecar.pair import WHY_IMPOSSIBLE, pod  # noqa: E402

OUTPUT_BYTES = 1_000_000_000
PRINTING = f"import sys\nfor _ in range({OUTPUT_BYTES // 1_000_000}): sys.stdout.write('x' * 1_000_000)"


def output_1gb(n: int) -> dict[str, Scenario]:
    """A program prints 1 GB, `n` times, each in a pod of its own. MiB of resident memory at rest, and the
    most while it prints; megabytes a second."""
    name = "pod_output_1gb"
    if WHY_IMPOSSIBLE:
        return {name: {"skipped": WHY_IMPOSSIBLE}}
    rounds = [asyncio.run(_round()) for _ in range(n)]
    errors = sum(found.pop("wrong") for found in rounds)
    worst = {
        figure: max(found[figure] for found in rounds) for figure in rounds[0] if figure.endswith("_mib")
    }
    rate = round(statistics.median(found["mb_per_second"] for found in rounds), 1)
    return {name: {"n": n, "errors": int(errors), **worst, "mb_per_second": rate}}


async def _round() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with pod(Path(folder)) as (sidecar, client, process):
            runner = _child_of(process.pid)
            found = {
                "sidecar_idle_mib": sidecar.memory("VmRSS") / 1024,
                "runner_idle_mib": _mib(runner, "VmRSS"),
            }
            await client.request("POST", "/v1/prepare", job(PRINTING, timeout=120))
            began = time.perf_counter()
            result = await client.result(start())
            took = time.perf_counter() - began
            found |= {
                "sidecar_most_mib": sidecar.memory("VmHWM") / 1024,
                "runner_most_mib": _mib(runner, "VmHWM"),
            }
            found = {figure: round(value, 1) for figure, value in found.items()}
            client.close()
            right = result.reason == "Succeeded" and result.stdout.bytes == OUTPUT_BYTES
            return {**found, "mb_per_second": OUTPUT_BYTES / 1e6 / took, "wrong": 0 if right else 1}


def _child_of(pid: int) -> int:
    """The runner, which `unshare` has forked."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _mib(pid: int, field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024

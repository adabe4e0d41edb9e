"""What hostile programs cost an ordinary caller on the same node, and how much of that is their hostility."""

import itertools
import threading

from bench.figures import Scenario, milliseconds, percentile, summary
from bench.system import Caller, System, wrong
from e2e.deployment import POOLS, SESSIONS
from e2e.kube import MERGE_PATCH
from e2e.pools import TERMINAL, fresh_name, pool_manifest, put_pool, session_manifest, wait_at_target
from hostile.cage import cage, program

NEIGHBOURS = ("fork_bomb", "memory_bomb", "flood", "disk_bomb", "inode_bomb", "open_files_bomb")
LIMIT_SECONDS = 5
STEADY_SECONDS = 600
STEADY = "while True: pass"
"""Keeps as much of a processor busy as its pod may have, and uses up no other pod."""
ORDINARY = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(1)"
"""What a neighbour may well do. Every program uses up a pod, hostile or not, and making another one takes
more of a small node than any program: beside these the caller has that, too."""


PACE = 6
"""Pods that the neighbours' pool may begin in a minute, where it is paced."""


def canary(system: System, n: int) -> dict[str, Scenario]:
    """`n` calls of `print(42)` alone, and as many beside each kind of neighbour."""
    alone, errors = calls(system, n)
    name = fresh_name("x-canary")
    like = system.kube.pool(system.pool)
    limits = cage(like["spec"]["runtime"]["image"])
    limits["limits"]["maxTimeoutSeconds"] = STEADY_SECONDS
    put_pool(system.kube, pool_manifest(name, like, **limits))
    hostile = [program(kind) for kind in NEIGHBOURS]
    among: dict[str, list[float]] = {}
    try:
        for kind, programs, limit in (
            ("steady", [STEADY], STEADY_SECONDS),
            ("ordinary", [ORDINARY], LIMIT_SECONDS),
            ("hostile", hostile, LIMIT_SECONDS),
            ("paced", hostile, LIMIT_SECONDS),
        ):
            if kind == "paced":
                change = {"spec": {"startsPerMinute": PACE, "onEmpty": {"waitSeconds": 120}}}
                system.kube.request("PATCH", f"{POOLS}/{name}", change, MERGE_PATCH)
            among[kind], more = beside(system, name, programs, n, limit)
            errors += more
    finally:
        system.kube.delete(f"{POOLS}/{name}")
    return {
        f"canary_{kind}": summary(series, errors) | ratios(alone, series) for kind, series in among.items()
    }


def ratios(alone: list[float], beside: list[float]) -> Scenario:
    """Percentiles of the calls alone, and how many times as long the others took."""
    found: Scenario = {}
    for share in (50, 99) if alone and beside else ():
        baseline = percentile(alone, share)
        found[f"alone_p{share}_ms"] = milliseconds(baseline)
        found[f"ratio_p{share}"] = round(percentile(beside, share) / baseline, 2)
    return found


def beside(
    system: System, pool: str, programs: list[str], n: int, limit: int
) -> tuple[list[float], list[str]]:
    """`calls`, while the programs run in that pool, one after the other and over again, each for at most so
    many seconds."""
    wait_at_target(system.kube, pool)
    stop = threading.Event()
    neighbour = threading.Thread(target=run_programs, args=(system, pool, programs, limit, stop))
    neighbour.start()
    try:
        return calls(system, n)
    finally:
        stop.set()
        neighbour.join(60)


def calls(system: System, n: int) -> tuple[list[float], list[str]]:
    """Seconds of `n` right answers on a pool at rest, and what was wrong with the others."""
    caller = Caller(system.front_end)
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        # A pool that is full each time: making a pod takes longer than a call.
        system.rest()
        run = caller.call("print(42)")
        fault = wrong(run, "42\n")
        if fault:
            errors.append(fault)
        else:
            seconds.append(run.seconds)
    caller.close()
    return seconds, errors


def run_programs(system: System, pool: str, programs: list[str], limit: int, stop: threading.Event) -> None:
    """One after the other, until told to stop."""
    for code in itertools.cycle(programs):
        if stop.is_set():
            return
        name = fresh_name("x-canary")
        system.kube.apply(session_manifest(name, pool, code, timeoutSeconds=limit))
        while not stop.is_set() and system.kube.session(name).get("status", {}).get("phase") not in TERMINAL:
            stop.wait(0.2)
        system.kube.delete(f"{SESSIONS}/{name}")

"""What hostile programs cost an ordinary caller on the same node."""

import itertools
import threading

from bench.figures import Scenario, milliseconds, percentile, summary
from bench.system import Caller, System, wrong
from e2e.deployment import POOLS, SESSIONS
from e2e.pools import ended, fresh_name, pool_manifest, put_pool, session_manifest, wait_at_target
from hostile.cage import cage, program

NEIGHBOURS = ("fork_bomb", "memory_bomb", "flood", "disk_bomb", "inode_bomb", "open_files_bomb")
LIMIT_SECONDS = 5


ORDINARY = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(1)"
"""What a neighbour may well do. Every program uses up a pod, hostile or not, and making another one takes
more of a small node than any program: beside these the caller has that, too."""


def canary(system: System, n: int) -> dict[str, Scenario]:
    """`n` calls of `print(42)` alone, as many beside ordinary programs, and as many beside hostile ones."""
    alone, errors = calls(system, n)
    name = fresh_name("x-canary")
    like = system.kube.pool(system.pool)
    put_pool(system.kube, pool_manifest(name, like, **cage(like["spec"]["runtime"]["image"])))
    try:
        ordinary, more = beside(system, name, [ORDINARY], n)
        hostile, most = beside(system, name, [program(kind) for kind in NEIGHBOURS], n)
    finally:
        system.kube.delete(f"{POOLS}/{name}")
    result = summary(hostile, [*errors, *more, *most])
    if alone and ordinary and hostile:
        for share in (50, 99):
            before, among = percentile(alone, share), percentile(ordinary, share)
            result[f"alone_p{share}_ms"] = milliseconds(before)
            result[f"ordinary_p{share}_ms"] = milliseconds(among)
            result[f"ratio_p{share}"] = round(percentile(hostile, share) / before, 2)
            result[f"ratio_to_ordinary_p{share}"] = round(percentile(hostile, share) / among, 2)
    return {"canary": result}


def beside(system: System, pool: str, programs: list[str], n: int) -> tuple[list[float], list[str]]:
    """`calls`, while the programs run in that pool, one after the other and over again."""
    wait_at_target(system.kube, pool)
    stop = threading.Event()
    neighbour = threading.Thread(target=run_programs, args=(system, pool, programs, stop))
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


def run_programs(system: System, pool: str, programs: list[str], stop: threading.Event) -> None:
    """One after the other, until told to stop."""
    for code in itertools.cycle(programs):
        if stop.is_set():
            return
        name = fresh_name("x-canary")
        system.kube.apply(session_manifest(name, pool, code, timeoutSeconds=LIMIT_SECONDS))
        ended(system.kube, name)
        system.kube.delete(f"{SESSIONS}/{name}")

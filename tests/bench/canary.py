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


def canary(system: System, n: int) -> dict[str, Scenario]:
    """`n` calls of `print(42)` alone, then as many while hostile programs run one after the other."""
    alone, errors = calls(system, n)
    name = fresh_name("x-canary")
    like = system.kube.pool(system.pool)
    put_pool(system.kube, pool_manifest(name, like, **cage(like["spec"]["runtime"]["image"])))
    stop = threading.Event()
    neighbour = threading.Thread(target=run_hostile, args=(system, name, stop))
    try:
        wait_at_target(system.kube, name)
        neighbour.start()
        beside, more = calls(system, n)
    finally:
        stop.set()
        if neighbour.is_alive():
            neighbour.join(60)
        system.kube.delete(f"{POOLS}/{name}")
    result = summary(beside, [*errors, *more])
    if alone and beside:
        for share in (50, 99):
            result[f"alone_p{share}_ms"] = milliseconds(percentile(alone, share))
            result[f"ratio_p{share}"] = round(percentile(beside, share) / percentile(alone, share), 2)
    return {"canary": result}


def calls(system: System, n: int) -> tuple[list[float], list[str]]:
    """Seconds of `n` right answers on a pool at rest, and what was wrong with the others."""
    caller = Caller(system.front_end)
    seconds: list[float] = []
    errors: list[str] = []
    for _ in range(n):
        # A pool that is full each time: making a pod takes longer than a call, in either half.
        system.rest()
        run = caller.call("print(42)")
        fault = wrong(run, "42\n")
        if fault:
            errors.append(fault)
        else:
            seconds.append(run.seconds)
    caller.close()
    return seconds, errors


def run_hostile(system: System, pool: str, stop: threading.Event) -> None:
    """One hostile program after the other, until told to stop."""
    for kind in itertools.cycle(NEIGHBOURS):
        if stop.is_set():
            return
        name = fresh_name("x-canary")
        system.kube.apply(session_manifest(name, pool, program(kind), timeoutSeconds=LIMIT_SECONDS))
        ended(system.kube, name)
        system.kube.delete(f"{SESSIONS}/{name}")

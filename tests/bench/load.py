"""Many calls: in a closed loop, where each caller asks again as soon as it has its answer, and all at one
moment."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from bench.figures import Scenario, percentile, summary
from bench.system import Caller, Run, System, wrong

LOOP_SECONDS = 30.0


def throughput(system: System, callers: int, seconds: float = LOOP_SECONDS) -> dict[str, Scenario]:
    """A closed loop of `callers` for some time. Calls that begin within it are waited for and counted."""
    system.rest()
    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        loops = list(threads.map(lambda _: loop(system, began + seconds), range(callers)))
    took = time.perf_counter() - began
    answered = [run for runs, _ in loops for run in runs]
    errors = [error for _, found in loops for error in found]
    result = summary([run.seconds for run in answered], errors)
    result |= {"per_second": round(len(answered) / took, 2), "seconds": round(took, 1)}
    return {f"throughput_{callers}": result}


def loop(system: System, until: float) -> tuple[list[Run], list[str]]:
    """One caller of a closed loop: its right answers and what was wrong with the others."""
    caller = Caller(system.front_end)
    right: list[Run] = []
    errors: list[str] = []
    while time.perf_counter() < until:
        run = attempt(caller, errors)
        if run is not None:
            right.append(run)
    caller.close()
    return right, errors


def attempt(caller: Caller, errors: list[str]) -> Run | None:
    """One call; anything but the right answer goes into `errors`."""
    try:
        run = caller.call("print(1)")
    except (OSError, HTTPException) as failure:
        errors.append(f"{type(failure).__name__}: {failure}")
        caller.close()
        return None
    fault = wrong(run, "1\n")
    if fault:
        errors.append(fault)
        return None
    return run


def burst(system: System, size: int, rounds: int) -> dict[str, Scenario]:
    """`size` calls at one moment on a pool at rest, several times. `last_p50_ms` is the median of the last
    answers."""
    seconds: list[float] = []
    errors: list[str] = []
    lasts: list[float] = []
    for _ in range(rounds):
        system.rest()
        runs = at_once(system, size, errors)
        seconds.extend(run.seconds for run in runs)
        lasts.append(max((run.seconds for run in runs), default=0.0))
    extra = {
        "rounds": rounds,
        "replicas": system.replicas(),
        "last_p50_ms": round(percentile(lasts, 50) * 1000, 1),
    }
    return {f"burst_{size}": summary(seconds, errors) | extra}


def at_once(system: System, size: int, errors: list[str]) -> Sequence[Run]:
    """The right answers to `size` calls that start together, each on an open connection."""
    gate = threading.Barrier(size)

    def one(_: int) -> Run | None:
        caller = Caller(system.front_end, keep=False)
        gate.wait()
        run = attempt(caller, errors)
        caller.close()
        return run

    with ThreadPoolExecutor(size) as threads:
        return [run for run in threads.map(one, range(size)) if run is not None]

"""One call at a time, each meeting a full and idle pool: what a person who presses "run" waits for."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bench.figures import Scenario, median_of, milliseconds, summary
from bench.system import Caller, Run, System, wrong

PANDAS = "import pandas as pd\nprint(int(pd.DataFrame({'a': range(10)}).groupby('a').size().sum()))"
PHASES = ("queued", "prepared", "patched", "started", "finished", "stored", "completed")


def exec_print(system: System, n: int) -> dict[str, Scenario]:
    """`print(1)` over a kept connection, and the phases of the same calls as the session's status tells
    them."""
    latency, phases = paced(system, "print(1)", "1\n", n)
    return {"exec_print_1": latency, "phases": phases}


def exec_fresh(system: System, n: int) -> dict[str, Scenario]:
    """`print(1)` over a connection opened for each call."""
    latency, _ = paced(system, "print(1)", "1\n", n, keep=False)
    return {"exec_print_1_fresh_connection": latency}


def exec_pandas(system: System, n: int) -> dict[str, Scenario]:
    """A program that imports pandas and uses it."""
    latency, phases = paced(system, PANDAS, "10\n", n)
    return {"exec_pandas_1": latency, "phases_pandas": phases}


def paced(system: System, code: str, expected: str, n: int, keep: bool = True) -> tuple[Scenario, Scenario]:
    """`n` calls, each after the pool has come to rest. A call that did not get a warm pod at once is an
    error."""
    caller = Caller(system.front_end, keep)
    seconds: list[float] = []
    rows: list[dict[str, float]] = []
    errors: list[str] = []
    for _ in range(n):
        system.rest()
        run = caller.call(code)
        fault = wrong(run, expected)
        status = {} if fault else system.kube.session(run.answer.session)["status"]
        if not fault and status.get("startType") != "Warm":
            fault = f"startType {status.get('startType')} in a pool at rest"
        if fault:
            errors.append(fault)
            continue
        seconds.append(run.seconds)
        rows.append(offsets(run, status["timings"]))
    caller.close()
    medians = {f"{name}_ms": milliseconds(value) for name, value in median_of(rows).items()}
    connections = {"connections": caller.connections}
    return summary(seconds, errors) | connections, {"n": len(rows), "errors": 0, **medians}


def offsets(run: Run, timings: Mapping[str, Any]) -> dict[str, float]:
    """Seconds from the request to each step of a session, and to the answer. The clocks are those of one
    machine."""
    steps = {name: instant(timings[name]) - run.asked for name in PHASES if timings.get(name)}
    return {**steps, "answered": run.answered - run.asked}


def instant(text: str) -> float:
    """An RFC 3339 time as seconds since 1970."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()

"""What a run costs the API server, and what the system costs while it does nothing."""

import statistics
import time
from collections import defaultdict
from typing import Any

from bench.audit import per_session, writes
from bench.figures import Scenario
from bench.node_log import BATCH_SECONDS, NoAuditLogError, NodeLog
from bench.system import Caller, System, wrong
from e2e.deployment import NAMESPACE, SESSIONS, SYSTEM_NAMESPACE
from e2e.kube import Object
from e2e.stats import Memory, all_memories

TTL_SECONDS = 10
"""The least a pool accepts."""
REMOVAL_PATIENCE = 240.0
STATS_AGE_SECONDS = 20.0
"""The kubelet measures memory about every ten seconds."""


def api_writes(system: System, n: int) -> dict[str, Scenario]:
    """Writes per run from the call to the removal of its session, which the pool is told to do early."""
    name = "api_writes_per_session"
    context = system.kube.kubectl("config", "current-context").stdout.strip()
    try:
        NodeLog(context)
        with system.changed({"sessionDefaults": {"ttlSecondsAfterFinished": TTL_SECONDS}}):
            return {name: counted(system, context, n)}
    except NoAuditLogError as missing:
        return {name: {"skipped": str(missing)}}


def counted(system: System, context: str, n: int) -> Scenario:
    """Run `n` programs one after the other and count, until the pool is at rest and the sessions are gone.

    Earlier sessions are waited for first: their removal is none of these runs' writes.
    """
    passing = filter(is_passing, system.kube.items(SESSIONS))
    removed(system, {session["metadata"]["name"] for session in passing})
    system.rest()
    time.sleep(BATCH_SECONDS)
    log, caller = NodeLog(context), Caller(system.front_end)
    made, errors = set[str](), list[str]()
    for _ in range(n):
        run = caller.call("print(1)")
        fault = wrong(run, "1\n")
        errors += [fault] if fault else []
        made.add(str(run.answer.parsed.get("session_id")))
        system.rest()
    caller.close()
    left = removed(system, made)
    time.sleep(BATCH_SECONDS)
    return per_session(writes(log.lines()), n) | {"errors": len(errors), "sessions_left": left}


def is_passing(session: Object) -> bool:
    """Whether a session is kept for minutes. Those with files are kept for a day, and cost nothing then."""
    return not session.get("status", {}).get("fileCount")


def removed(system: System, made: set[str]) -> int:
    """Wait until the sessions are gone; how many are still there after a while."""
    deadline = time.monotonic() + REMOVAL_PATIENCE
    while True:
        left = len(made & {session["metadata"]["name"] for session in system.kube.items(SESSIONS)})
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(2.0)


def idle_memory(system: System) -> dict[str, Scenario]:
    """Memory of each kind of container in MiB, as the kubelet knows it, after a pause: the median where
    there are several."""
    system.rest()
    time.sleep(STATS_AGE_SECONDS)
    groups: dict[str, list[Memory]] = defaultdict(list)
    for memory in all_memories(system.kube):
        if memory.namespace == NAMESPACE and memory.container in ("sidecar", "runtime"):
            groups[memory.container].append(memory)
        elif memory.namespace == SYSTEM_NAMESPACE:
            groups[memory.pod.removeprefix("kubecoderun-").split("-")[0]].append(memory)
    result: dict[str, Any] = {"n": len(groups.get("sidecar", [])), "errors": 0}
    for name, found in sorted(groups.items()):
        result[f"{name}_mib"] = mebibytes([memory.working_set for memory in found])
        result[f"{name}_rss_mib"] = mebibytes([memory.rss for memory in found])
    return {"idle_memory": result}


def mebibytes(sizes: list[int]) -> float:
    """The median of some sizes in MiB."""
    return round(statistics.median(sizes) / (1 << 20), 1)

"""Prometheus metrics. No label carries a session's name, a tenant, or anything else without a bound."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry()

_STEPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

SESSIONS: Final = Counter(
    "kubecoderun_sessions_total",
    "Sessions that have ended.",
    ("namespace", "pool", "reason", "start_type"),
    registry=REGISTRY,
)
PHASE_SECONDS: Final = Histogram(
    "kubecoderun_session_phase_seconds",
    "Time of a session in each phase: waiting, binding (to a pod), running, completing, total.",
    ("pool", "phase"),
    buckets=_STEPS,
    registry=REGISTRY,
)
POOL_PODS: Final = Gauge(
    "kubecoderun_pool_pods",
    "Pods of a pool: ready, unassigned, assigned, terminating, desired (unassigned).",
    ("namespace", "pool", "state"),
    registry=REGISTRY,
)
POOL_WAITING: Final = Gauge(
    "kubecoderun_pool_waiting_sessions",
    "Sessions that wait for a pod.",
    ("namespace", "pool"),
    registry=REGISTRY,
)
POD_CREATES: Final = Counter(
    "kubecoderun_pod_creates_total",
    "Pods asked for, by outcome: created, refused, failed.",
    ("namespace", "pool", "outcome"),
    registry=REGISTRY,
)
POD_DELETES: Final = Counter(
    "kubecoderun_pod_deletes_total",
    "Pods deleted, by cause: finished, unusable, surplus, orphan.",
    ("namespace", "pool", "cause"),
    registry=REGISTRY,
)
CONFLICTS: Final = Counter(
    "kubecoderun_pod_conflicts_total",
    "Pods that could not be used for the session they were reserved for, by cause.",
    ("namespace", "pool", "cause"),
    registry=REGISTRY,
)
API_REQUESTS: Final = Counter(
    "kubecoderun_api_requests_total",
    "Attempts of requests to the API server; code is the HTTP status, or 0 without an answer.",
    ("verb", "resource", "code"),
    registry=REGISTRY,
)
API_SECONDS: Final = Histogram(
    "kubecoderun_api_request_seconds",
    "Time of answered attempts of requests to the API server.",
    ("verb", "resource"),
    buckets=_STEPS,
    registry=REGISTRY,
)
SIDECAR_REQUESTS: Final = Counter(
    "kubecoderun_sidecar_requests_total",
    "Requests to sidecars; code is the HTTP status, or 0 without an answer.",
    ("call", "code"),
    registry=REGISTRY,
)
RECOVERED: Final = Counter(
    "kubecoderun_recovered_sessions_total",
    "Unfinished sessions found at a start, by what was done: Run, Prepare, Attach, Lost.",
    ("step",),
    registry=REGISTRY,
)
EXPECTATIONS_EXPIRED: Final = Counter(
    "kubecoderun_expectations_expired_total",
    "Pods whose creation was never confirmed.",
    ("namespace", "pool"),
    registry=REGISTRY,
)
SWEPT: Final = Counter(
    "kubecoderun_swept_total",
    "What the sweeper found that events had missed, by kind.",
    ("kind",),
    registry=REGISTRY,
)
STORE_REQUESTS: Final = Counter(
    "kubecoderun_store_requests_total",
    "Attempts of requests to the object store: list, remove, uploads, abort; code: HTTP status, 0 if none.",
    ("call", "code"),
    registry=REGISTRY,
)
OBJECTS_REMOVED: Final = Counter(
    "kubecoderun_store_objects_removed_total",
    "Objects removed from the store, by what became of their session: deleted (by the operator), orphan.",
    ("cause",),
    registry=REGISTRY,
)
UPLOADS_ABORTED: Final = Counter(
    "kubecoderun_store_uploads_aborted_total",
    "Uploads in parts that their sender never ended, removed from the store.",
    registry=REGISTRY,
)
STORE_SWEEP_STOPPED: Final = Gauge(
    "kubecoderun_store_sweep_stopped",
    "How many sessions' objects the last look at the store would have removed, if that was too many; else 0.",
    ("namespace",),
    registry=REGISTRY,
)
LEADER: Final = Gauge("kubecoderun_leader", "1 while this process leads.", registry=REGISTRY)


def pool_gauges(namespace: str, pool: str, pods: Mapping[str, int], waiting: int) -> None:
    """Set the gauges of one pool."""
    for state, count in pods.items():
        POOL_PODS.labels(namespace, pool, state).set(count)
    POOL_WAITING.labels(namespace, pool).set(waiting)


def forget_pool(namespace: str, pool: str) -> None:
    """Remove the gauges of a pool that is gone."""
    POOL_PODS.remove_by_labels({"namespace": namespace, "pool": pool})
    POOL_WAITING.remove_by_labels({"namespace": namespace, "pool": pool})


def page() -> bytes:
    """All metrics in the text format of Prometheus."""
    return generate_latest(REGISTRY)

"""Prometheus metrics of the front end. Label values come from closed lists, so their number is bounded."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nobody asks for
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_FAST = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0)


class Metrics:
    """The metrics of one application; each application has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        prefix = "kubecoderun_api"
        self.requests = Counter(
            f"{prefix}_requests", "HTTP requests answered", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            f"{prefix}_request_seconds",
            "Time from a request's headers to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.runs = Counter(
            f"{prefix}_runs",
            "Runs by language and reason of their end",
            ["language", "reason"],
            registry=self.registry,
        )
        self.open_runs = Gauge(
            f"{prefix}_open_runs", "Runs whose answer is waited for", registry=self.registry
        )
        self.create_seconds = Histogram(
            f"{prefix}_session_create_seconds",
            "Time to create a session, retries included",
            buckets=_FAST,
            registry=self.registry,
        )
        self.late = Counter(
            f"{prefix}_heartbeat_answers",
            "Answers begun with a space before the result",
            registry=self.registry,
        )
        self.disconnects = Counter(
            f"{prefix}_disconnects",
            "Clients that left before their answer",
            ["action"],
            registry=self.registry,
        )
        self.refused = Counter(
            f"{prefix}_authentication_failures",
            "Requests without an acceptable key",
            ["kind"],
            registry=self.registry,
        )
        self.repeats = Counter(
            f"{prefix}_idempotent_repeats",
            "Runs that were answered with the result of an earlier request",
            registry=self.registry,
        )
        self.watch_breaks = Counter(
            f"{prefix}_watch_breaks", "Watches that ended early", ["kind", "cause"], registry=self.registry
        )
        self.rechecks = Counter(
            f"{prefix}_session_rechecks",
            "Sessions read again after a gap in the watch",
            registry=self.registry,
        )
        self.uploads = Counter(
            f"{prefix}_uploads", "Uploads by how they ended", ["outcome"], registry=self.registry
        )
        self.upload_bytes = Counter(
            f"{prefix}_upload_bytes", "Bytes of all files taken in", registry=self.registry
        )
        self.downloads = Counter(
            f"{prefix}_downloads", "Downloads by how they began", ["outcome"], registry=self.registry
        )
        self.download_bytes = Counter(
            f"{prefix}_download_bytes", "Bytes of files sent to clients", registry=self.registry
        )
        self.references = Counter(
            f"{prefix}_input_references",
            "Input files of runs by how they were found: exact, prefix or missing",
            ["how"],
            registry=self.registry,
        )
        self.store_failures = Counter(
            f"{prefix}_store_failures",
            "Transfers that failed for good",
            ["direction"],
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

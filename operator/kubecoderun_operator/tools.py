"""What the working parts of the operator have in common, made once."""

from collections.abc import Callable
from dataclasses import dataclass

from kubecoderun_operator.background import Background
from kubecoderun_operator.cluster import Cluster
from kubecoderun_operator.notices import Notices
from kubecoderun_operator.pods import PodDefaults
from kubecoderun_operator.purge import Purger
from kubecoderun_operator.remover import Remover
from kubecoderun_operator.results import Results
from kubecoderun_operator.settings import Settings
from kubecoderun_operator.sidecars import Sidecars
from kubecoderun_operator.storage import Storage


@dataclass(frozen=True, slots=True)
class Tools:
    """Clients, settings, and where background work goes."""

    settings: Settings
    cluster: Cluster
    sidecars: Sidecars
    storage: Storage | None
    """None if no object store is configured."""
    purger: Purger | None
    """The same."""
    results: Results
    remover: Remover
    notices: Notices
    background: Background
    pod_defaults: PodDefaults
    epoch: Callable[[], int]
    """Epoch of this leader."""

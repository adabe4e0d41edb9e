"""A namespace of its own for each module of cluster tests. Nothing is installed: the cluster has the CRDs."""

import os
import secrets
from collections.abc import Iterator

import pytest

from cluster.kubectl import Kubectl

CRDS = ("executionpools.kubecoderun.io", "executionsessions.kubecoderun.io")


@pytest.fixture(scope="session")
def cluster() -> Kubectl:
    """The cluster of KUBECONFIG with its CRDs established. Without one the tests are skipped; with CI=true
    they fail instead."""
    if not os.environ.get("KUBECONFIG"):
        missing = "KUBECONFIG names no cluster"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    kubectl = Kubectl("default")
    kubectl.out("wait", "--for=condition=Established", "--timeout=50s", *(f"crd/{name}" for name in CRDS))
    return kubectl


@pytest.fixture(scope="module")
def kubectl(cluster: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a temporary namespace. No operator looks at it, so a status is what the test writes."""
    name = f"test-{secrets.token_hex(5)}"
    cluster.out("create", "namespace", name)
    yield Kubectl(name)
    cluster.out("delete", "namespace", name, "--wait=false")

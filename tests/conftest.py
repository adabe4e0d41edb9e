"""Fixtures of every test that talks to a deployed system, and the list of skipped tests at the end of a
run."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from e2e.deployment import Deployment, NotDeployedError
from e2e.frontend import FrontEnd
from e2e.kube import Kube
from e2e.watching import InvariantWatcher

pytest_plugins = ["skips"]

# How long an example takes is up to what else the machine does.
hypothesis.settings.register_profile("kubecoderun", deadline=None)
hypothesis.settings.load_profile("kubecoderun")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    """Where the deployed system is. Without one the tests are skipped; with CI=true they fail instead."""
    try:
        return Deployment.find(os.environ, REPOSITORY / "build" / "env")
    except NotDeployedError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the system is not deployed: {missing}")
        pytest.skip(f"the system is not deployed: {missing}")


@pytest.fixture(scope="session")
def kube(deployment: Deployment) -> Kube:
    """The cluster's API."""
    return Kube(deployment)


@pytest.fixture(scope="session")
def front_end(deployment: Deployment) -> FrontEnd:
    """The front end's HTTP API with a valid key."""
    return FrontEnd(deployment.endpoint, deployment.api_key)


@pytest.fixture(scope="session")
def invariants(kube: Kube) -> Iterator[InvariantWatcher]:
    """Watches pods, sessions and pools from the first cluster test to the last, and fails the run if a
    promise was broken."""
    watcher = InvariantWatcher(kube)
    watcher.start()
    yield watcher
    broken = watcher.finish()
    if broken:
        pytest.fail("invariants were broken during the run:\n" + "\n".join(broken), pytrace=False)

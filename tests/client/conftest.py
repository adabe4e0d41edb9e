"""Fixtures of the tests that drive real clients: installed packages, and clients of the deployed system."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from client.node_program import run_node
from client.packages import (
    GENERATIONS,
    HTTP,
    ClientMissingError,
    Generation,
    PackageSet,
    cache_folder,
    installed,
)
from e2e.deployment import Deployment

Install = Callable[[PackageSet], Path]


@pytest.fixture(scope="session")
def install() -> Install:
    """The folder of a set of packages. Without it tests are skipped; with CI=true they fail."""

    def folder(packages: PackageSet) -> Path:
        try:
            return installed(packages, cache_folder())
        except ClientMissingError as missing:
            if os.environ.get("CI") == "true":
                pytest.fail(f"the client cannot be run: {missing}")
            pytest.skip(f"the client cannot be run: {missing}")

    return folder


@dataclass(frozen=True)
class Client:
    """One generation of the client, ready to be driven against the deployed front end."""

    generation: Generation
    order: dict[str, Any]

    def run(self, script: str, **more: Any) -> Any:
        """What a script prints that gets this client's order and some more."""
        return run_node(script, self.order | more)


MakeClient = Callable[[Generation], Client]


@pytest.fixture(scope="session")
def make_client(deployment: Deployment, install: Install) -> MakeClient:
    """A client of any generation."""

    def make(generation: Generation) -> Client:
        order = {
            "base": f"{deployment.endpoint}/v1",
            "key": deployment.api_key,
            "http": str(install(HTTP)),
            "axios": f"axios-{generation.axios}",
            "agents": str(install(generation.packages)),
            "style": generation.style,
        }
        return Client(generation, order)

    return make


@pytest.fixture(scope="module", params=GENERATIONS, ids=attrgetter("agents"))
def client(request: pytest.FixtureRequest, make_client: MakeClient) -> Client:
    """Each generation in turn."""
    return make_client(request.param)

"""Fixtures of the end-to-end tests: the pool that serves Python, and pools and sessions that vanish after
their test."""

from collections.abc import Callable, Iterator

import pytest

from e2e.deployment import POOLS, SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import MERGE_PATCH, Kube, Object
from e2e.pools import fresh_name, pool_manifest, put_pool, wait_at_target
from e2e.watching import InvariantWatcher

WARM_PODS = 3


@pytest.fixture(scope="session", autouse=True)
def _invariants_hold(invariants: InvariantWatcher) -> None:
    """Every end-to-end test runs under the eyes of the invariant watcher."""


@pytest.fixture(scope="session")
def pool(kube: Kube, front_end: FrontEnd) -> Iterator[str]:
    """Name of the pool the front end uses for Python, held at three warm pods for these tests."""
    first = front_end.exec("print(1)")
    assert first.status == 200, first.body
    name = str(kube.session(first.session)["spec"]["request"]["poolRef"]["name"])
    before = kube.pool(name)["spec"]["replicas"]
    kube.kubectl("scale", f"executionpool/{name}", f"--replicas={WARM_PODS}")
    yield name
    kube.kubectl("scale", f"executionpool/{name}", f"--replicas={before}")


@pytest.fixture
def full_pool(kube: Kube, pool: str) -> str:
    """The Python pool, full and idle when the test begins."""
    wait_at_target(kube, pool)
    return pool


@pytest.fixture
def new_pool(kube: Kube, pool: str) -> Iterator[Callable[..., str]]:
    """Makes pools with the Python pool's image and given spec fields; they are deleted after the test."""
    made: list[str] = []

    def make(**spec: object) -> str:
        name = fresh_name("x-e2e")
        put_pool(kube, pool_manifest(name, kube.pool(pool), **spec))
        made.append(name)
        return name

    yield make
    for name in made:
        kube.delete(f"{POOLS}/{name}")


@pytest.fixture
def own_session(kube: Kube) -> Iterator[Callable[[Object], str]]:
    """Creates sessions that are deleted after the test; returns the session's name."""
    made: list[str] = []

    def make(manifest: Object) -> str:
        kube.apply(manifest)
        made.append(manifest["metadata"]["name"])
        return made[-1]

    yield make
    for name in made:
        kube.delete(f"{SESSIONS}/{name}")


@pytest.fixture
def patched(kube: Kube) -> Iterator[Callable[[str, Object], None]]:
    """Merge-patches an object's spec for one test and puts the replaced fields back afterwards."""
    undo: list[tuple[str, Object]] = []

    def change(path: str, spec: Object) -> None:
        before = kube.request("GET", path)["spec"]
        undo.append((path, {name: before.get(name) for name in spec}))
        kube.request("PATCH", path, {"spec": spec}, MERGE_PATCH)

    yield change
    for path, spec in reversed(undo):
        kube.request("PATCH", path, {"spec": spec}, MERGE_PATCH)

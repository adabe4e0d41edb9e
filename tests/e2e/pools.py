"""Pools and sessions as the tests use them: manifests, and waiting until a pool is back at its target."""

import secrets
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from e2e.deployment import GROUP, NAMESPACE, POOLS, SESSIONS
from e2e.kube import Kube, Object, condition, is_going, is_ready, label
from e2e.waiting import eventually

TERMINAL = frozenset({"Succeeded", "Failed", "TimedOut", "Cancelled", "Held"})


def fresh_name(prefix: str) -> str:
    """A name no other test uses."""
    return f"{prefix}-" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(6))


def session_manifest(name: str, pool: str, code: str, **request: Any) -> Object:
    """An ExecutionSession a person would write."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ExecutionSession",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"request": {"poolRef": {"name": pool}, "language": "py", "code": code, **request}},
    }


def pool_manifest(name: str, like: Object, **spec: Any) -> Object:
    """A small ExecutionPool with the runtime of an existing one; `spec` replaces fields of it as a whole.

    It serves a language nobody asks for, and its name comes late in the alphabet, so that the front end
    prefers other pools.
    """
    runtime = {"image": like["spec"]["runtime"]["image"], "languages": ["d"]}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ExecutionPool",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 1, "maxPods": 4, "runtime": runtime, **spec},
    }


def ended(kube: Kube, name: str) -> Object:
    """The session once it has a terminal phase."""

    def look() -> Object | None:
        session = kube.session(name)
        return session if session.get("status", {}).get("phase") in TERMINAL else None

    return eventually(look, f"session {name} ends")


def running(kube: Kube, name: str) -> Object:
    """The session once its status says that it runs."""

    def look() -> Object | None:
        session = kube.session(name)
        phase = session.get("status", {}).get("phase")
        assert phase not in TERMINAL, f"session {name} ended early: {session['status']}"
        return session if phase == "Running" else None

    return eventually(look, f"session {name} runs")


def unassigned(kube: Kube, pool: str) -> list[Object]:
    """Pods of a pool that are warm or getting so."""
    return [pod for pod in kube.pods(pool) if label(pod, "state") == "warm" and not is_going(pod)]


def at_target(kube: Kube, pool: str) -> bool:
    """Whether a pool has exactly its replicas, all ready, and nothing else: no pod in use, none on its way
    out."""
    wanted = int(kube.pool(pool)["spec"]["replicas"])
    pods = kube.pods(pool)
    return len(pods) == wanted and all(
        is_ready(pod) and not is_going(pod) and label(pod, "state") == "warm" for pod in pods
    )


def wait_at_target(kube: Kube, pool: str) -> None:
    """Wait until a pool is full and idle."""
    eventually(lambda: at_target(kube, pool), f"pool {pool} is back at its target")


def wait_condition(kube: Kube, pool: str, kind: str, status: str) -> Object:
    """Wait for a condition of a pool to have a status, and to speak of the pool's current generation."""

    def look() -> Object | None:
        thing = kube.pool(pool)
        found = condition(thing, kind)
        current = found.get("observedGeneration", 0) == thing["metadata"]["generation"]
        assert found.get("status") == status, thing.get("status")
        return found if current else None

    return eventually(look, f"condition {kind} of pool {pool} is {status}")


def put_pool(kube: Kube, manifest: Object) -> None:
    """Create a pool."""
    kube.request("POST", POOLS, manifest)


@contextmanager
def making_pools(kube: Kube, like: str, prefix: str) -> Iterator[Callable[..., str]]:
    """Makes pools by their spec's fields, waits for their pods, and returns their names; takes them away at
    the end. like, prefix: as for pool_manifest and fresh_name."""
    made: list[str] = []

    def make(**spec: Any) -> str:
        name = fresh_name(prefix)
        put_pool(kube, pool_manifest(name, kube.pool(like), **spec))
        made.append(name)
        wait_at_target(kube, name)
        return name

    try:
        yield make
    finally:
        for name in made:
            kube.delete(f"{POOLS}/{name}")


def put_session(kube: Kube, manifest: Object) -> None:
    """Create a session."""
    kube.request("POST", SESSIONS, manifest)

"""The deployed system as the scenarios use it: one pool, one front end, and the moments when both are at
rest."""

import http.client
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from e2e.deployment import PODS, POOLS, Deployment
from e2e.frontend import Answer, FrontEnd, exchange, exec_body
from e2e.kube import MERGE_PATCH, Kube, Object, is_going, is_ready, label
from e2e.pools import wait_at_target

IDLE_SECONDS = 1.0
PATH = "/v1/exec"


@dataclass(frozen=True)
class Run:
    """One answered call. `asked` and `answered` are wall clock (seconds since 1970), `seconds` is from a
    steady clock."""

    asked: float
    answered: float
    seconds: float
    answer: Answer


class System:
    """What a scenario needs to know of the system it measures."""

    def __init__(self, deployment: Deployment) -> None:
        self.kube = Kube(deployment)
        self.front_end = FrontEnd(deployment.endpoint, deployment.api_key)
        first = self.front_end.exec("print(1)")
        if first.status != 200:
            raise RuntimeError(f"the front end does not answer: {first.status} {first.body[:200]!r}")
        self.pool = str(self.kube.session(first.session)["spec"]["request"]["poolRef"]["name"])

    def rest(self) -> None:
        """Wait until the pool has all its warm pods and no other, then do nothing for a second."""
        wait_at_target(self.kube, self.pool)
        time.sleep(IDLE_SECONDS)

    def replicas(self) -> int:
        """Warm pods the pool is told to have."""
        return int(self.kube.pool(self.pool)["spec"]["replicas"])

    @contextmanager
    def changed(self, spec: Object) -> Iterator[None]:
        """The pool with other spec fields for a while."""
        path = f"{POOLS}/{self.pool}"
        before = self.kube.request("GET", path)["spec"]
        self.kube.request("PATCH", path, {"spec": spec}, MERGE_PATCH)
        try:
            yield
        finally:
            undo = {name: before.get(name) for name in spec}
            self.kube.request("PATCH", path, {"spec": undo}, MERGE_PATCH)
            wait_at_target(self.kube, self.pool)


class Caller:
    """Calls the front end over one kept connection, or over a fresh one for each call."""

    def __init__(self, front_end: FrontEnd, keep: bool = True) -> None:
        self._front_end, self._keep = front_end, keep
        self._connection: http.client.HTTPConnection | None = None
        self.connections = 0

    def call(self, code: str, **fields: Any) -> Run:
        """Run a program; `fields` are added to the body.

        A fresh connection is part of the time it takes; one that is kept is open before.
        """
        body, headers = exec_body(code, **fields), self._front_end.headers()
        connection = self._kept() if self._keep else None
        asked, began = time.time(), time.perf_counter()
        used = connection or self._open()
        answer = exchange(used, "POST", PATH, body, headers)
        seconds, answered = time.perf_counter() - began, time.time()
        if not self._keep or answer.headers.get("connection", "").lower() == "close":
            used.close()
            self._connection = None
        return Run(asked, answered, seconds, answer)

    def close(self) -> None:
        """Close the kept connection."""
        if self._connection is not None:
            self._connection.close()

    def _kept(self) -> http.client.HTTPConnection:
        """The kept connection, opened again if the server has closed it meanwhile."""
        if self._connection is not None and self._connection.sock is not None:
            readable, _, _ = select.select([self._connection.sock], [], [], 0)
            if not readable:
                return self._connection
            self._connection.close()
        self._connection = self._open()
        return self._connection

    def _open(self) -> http.client.HTTPConnection:
        connection = self._front_end.connection()
        connection.connect()
        self.connections += 1
        return connection


def wrong(run: Run, expected: str) -> str | None:
    """What is wrong with an answer, if anything."""
    if run.answer.status != 200:
        return f"status {run.answer.status}: {run.answer.body[:200].decode(errors='replace')}"
    stdout, stderr = run.answer.parsed.get("stdout"), run.answer.parsed.get("stderr")
    return None if stdout == expected else f"stdout {stdout!r:.100}, stderr {stderr!r:.200}"


def ready_uids(pods: list[Object]) -> set[str]:
    """UIDs of the pods that are ready and not on their way out."""
    return {pod["metadata"]["uid"] for pod in pods if is_ready(pod) and not is_going(pod)}


def time_to_replace(kube: Kube, selector: str, begin: Any, patience: float = 120.0) -> float:
    """Seconds from calling `begin`, which takes a ready pod away, until as many others are ready as before
    it.

    The clock runs in this process; the change is seen on a watch. Raises TimeoutError when it does not come.
    """
    listed = kube.request("GET", PODS, labelSelector=selector)
    pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
    before = ready_uids(list(pods.values()))
    began = time.perf_counter()
    begin()
    version = listed["metadata"]["resourceVersion"]
    for kind, pod in kube.watch(PODS, version, int(patience), labelSelector=selector):
        if kind == "BOOKMARK":
            continue
        uid = pod["metadata"]["uid"]
        if kind == "DELETED" or label(pod, "state") not in (None, "warm"):
            pods.pop(uid, None)
        else:
            pods[uid] = pod
        ready = ready_uids(list(pods.values()))
        if len(ready) >= len(before) and ready - before:
            return time.perf_counter() - began
    raise TimeoutError(f"no replacement was ready within {patience:.0f} s")

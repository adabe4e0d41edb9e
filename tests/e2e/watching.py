"""Feeds the invariants from the cluster: one thread per kind, list and watch, for as long as the tests
run."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import urllib3

from e2e.deployment import PODS, POOLS, SESSIONS
from e2e.invariants import Invariants
from e2e.kube import Kube, KubeError

WATCH_SECONDS = 60
BLIND_SECONDS = 90.0
"""Without an answer for so long the watcher has a gap in which anything may have happened, and says so."""
SETTLE_SECONDS = 75.0
"""At the end: how long to wait for pods whose owner has ended. Longer than what I4 allows, so that it can be
judged."""
Handler = Callable[[dict[str, Any], bool, float], None]


class SeenTime:
    """A clock that stands still while the cluster cannot be seen: without an API server nobody can keep a
    promise about time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._missed = 0.0
        self._stopped_at: float | None = None

    def now(self) -> float:
        """Seconds."""
        return (self._clock() if self._stopped_at is None else self._stopped_at) - self._missed

    def stop(self) -> None:
        """From now on; again is fine."""
        if self._stopped_at is None:
            self._stopped_at = self._clock()

    def go_on(self) -> None:
        """Where it stood; again is fine."""
        if self._stopped_at is not None:
            self._missed += self._clock() - self._stopped_at
            self._stopped_at = None


class InvariantWatcher:
    """Watches pods, sessions and pools of the execution namespace in the background."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._invariants = Invariants()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._blind: list[str] = []
        self._clock = SeenTime()
        self._broken: set[str] = set()
        """Kinds that cannot be seen right now."""
        # Pools first: a pod is judged by the pool and the session it belongs to.
        kinds = (
            (POOLS, self._invariants.pool),
            (SESSIONS, self._invariants.session),
            (PODS, self._invariants.pod),
        )
        self._known: dict[str, dict[str, dict[str, Any]]] = {path: {} for path, _ in kinds}
        self._kinds: tuple[tuple[str, Handler], ...] = kinds

    def start(self) -> None:
        """Take the present state as it is and follow every change from here on. Raises KubeError without a
        cluster."""
        for path, handler in self._kinds:
            version = self._list(path, handler)
            threading.Thread(target=self._follow, args=(path, handler, version), daemon=True).start()
        threading.Thread(target=self._tick, daemon=True).start()

    def finish(self, settle: float = SETTLE_SECONDS) -> list[str]:
        """Wait until pods of ended owners are gone (or late), stop, and return every broken promise.

        settle: seconds to wait at most.
        """
        deadline = time.monotonic() + settle
        while time.monotonic() < deadline and self._busy():
            time.sleep(1.0)
        self._stopped.set()
        with self._lock:
            self._invariants.tick(self._clock.now())
            self._invariants.finish()
            return [*self._invariants.broken, *self._blind]

    @property
    def seen(self) -> tuple[int, int]:
        """How many sessions and how many assigned pods have been seen so far."""
        with self._lock:
            return self._invariants.seen

    def _busy(self) -> bool:
        with self._lock:
            return self._invariants.busy()

    def _tick(self) -> None:
        while not self._stopped.wait(1.0):
            with self._lock:
                self._invariants.tick(self._clock.now())

    def _list(self, path: str, handler: Handler) -> str:
        listed = self._kube.request("GET", path)
        present = {item["metadata"]["uid"]: item for item in listed["items"]}
        for uid, item in list(self._known[path].items()):
            if uid not in present:
                self._feed(path, handler, item, deleted=True)
        for item in present.values():
            self._feed(path, handler, item, deleted=False)
        return str(listed["metadata"]["resourceVersion"])

    def _feed(self, path: str, handler: Handler, thing: dict[str, Any], deleted: bool) -> None:
        uid = thing["metadata"]["uid"]
        if deleted:
            self._known[path].pop(uid, None)
        else:
            self._known[path][uid] = thing
        with self._lock:
            handler(thing, deleted, self._clock.now())

    def _follow(self, path: str, handler: Handler, version: str) -> None:
        """Watch until stopped. A watch that ends is continued; one that fails starts again from a list."""
        last_answer, failed = time.monotonic(), False
        while not self._stopped.is_set():
            try:
                if failed:
                    version, failed = self._list(path, handler), False
                    self._sees(path)
                    last_answer = time.monotonic()
                for kind, thing in self._kube.watch(path, version, WATCH_SECONDS):
                    version = thing["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        self._feed(path, handler, thing, deleted=kind == "DELETED")
                last_answer = time.monotonic()
            except (KubeError, urllib3.exceptions.HTTPError, OSError, json.JSONDecodeError) as failure:
                failed = True
                self._misses(path)
                if time.monotonic() - last_answer > BLIND_SECONDS + WATCH_SECONDS:
                    self._blind.append(f"the watcher of {path} could not see the cluster: {failure}")
                    return
                self._stopped.wait(0.5)

    def _misses(self, path: str) -> None:
        """A kind cannot be seen any more."""
        with self._lock:
            self._broken.add(path)
            self._clock.stop()

    def _sees(self, path: str) -> None:
        """A kind can be seen again, as it is now: what came in between, and in which order, nobody knows."""
        with self._lock:
            self._broken.discard(path)
            if not self._broken:
                self._clock.go_on()
                self._invariants.skip()

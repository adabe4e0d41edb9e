"""What must hold at every moment of a cluster's life, checked over the stream of changes of pods, sessions
and pools.

Plain data in, sentences out: no clock, no client. The caller passes each change with the time it was seen
(seconds of any steady clock) and calls `tick` about once a second for the promises that are about time.

I1 a pod serves one owner for life; if that is a workspace, one run of it at a time. I2 a session never
names two pods unless `status.attempts` rose. I3 no
pod is created beyond the pool's target (replicas and waiting sessions) or its maxPods. I4 no pod outlives
its owner by 60 s. I5 observedGeneration never exceeds the generation and never falls. I6 a terminal phase
never changes. I7 every terminal session has a reason and a finish time.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Object = dict[str, Any]
TERMINAL = frozenset({"Succeeded", "Failed", "TimedOut", "Cancelled", "Held"})
OUTLIVES_BY = 60.0
"""I4: seconds a pod may be there after its owner has ended."""
LOOK_BACK, LOOK_AHEAD = 10.0, 3.0
"""I3: three streams arrive in no common order, so a pod that was created is compared with the largest target
between so many seconds before and after its arrival."""
LATER_STATES = {"warm": {"warm", "assigned", "retiring"}, "assigned": {"assigned"}, "retiring": {"retiring"}}


@dataclass
class Pod:
    """One pod, by its UID, as far as it was seen."""

    name: str
    pool_uid: str | None
    seen_at: float
    state: str | None = None
    session_uid: str | None = None
    assigned_at: float | None = None
    going: bool = False


@dataclass
class Session:
    """One session, by its UID."""

    name: str
    pool: str | None
    phase: str | None = None
    attempts: int = 0
    pod_uid: str | None = None
    ended_at: float | None = None
    observed: int = 0


@dataclass
class Pool:
    """One pool, by its UID, with its recent targets as (time, unassigned pods wanted, pods allowed in
    all)."""

    name: str
    replicas: int
    max_pods: int
    deleted_at: float | None = None
    observed: int = 0
    targets: deque[tuple[float, int, int]] = field(default_factory=deque)


@dataclass(frozen=True)
class Creation:
    """A pod that appeared, with the counts of its pool at that moment."""

    at: float
    pool_uid: str
    pod: str
    unassigned: int
    total: int


class Invariants:
    """Collects broken promises in `broken`; each is told once."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._pods: dict[str, Pod] = {}
        self._sessions: dict[str, Session] = {}
        self._pools: dict[str, Pool] = {}
        self._pods_of: dict[str, set[str]] = defaultdict(set)
        self._users_of: dict[str, set[str]] = defaultdict(set)
        self._served_by: dict[str, set[str]] = defaultdict(set)
        self._turns: dict[str, dict[str, tuple[str, str, str]]] = defaultdict(dict)
        """By workspace and run: when the run's program started and ended, and its name."""
        self._creations: list[Creation] = []
        self._told: set[str] = set()

    @property
    def seen(self) -> tuple[int, int]:
        """How many sessions and how many assigned pods were seen: a watcher that saw none has proved
        nothing."""
        return len(self._sessions), len(set(self._users_of).union(*self._pods_of.values()))

    def busy(self) -> bool:
        """Whether a pod is there whose owner has ended, so that waiting for its end makes sense."""
        return any(self._owner_ended(uid, pod) is not None for uid, pod in self._pods.items())

    def pod(self, thing: Object, deleted: bool, now: float) -> None:
        """A pod of a pool appeared, changed or went."""
        uid, labels = thing["metadata"]["uid"], ours(thing)
        if "pool" not in labels:
            return
        if deleted:
            self._pods.pop(uid, None)
            return
        new = uid not in self._pods
        pod = self._pods.setdefault(uid, Pod(thing["metadata"]["name"], labels.get("pool-uid"), now))
        pod.going = "deletionTimestamp" in thing["metadata"]
        self._one_owner(uid, pod, labels, now)
        if new:
            self._created(pod, now)
        self._record_targets(now)

    def session(self, thing: Object, deleted: bool, now: float) -> None:
        """A session appeared, changed or went."""
        uid, status = thing["metadata"]["uid"], thing.get("status") or {}
        request = thing.get("spec", {}).get("request", {})
        name = thing["metadata"]["name"]
        # A run in a workspace waits for its turn, not for a pod of the pool.
        pool = None if "workspaceRef" in request else request.get("poolRef", {}).get("name")
        session = self._sessions.setdefault(uid, Session(name, pool))
        self._one_pod(uid, session, status)
        self._note_turn(uid, session, status)
        self._one_end(session, status)
        session.observed = self._generations(f"session {name}", thing, session.observed)
        session.phase = status.get("phase") or session.phase
        if session.ended_at is None and (deleted or session.phase in TERMINAL):
            session.ended_at = now
        self._record_targets(now)

    def pool(self, thing: Object, deleted: bool, now: float) -> None:
        """A pool appeared, changed or went."""
        uid, spec = thing["metadata"]["uid"], thing["spec"]
        replicas, limit = int(spec.get("replicas", 2)), int(spec.get("maxPods", 50))
        pool = self._pools.setdefault(uid, Pool(thing["metadata"]["name"], replicas, limit))
        pool.replicas, pool.max_pods = replicas, limit
        pool.observed = self._generations(f"pool {pool.name}", thing, pool.observed)
        if pool.deleted_at is None and (deleted or "deletionTimestamp" in thing["metadata"]):
            pool.deleted_at = now
        self._record_targets(now)

    def tick(self, now: float) -> None:
        """Check what is about time: I3 for the pods that appeared a while ago, I4 for all."""
        self._record_targets(now)
        due = [creation for creation in self._creations if creation.at + LOOK_AHEAD <= now]
        self._creations = [creation for creation in self._creations if creation.at + LOOK_AHEAD > now]
        for creation in due:
            self._within_target(creation)
        for uid, pod in self._pods.items():
            ended = self._owner_ended(uid, pod)
            if ended is not None and now - ended > OUTLIVES_BY:
                self._tell(
                    f"I4: pod {pod.name} ({pod.state}) outlives its owner by more than {OUTLIVES_BY:.0f} s"
                )

    def finish(self) -> None:
        """Check what needs the whole history."""
        for uid, pods in self._pods_of.items():
            session = self._sessions.get(uid)
            if session and len(pods) > max(1, session.attempts):
                self._tell(
                    f"I2: session {session.name} was given {len(pods)} pods in {session.attempts} attempts"
                )

        for workspace, turns in self._turns.items():
            times = sorted(turns.values())
            for before, after in pairwise(times):
                if after[0] < before[1]:
                    both = f"{before[2]} and {after[2]}"
                    self._tell(f"I1: {both} ran at the same time in workspace {workspace}")

    def _note_turn(self, uid: str, session: Session, status: Object) -> None:
        workspace, timings = (status.get("workspaceRun") or {}).get("uid"), status.get("timings") or {}
        if workspace and timings.get("started") and timings.get("finished"):
            self._turns[workspace][uid] = (timings["started"], timings["finished"], session.name)

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self.broken.append(sentence)

    def _one_owner(self, uid: str, pod: Pod, labels: dict[str, str], now: float) -> None:
        state, owner = labels.get("state"), labels.get("session-uid")
        if pod.state is not None and state not in LATER_STATES.get(pod.state, {state}):
            self._tell(f"I1: pod {pod.name} went from {pod.state} to {state}")
        if pod.session_uid is not None and owner != pod.session_uid:
            self._tell(f"I1: pod {pod.name} changed its owner from session {pod.session_uid} to {owner}")
        if owner and pod.assigned_at is None:
            pod.assigned_at = now
            self._pods_of[owner].add(uid)
        pod.state, pod.session_uid = state, owner or pod.session_uid

    def _one_pod(self, uid: str, session: Session, status: Object) -> None:
        attempts, pod_uid = int(status.get("attempts") or 0), (status.get("pod") or {}).get("uid")
        if pod_uid and session.pod_uid and pod_uid != session.pod_uid and attempts <= session.attempts:
            self._tell(f"I2: session {session.name} names a second pod in attempt {attempts}")
        if pod_uid:
            owner = (status.get("workspaceRun") or {}).get("uid") or uid
            self._users_of[pod_uid].add(owner)
            # For an attempt, a status may name a pod that another session has: its sidecar decides.
            if (status.get("timings") or {}).get("started"):
                self._served_by[pod_uid].add(owner)
            if len(self._served_by[pod_uid]) > 1:
                self._tell(f"I1: pod {pod_uid} has run programs of {len(self._served_by[pod_uid])} owners")
            session.pod_uid = pod_uid
        session.attempts = max(attempts, session.attempts)

    def _one_end(self, session: Session, status: Object) -> None:
        phase = status.get("phase")
        if session.phase in TERMINAL and phase != session.phase:
            self._tell(f"I6: session {session.name} went from {session.phase} to {phase}")
        if phase in TERMINAL:
            timings = status.get("timings") or {}
            if not status.get("reason"):
                self._tell(f"I7: session {session.name} is {phase} without a reason")
            if not (timings.get("completed") or timings.get("finished")):
                self._tell(f"I7: session {session.name} is {phase} without a finish time")

    def _generations(self, name: str, thing: Object, before: int) -> int:
        status, generation = thing.get("status") or {}, int(thing["metadata"].get("generation", 0))
        observed = int(status.get("observedGeneration") or 0)
        of_conditions = [int(c.get("observedGeneration") or 0) for c in status.get("conditions") or []]
        if max([observed, *of_conditions]) > generation:
            self._tell(f"I5: {name} has observed a generation beyond its own ({generation})")
        if observed < before:
            self._tell(f"I5: the observed generation of {name} fell from {before} to {observed}")
        return max(observed, before)

    def _created(self, pod: Pod, now: float) -> None:
        if pod.pool_uid is None:
            self._tell(f"I4: pod {pod.name} carries no pool UID")
            return
        there = {uid: other for uid, other in self._pods.items() if other.pool_uid == pod.pool_uid}
        # A pod belongs to a session as soon as the session's status names it; its label may never say so.
        unassigned = sum(
            other.state == "warm" and not other.going and not self._users_of.get(uid)
            for uid, other in there.items()
        )
        self._creations.append(Creation(now, pod.pool_uid, pod.name, unassigned, len(there)))

    def _within_target(self, creation: Creation) -> None:
        pool = self._pools.get(creation.pool_uid)
        if pool is None:
            self._tell(f"I4: pod {creation.pod} belongs to a pool that was never seen")
            return
        first, last = creation.at - LOOK_BACK, creation.at + LOOK_AHEAD
        in_force = max((t[0] for t in pool.targets if t[0] <= first), default=first)
        targets = [target for target in pool.targets if in_force <= target[0] <= last]
        wanted, allowed = max((t[1] for t in targets), default=0), max((t[2] for t in targets), default=0)
        if creation.unassigned > wanted:
            self._tell(
                f"I3: pool {pool.name} had {creation.unassigned} unassigned pods, wanted at most {wanted}"
            )
        if creation.total > allowed:
            self._tell(f"I3: pool {pool.name} had {creation.total} pods, maxPods is {allowed}")

    def _record_targets(self, now: float) -> None:
        taken = {pod.session_uid for pod in self._pods.values() if pod.session_uid}
        taken |= {uid for uid, session in self._sessions.items() if session.pod_uid}
        waiting: dict[str | None, int] = defaultdict(int)
        for uid, session in self._sessions.items():
            if session.ended_at is None and uid not in taken:
                waiting[session.pool] += 1
        needed = min([now, *(creation.at for creation in self._creations)]) - LOOK_BACK
        for pool in self._pools.values():
            replicas = 0 if pool.deleted_at is not None else pool.replicas
            target = (now, replicas + waiting[pool.name], pool.max_pods)
            if pool.targets and pool.targets[-1][1:] == target[1:] and now - pool.targets[-1][0] < 1.0:
                continue
            pool.targets.append(target)
            while len(pool.targets) > 1 and pool.targets[1][0] < needed:
                pool.targets.popleft()

    def _owner_ended(self, uid: str, pod: Pod) -> float | None:
        """When the owner of a pod ended, or None while it lives. An owner nobody ever saw ended when the pod
        was seen."""
        named_by = [self._sessions.get(user) for user in self._users_of.get(uid, ())]
        if pod.session_uid is None and named_by:
            # A workspace may be named by its run before it has been seen itself.
            ends = [session.ended_at for session in named_by if session and session.ended_at is not None]
            return max(ends) if len(ends) == len(named_by) else None
        if pod.session_uid is not None:
            session = self._sessions.get(pod.session_uid)
            return session.ended_at if session else pod.assigned_at
        pool = self._pools.get(pod.pool_uid or "")
        return pool.deleted_at if pool else pod.seen_at


def ours(thing: Object) -> dict[str, str]:
    """The labels under our prefix, without it."""
    prefix = "kubecoderun.io/"
    labels = thing["metadata"].get("labels") or {}
    return {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)}

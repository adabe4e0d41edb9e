"""Allocator and sizing against random histories: late, repeated and reordered events, lost answers,
crashes.

The machine plays a cluster (`Truth`), the watch between it and the operator, and the operator's thin
layer. The truth enforces nothing but what an API server does with the status of a session (a pod is
replaced only by a further attempt, and the epoch never falls) and what a sidecar does: the first session has
it.
"""

import itertools
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from kubecoderun_crds.names import PodState
from kubecoderun_operator.allocator import Allocator, Standing
from kubecoderun_operator.members import Member, Trouble
from kubecoderun_operator.sizing import Brake, Expectations, Target, plan, wanted

GRACE = 120.0
EXPECTATION = 30.0


@dataclass(frozen=True)
class Note:
    """What a session's status says about its pod."""

    pod: str
    attempts: int
    epoch: int


@dataclass
class Truth:
    """The pods as the API server has them, every view of them there ever was, what the statuses of sessions
    say, whom the sidecars belong to, and in which pods a session's program was started."""

    pods: dict[str, Member] = field(default_factory=dict)
    views: list[tuple[Member, bool]] = field(default_factory=list)
    notes: dict[str, Note] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    started: dict[str, set[str]] = field(default_factory=dict)
    version: int = 0

    def write(self, session: str, note: Note) -> bool:
        """The status of the session, by the rules of its kind; False if it is refused."""
        before = self.notes.get(session, Note("", 0, 0))
        another = before.pod not in ("", note.pod) and note.attempts <= before.attempts
        if another or note.epoch < before.epoch or note.attempts < before.attempts:
            return False
        self.notes[session] = note
        return True

    def put(self, pod: Member) -> Member:
        self.version += 1
        pod = replace(pod, version=self.version)
        self.pods[pod.uid] = pod
        self.views.append((pod, False))
        return pod

    def remove(self, uid: str) -> None:
        self.version += 1
        pod = self.pods.pop(uid)
        self.views.append((replace(pod, version=self.version), True))

    def unassigned(self) -> list[Member]:
        named = {note.pod for note in self.notes.values()}
        return [
            pod
            for pod in self.pods.values()
            if pod.state == PodState.WARM and not pod.deleting and pod.uid not in named
        ]


class Histories(RuleBasedStateMachine):
    """Each rule is one thing that can happen; each invariant must hold after all of them."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.numbers = itertools.count(1)
        self.truth = Truth()
        self.target = Target(replicas=3, max_pods=8, revision="r1", max_unavailable=1)
        self.epoch = 0
        self.bound: dict[str, str] = {}
        """Pod by session, once its program was started there."""
        self.alive: set[str] = set()
        """Sessions that are not over."""
        self.excess = 0
        """Pods made because an expectation expired although its pod existed."""
        self.in_flight: list[tuple[str, Note]] = []
        """Statuses (of a session) that a process had sent when it was killed; they may still land."""
        self.deletions: list[str] = []
        """Requests to delete pods that are on their way; until they land, the pods look as before."""
        self.start_process()

    @initialize(replicas=st.integers(1, 3), max_pods=st.sampled_from([1, 2, 8]))
    def pool_is_made(self, replicas: int, max_pods: int) -> None:
        """Small ones are where sessions wait."""
        self.target = replace(self.target, replicas=replicas, max_pods=max_pods)

    def start_process(self) -> None:
        self.epoch += 1
        self.allocator = Allocator()
        self.allocator.revision = self.target.revision
        self.expected = Expectations(EXPECTATION)
        self.brake = Brake(1.0, 300.0)
        self.reserved: dict[str, str] = {}
        self.handed_out: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.newest: dict[str, int] = {}
        self.unseen: set[str] = set()
        """Names of pods that exist, but whose creation this process has not been told of."""

    # --- the operator's thin layer ------------------------------------------------------------------

    def hand_out(self, session: str, pod: Member) -> None:
        assert session not in self.reserved
        assert session not in self.bound
        if not self.named(session, pod.uid):
            assert pod.uid not in self.handed_out, "a pod was handed out twice"
            assert pod.uid not in self.bound.values(), "a pod that is in use was handed out"
            assert pod.usable
        self.handed_out.add(pod.uid)
        self.reserved[session] = pod.uid

    def named(self, session: str, uid: str) -> bool:
        note = self.truth.notes.get(session)
        return note is not None and note.pod == uid

    def serve_queue(self) -> None:
        for session, pod in self.allocator.grants():
            self.hand_out(session, pod)

    def claim(self, session: str, *, first: bool = False) -> None:
        pod = self.allocator.claim(session, self.now + 60, first=first)
        if pod is not None:
            self.hand_out(session, pod)

    def observe(self, pod: Member, gone: bool) -> None:
        if gone:
            self.allocator.forget(pod.uid, self.now)
        else:
            self.expected.settle(pod.name)
            self.unseen.discard(pod.name)
            self.allocator.observe(pod)
        self.serve_queue()

    def has_failed(self, pod: Member) -> bool:
        return pod.failed(self.now, GRACE)

    # --- sessions -----------------------------------------------------------------------------------

    @rule(target=sessions)
    def session_arrives(self) -> str:
        session = f"s{next(self.numbers)}"
        self.alive.add(session)
        self.claim(session)
        return session

    @rule(session=sessions)
    def session_arrives_again(self, session: str) -> None:
        """A repeated event, or one after a relist."""
        if session in self.alive and session not in self.bound and session not in self.reserved:
            self.claim(session)

    @precondition(lambda self: self.reserved)
    @rule(choice=st.integers(0, 99), refuses=st.booleans())
    def pod_is_bound(self, choice: int, refuses: bool) -> None:
        """The status names the pod, and its sidecar takes the session, or not: refuses is trouble of its
        own."""
        session = sorted(self.reserved)[choice % len(self.reserved)]
        uid = self.reserved.pop(session)
        before = self.truth.notes.get(session, Note("", 0, 0))
        attempts = self.attempts.get(session, 0) + (before.pod != uid)
        if not self.truth.write(session, Note(uid, attempts, self.epoch)):
            self.give_up(uid)
            self.resume(session)
            return
        self.attempts[session] = attempts
        self.allocator.assigned(session)
        pod = self.truth.pods.get(uid)
        if pod is None or pod.deleting or refuses:
            self.give_up(uid)
            self.claim(session, first=True)
        elif (owner := self.truth.locks.setdefault(uid, session)) != session:
            self.allocator.hand_over(uid, owner)
            self.claim(session, first=True)
        else:
            self.start(session, uid)

    def start(self, session: str, uid: str) -> None:
        self.truth.started.setdefault(session, set()).add(uid)
        self.bound[session] = uid

    def give_up(self, uid: str) -> None:
        self.allocator.spend(uid)
        self.deletions.append(uid)

    def resume(self, session: str) -> None:
        """What `recovery` decides about a session whose status names a pod."""
        note = self.truth.notes[session]
        self.attempts[session] = note.attempts
        self.allocator.take(note.pod, session)
        seat = self.allocator.seat(note.pod)
        pod = self.truth.pods.get(note.pod)
        if pod is None or seat is None or seat.standing is Standing.SPENT:
            self.alive.discard(session)
            self.allocator.withdraw(session)
        elif (owner := self.truth.locks.get(note.pod)) is not None and owner != session:
            self.allocator.hand_over(note.pod, owner)
            self.claim(session)
        else:
            self.truth.locks[note.pod] = session
            self.allocator.withdraw(session)
            self.start(session, note.pod)

    @precondition(lambda self: self.bound)
    @rule(choice=st.integers(0, 99))
    def label_is_set(self, choice: int) -> None:
        """The run takes a while: the patch of the pod succeeds if the pod is there and still warm."""
        session = sorted(self.bound)[choice % len(self.bound)]
        pod = self.truth.pods.get(self.bound[session])
        if pod is not None and pod.state == PodState.WARM and not pod.deleting:
            self.truth.put(replace(pod, state=PodState.ASSIGNED, session_uid=session))

    @rule(session=consumes(sessions))
    def session_ends(self, session: str) -> None:
        """It is done, or was deleted, wherever it is."""
        self.alive.discard(session)
        self.allocator.withdraw(session)
        for uid, owner in self.truth.locks.items():
            if owner == session and uid in self.truth.pods and self.allocator.seat(uid) is not None:
                self.give_up(uid)  # the sweeper finds a pod whose session is over
        uid = self.bound.pop(session, None) or self.reserved.pop(session, None)
        if uid is not None:
            self.allocator.spend(uid)
            pod = self.truth.pods.get(uid)
            if pod is not None:
                self.truth.put(replace(pod, deleting=True))
        else:
            self.allocator.release(session)

    @rule()
    def waits_end(self) -> None:
        self.now += 61
        for session in self.allocator.overdue(self.now):
            self.alive.discard(session)

    @precondition(lambda self: self.deletions)
    @rule(choice=st.integers(0, 99), at_once=st.booleans())
    def deletion_lands(self, choice: int, at_once: bool) -> None:
        """At once: as for a pod that no node had yet. Otherwise it is there until the node has ended it."""
        uid = self.deletions.pop(choice % len(self.deletions))
        pod = self.truth.pods.get(uid)
        if pod is not None and at_once:
            self.truth.remove(uid)
        elif pod is not None and not pod.deleting:
            self.truth.put(replace(pod, deleting=True))

    # --- the node ------------------------------------------------------------------------------------

    def some_pod(self, choice: int) -> Member | None:
        pods = sorted(self.truth.pods.values(), key=lambda pod: pod.name)
        return pods[choice % len(pods)] if pods else None

    @rule(choice=st.integers(0, 99))
    def pod_becomes_ready(self, choice: int) -> None:
        pod = self.some_pod(choice)
        if pod is not None and not pod.ended and not pod.deleting:
            self.truth.put(replace(pod, ready=True, ip="10.0.0.1", node="n", ready_since=self.now))

    @rule(choice=st.integers(0, 99))
    def pod_fails(self, choice: int) -> None:
        pod = self.some_pod(choice)
        if pod is not None:
            self.truth.put(replace(pod, ready=False, trouble=Trouble.ENDED))

    @rule(choice=st.integers(0, 99))
    def pod_vanishes(self, choice: int) -> None:
        pod = self.some_pod(choice)
        if pod is not None:
            self.truth.remove(pod.uid)

    # --- the watch -----------------------------------------------------------------------------------

    @precondition(lambda self: self.truth.views)
    @rule(back=st.integers(0, 30))
    def event_arrives(self, back: int) -> None:
        """Any view there ever was, in any order and as often as it likes."""
        self.observe(*self.truth.views[-1 - back % len(self.truth.views)])

    @rule()
    def all_events_arrive(self) -> None:
        for pod, gone in self.truth.views[-40:]:
            self.observe(pod, gone)

    @rule()
    def list_arrives(self) -> None:
        """A full list, as after a gap: it shows what is there, and what is missing is gone."""
        known = {pod.uid for pod in self.allocator.members()}
        for pod in list(self.truth.pods.values()):
            self.observe(pod, False)
        for uid in known - set(self.truth.pods):
            self.allocator.forget(uid, self.now)

    # --- sizing --------------------------------------------------------------------------------------

    @rule(
        outcome=st.sampled_from(["created", "created", "created", "answer lost", "request lost", "refused"])
    )
    def pool_is_looked_at(self, outcome: str) -> None:
        late = self.expected.expire(self.now)
        self.excess += sum(1 for name in late if name in self.unseen)
        counts = self.allocator.counts()
        made = plan(self.target, counts, len(self.expected), self.brake, self.has_failed, self.now)
        for victim in made.retire:
            assert self.allocator.seat(victim.uid).standing is Standing.FREE  # type: ignore[union-attr]
            assert self.allocator.retire(victim.uid)
            pod = self.truth.pods.get(victim.uid)
            # The sidecar's lock: a pod that has an owner cannot be retired.
            if pod is not None and victim.uid not in self.truth.locks:
                self.truth.locks[victim.uid] = "retired"
                self.deletions.append(victim.uid)
        counts = self.allocator.counts()
        have = len(counts.free) + counts.reserved + counts.leaving + len(self.expected)
        assert made.create == 0 or have + made.create <= wanted(self.target, counts) + len(made.retire)
        for _ in range(made.create):
            self.create(outcome)
            # Not only in the operator's view: truly no more unassigned pods than wanted.
            assert len(self.truth.unassigned()) <= wanted(self.target, self.allocator.counts()) + self.excess

    def create(self, outcome: str) -> None:
        number = next(self.numbers)
        name, uid = f"p{number}", f"u{number}"
        self.expected.ask(name, self.now)
        if outcome == "refused":
            self.expected.settle(name)
            self.brake.failed(self.now)
        elif outcome != "request lost":
            pod = self.truth.put(
                Member("ns", name, uid, "pool", "pool-uid", self.target.revision, "warm", 0, self.now)
            )
            if outcome == "created":
                self.brake.created()
                self.observe(pod, False)
            else:
                self.unseen.add(name)

    @rule(replicas=st.integers(0, 5))
    def pool_is_scaled(self, replicas: int) -> None:
        self.target = replace(self.target, replicas=replicas)

    @rule(number=st.integers(1, 3))
    def template_changes(self, number: int) -> None:
        self.target = replace(self.target, revision=f"r{number}")
        self.allocator.revision = self.target.revision
        self.brake.reset()

    @rule(seconds=st.sampled_from([0.1, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # --- a crash -------------------------------------------------------------------------------------

    @rule(statuses=st.sampled_from(["not sent", "land at once", "land later"]), backwards=st.booleans())
    def operator_is_killed(self, statuses: str, backwards: bool) -> None:
        """A new process knows what lists show. Sessions whose status names a pod go on there. The list has
        its own order, not that of their arrival."""
        if statuses != "not sent":
            for session, uid in self.reserved.items():
                again = self.named(session, uid)
                note = Note(uid, self.attempts.get(session, 0) + (not again), self.epoch)
                self.in_flight.append((session, note))
                if uid in self.truth.pods:
                    self.truth.locks.setdefault(uid, session)
        self.start_process()
        for pod in list(self.truth.pods.values()):
            self.observe(pod, False)
        alive = sorted(self.alive, reverse=backwards)
        for session in alive:
            if session in self.truth.notes:
                self.allocator.take(self.truth.notes[session].pod, session)
        self.bound.clear()
        for session in alive:
            if session in self.truth.notes:
                self.resume(session)
            else:
                self.claim(session)
        while self.in_flight and statuses == "land at once":
            self.status_of_a_killed_operator_lands(0, True)

    @precondition(lambda self: self.in_flight)
    @rule(choice=st.integers(0, 99), is_seen=st.booleans())
    def status_of_a_killed_operator_lands(self, choice: int, is_seen: bool) -> None:
        """Nobody hears the answer; the watch may show it. Nothing was started."""
        session, note = self.in_flight.pop(choice % len(self.in_flight))
        if session in self.alive and self.truth.write(session, note) and is_seen:
            self.allocator.take(note.pod, session)
            self.serve_queue()

    # --- what must hold ------------------------------------------------------------------------------

    @invariant()
    def one_pod_has_one_owner(self) -> None:
        started = [uid for pods in self.truth.started.values() for uid in pods]
        assert len(set(started)) == len(started)
        assert len(set(self.bound.values())) == len(self.bound)

    @invariant()
    def a_session_is_started_in_one_pod(self) -> None:
        assert all(len(pods) == 1 for pods in self.truth.started.values()), "a program ran twice"

    @invariant()
    def no_pod_too_many(self) -> None:
        """Pods whose creation went unanswered for EXPECTATION seconds are the only ones that may be too
        many."""
        assert len(self.truth.pods) <= self.target.max_pods + self.excess

    @invariant()
    def views_never_go_back(self) -> None:
        for pod in self.allocator.members():
            assert pod.version >= self.newest.get(pod.uid, 0)
            self.newest[pod.uid] = pod.version

    @invariant()
    def no_session_is_forgotten(self) -> None:
        """It has a pod, is being given one, or waits for one."""
        for session in self.alive:
            assert session in self.bound or session in self.reserved or session in self.allocator._queue

    @invariant()
    def queue_and_ready_pods_never_meet(self) -> None:
        assert not (self.allocator.ready_members() and self.allocator.counts().waiting)


Histories.TestCase.settings = settings(
    max_examples=400, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestHistories = Histories.TestCase

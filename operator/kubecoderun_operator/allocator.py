"""Who owns which pod of one pool. Pure: no clock, no I/O; every method that needs the time is given it.

The allocator hears about pods from a watch that may be late, repeat itself or go back in time, and hands
out pods at once, in memory. What keeps a pod from being handed out twice under such views is that a pod's
*standing* only ever rises, and that the uid of a pod that is gone is remembered for a while.

The sidecar's first-wins lock and the rules of the session's status stand behind this; with one operator
neither should ever have to decide.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kubecoderun_crds.names import PodState
from kubecoderun_operator.members import Member

TOMBSTONE_SECONDS: Final = 900.0
"""How long the uid of a pod that is gone is remembered, so that a late event cannot bring it back."""


class Standing(IntEnum):
    """What a pod is for. It only rises, but for a reservation that was given back unused."""

    FREE = 0
    RESERVED = 1
    """Promised to a session; the API server does not know it yet."""
    ASSIGNED = 2
    """Belongs to a session: the status of the session names it, or its label names the session."""
    SPENT = 3
    """Serves nobody any more and is being removed."""


@dataclass(slots=True)
class Seat:
    """A pod and what it is for."""

    member: Member
    standing: Standing
    session: str = ""
    noted: bool = False
    """The API server has noted in a session's status whose it is, whatever the pod's label says."""

    @property
    def leaves(self) -> bool:
        """It serves nobody any more, but still counts as unassigned to everybody else."""
        warm = self.member.state == PodState.WARM and not self.noted and not self.member.deleting
        return self.standing is Standing.SPENT and warm


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session in the queue; deadline on the same clock as the caller's now."""

    session: str
    deadline: float


@dataclass(frozen=True, slots=True)
class Counts:
    """The pods of the pool by standing."""

    free: tuple[Member, ...]
    """Unassigned pods of any readiness that are not being removed, without the reserved ones."""
    reserved: int
    assigned: int
    terminating: int
    waiting: int
    leaving: int = 0
    """Of the terminating pods, those that never had a session and whose deletion has not been seen: to
    everybody but this process they are unassigned pods."""

    @property
    def ready(self) -> int:
        return sum(1 for member in self.free if member.usable)


class Allocator:
    """The pods and the queue of one pool. Sessions are known by uid here."""

    def __init__(self) -> None:
        self.revision = ""
        """Pods of this revision are handed out first."""
        self._seats: dict[str, Seat] = {}
        self._ready: dict[str, None] = {}
        self._by_session: dict[str, str] = {}
        self._labelled: dict[str, set[str]] = {}
        self._queue: OrderedDict[str, Waiting] = OrderedDict()
        self._turned_up: dict[str, None] = {}
        """Sessions in the queue that turned out to have a pod already."""
        self._gone: OrderedDict[str, float] = OrderedDict()

    # --- what the watch says ----------------------------------------------------------------------

    def observe(self, member: Member) -> bool:
        """Take over a view of a pod; a view older than the known one changes nothing. Says if it was news."""
        if member.uid in self._gone:
            return False
        seat = self._seats.get(member.uid)
        if seat is None:
            seat = self._seats[member.uid] = Seat(member, Standing.FREE)
        elif member.version < seat.member.version:
            return False
        seat.member = member
        if member.session_uid:
            self._labelled.setdefault(member.session_uid, set()).add(member.uid)
        if member.state == PodState.ASSIGNED and seat.standing < Standing.ASSIGNED:
            self._own(seat, member.session_uid, Standing.ASSIGNED)
        elif member.state != PodState.WARM and seat.standing < Standing.ASSIGNED:
            seat.standing = Standing.SPENT
        self._sort(seat)
        return True

    def forget(self, uid: str, now: float) -> None:
        """The pod is gone. Its uid stays barred for TOMBSTONE_SECONDS."""
        self._gone[uid] = now
        while self._gone and next(iter(self._gone.values())) < now - TOMBSTONE_SECONDS:
            self._gone.popitem(last=False)
        seat = self._seats.pop(uid, None)
        self._ready.pop(uid, None)
        if seat is None:
            return
        if self._by_session.get(seat.session) == uid:
            del self._by_session[seat.session]
        labelled = self._labelled.get(seat.member.session_uid)
        if labelled is not None:
            labelled.discard(uid)
            if not labelled:
                del self._labelled[seat.member.session_uid]

    # --- sessions ---------------------------------------------------------------------------------

    def claim(self, session: str, deadline: float, *, first: bool = False) -> Member | None:
        """A ready pod for the session, now reserved; or None, and the session is in the queue.

        Sessions that wait already come before a new one. first puts the session at the head of the queue:
        for one whose reserved pod turned out to be unusable. Asking again gives the same answer.
        """
        if session in self._by_session:
            return self._seats[self._by_session[session]].member
        if session not in self._queue:
            self._queue[session] = Waiting(session, deadline)
        if first:
            self._queue.move_to_end(session, last=False)
        if self._ready and next(iter(self._queue)) == session:
            return self._serve(session)
        return None

    def prefer_others(self, node: str) -> None:
        """Give pods of this node away last: one of them could not be reached."""
        for uid in [uid for uid in self._ready if self._seats[uid].member.node == node]:
            del self._ready[uid]
            self._ready[uid] = None

    def grants(self) -> Iterator[tuple[str, Member]]:
        """Pods for waiting sessions: their own that have turned up, then ready ones, now reserved, first come
        first served, until either runs out."""
        while self._turned_up:
            session, _ = self._turned_up.popitem()
            uid = self._by_session.get(session)
            if uid is not None and self._queue.pop(session, None) is not None:
                yield session, self._seats[uid].member
        while self._ready and self._queue:
            session = next(iter(self._queue))
            yield session, self._serve(session)

    def withdraw(self, session: str) -> None:
        """The session no longer waits. A pod it has already been given stays with it."""
        self._queue.pop(session, None)

    def overdue(self, now: float) -> list[str]:
        """Take the sessions out of the queue whose deadline has passed."""
        late = [entry.session for entry in self._queue.values() if entry.deadline <= now]
        for session in late:
            del self._queue[session]
        return late

    def next_deadline(self) -> float | None:
        """The earliest deadline in the queue."""
        return min((entry.deadline for entry in self._queue.values()), default=None)

    # --- pods -------------------------------------------------------------------------------------

    def release(self, session: str) -> None:
        """Give a reservation back. Only for a pod that was not asked anything for this session."""
        uid = self._by_session.get(session)
        if uid is None or self._seats[uid].standing is not Standing.RESERVED:
            return
        del self._by_session[session]
        seat = self._seats[uid]
        seat.standing, seat.session = Standing.FREE, ""
        self._sort(seat)

    def assigned(self, session: str) -> Member | None:
        """The session's status now names the pod reserved for it; that pod."""
        uid = self._by_session.get(session)
        if uid is None:
            return None
        seat = self._seats[uid]
        if seat.standing is Standing.RESERVED:
            seat.standing = Standing.ASSIGNED
            seat.noted = True
        return seat.member

    def take(self, uid: str, session: str) -> None:
        """The status of this unfinished session names the pod, whoever has written that."""
        seat = self._seats.get(uid)
        if seat is None or seat.standing >= Standing.ASSIGNED:
            return
        seat.noted = True
        self._own(seat, session, Standing.ASSIGNED)
        self._sort(seat)

    def hand_over(self, uid: str, session: str) -> None:
        """The pod's sidecar says that it is this session's, not the one's whose status names it."""
        seat = self._seats.get(uid)
        if seat is not None and seat.standing is Standing.ASSIGNED:
            self._own(seat, session, Standing.ASSIGNED)

    def spend(self, uid: str) -> bool:
        """The pod serves nobody from now on: it is done, broken or in other hands. False if it is not
        known."""
        seat = self._seats.get(uid)
        if seat is None:
            return False
        if self._by_session.get(seat.session) == uid:
            del self._by_session[seat.session]
        seat.standing = Standing.SPENT
        self._sort(seat)
        return True

    def retire(self, uid: str) -> bool:
        """Take an unassigned pod out of service so that it can be removed; False if a session has it."""
        seat = self._seats.get(uid)
        return seat is not None and seat.standing is Standing.FREE and self.spend(uid)

    # --- views ------------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """How the pool stands."""
        free: list[Member] = []
        reserved = assigned = terminating = leaving = 0
        for seat in self._seats.values():
            if seat.member.deleting or seat.standing is Standing.SPENT:
                terminating += 1
                leaving += seat.leaves
            elif seat.standing is Standing.FREE:
                free.append(seat.member)
            elif seat.standing is Standing.RESERVED:
                reserved += 1
            else:
                assigned += 1
        return Counts(tuple(free), reserved, assigned, terminating, len(self._queue), leaving)

    def members(self) -> list[Member]:
        """All pods that are not known to be gone."""
        return [seat.member for seat in self._seats.values()]

    def seat(self, uid: str) -> Seat | None:
        """The pod with this uid."""
        return self._seats.get(uid)

    def carriers(self, session: str) -> list[Member]:
        """Pods whose label names this session, unless they serve nobody any more."""
        seats = [self._seats[uid] for uid in self._labelled.get(session, ())]
        return [seat.member for seat in seats if seat.standing is not Standing.SPENT]

    def standing(self, standing: Standing) -> list[Member]:
        """Pods of this standing."""
        return [seat.member for seat in self._seats.values() if seat.standing is standing]

    @property
    def waiting(self) -> int:
        """How many sessions are in the queue."""
        return len(self._queue)

    def ready_members(self) -> list[Member]:
        """Pods that can be handed out now, in the order they became so."""
        return [self._seats[uid].member for uid in self._ready]

    # --- inside -----------------------------------------------------------------------------------

    def _serve(self, session: str) -> Member:
        uid = next(
            (uid for uid in self._ready if self._seats[uid].member.revision == self.revision),
            next(iter(self._ready)),
        )
        seat = self._seats[uid]
        self._own(seat, session, Standing.RESERVED)
        self._sort(seat)
        return seat.member

    def _own(self, seat: Seat, session: str, standing: Standing) -> None:
        if self._by_session.get(seat.session) == seat.member.uid and seat.session != session:
            del self._by_session[seat.session]
        seat.session, seat.standing = session, standing
        if session:
            self._by_session.setdefault(session, seat.member.uid)
        if standing is Standing.RESERVED:
            self._queue.pop(session, None)
        elif session in self._queue:
            # A write of an operator that has ended, or whose answer was lost, has landed. Nobody but the
            # queue knows who waits for this session's pod.
            self._turned_up[session] = None

    def _sort(self, seat: Seat) -> None:
        if seat.standing is Standing.FREE and seat.member.usable:
            self._ready.setdefault(seat.member.uid)
        else:
            self._ready.pop(seat.member.uid, None)

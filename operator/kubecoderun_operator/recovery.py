"""What becomes of an unfinished session that another operator process (or nobody) has worked on. Pure.

It rests on two facts. The session's status names its pod before its program is started in it; so a session
whose status names none never started. And the sidecar of the pod knows whose it is, and whether the program
was started.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kubecoderun_crds.reasons import Phase
from kubecoderun_operator.members import Member
from kubecoderun_operator.orders import Session
from kubecoderun_sidecar.protocol import StateAnswer


@dataclass(frozen=True, slots=True)
class Carrier:
    """A pod that the session's status or the pod's label connects with it, and what its sidecar says; None
    if it cannot be reached."""

    member: Member
    state: StateAnswer | None


class Step(StrEnum):
    RUN = "Run"
    """It never started: run it as if it were new."""
    PREPARE = "Prepare"
    """Its pod has not been given the program: go on there."""
    ATTACH = "Attach"
    """Its pod has it: repeat the start, which attaches to a run that is there."""
    LOST = "Lost"
    """It may have started in a pod that cannot be asked any more."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the session, in which pod, and which pods serve nobody and can go."""

    step: Step
    pod: Member | None = None
    discard: tuple[Member, ...] = ()


def is_fresh(session: Session, carriers: list[Member]) -> bool:
    """Whether nobody can have started the session: no pod carries it, and its status names no run."""
    return not carriers and session.phase in ("", Phase.PENDING, Phase.QUEUED)


def decide(uid: str, phase: str, named_pod: str, carriers: Sequence[Carrier]) -> Decision:
    """uid: of the session. phase, named_pod: its status, the pod by uid. carriers: pods that may have been
    given to it."""
    mine = [carrier for carrier in carriers if _owns(carrier, uid)]
    silent = [carrier for carrier in carriers if carrier.state is None]
    blank = [carrier for carrier in carriers if carrier.state is not None and carrier.state.owner is None]

    if mine:
        # The furthest run is the one that counts; two can only be prepared, never started.
        best = max(mine, key=lambda carrier: (_progress(carrier), carrier.member.uid == named_pod))
        return Decision(Step.ATTACH, best.member, _idle(carriers, uid, best.member))
    if silent:
        lost = next((entry.member for entry in silent if entry.member.uid == named_pod), silent[0].member)
        return Decision(Step.LOST, lost, _idle(carriers, uid, lost))
    if (named_pod or phase == Phase.RUNNING) and all(each.member.uid != named_pod for each in carriers):
        return Decision(Step.LOST, None, _idle(carriers, uid))
    usable = [carrier.member for carrier in blank if not carrier.member.deleting and not carrier.member.ended]
    if usable:
        return Decision(Step.PREPARE, usable[0], _idle(carriers, uid, usable[0]))
    return Decision(Step.RUN, None, _idle(carriers, uid))


def _owns(carrier: Carrier, uid: str) -> bool:
    owner = carrier.state.owner if carrier.state is not None else None
    return owner is not None and owner.kind == "session" and owner.uid == uid


def _progress(carrier: Carrier) -> int:
    run = carrier.state.run if carrier.state is not None else None
    return ("prepared", "running", "finished").index(run) if run is not None else -1


def _idle(carriers: Sequence[Carrier], uid: str, kept: Member | None = None) -> tuple[Member, ...]:
    """Those that can go. A pod whose sidecar says that another session has it is that one's."""
    others = [carrier for carrier in carriers if carrier.member != kept]
    return tuple(carrier.member for carrier in others if not _is_of_another(carrier, uid))


def _is_of_another(carrier: Carrier, uid: str) -> bool:
    return carrier.state is not None and carrier.state.owner is not None and not _owns(carrier, uid)

"""What becomes of an unfinished session that another operator process (or nobody) has worked on. Pure.

It rests on three facts. A pod carries the session's label before the session's program is started in it; so
a session that no pod carries never started, unless its status says so, or that pod is gone by now: then the
API server remembers it for a while. And the sidecar of the pod knows whose it is, and whether the program was
started.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kubecoderun_crds.reasons import Phase
from kubecoderun_operator.members import Member
from kubecoderun_sidecar.protocol import StateAnswer


@dataclass(frozen=True, slots=True)
class Carrier:
    """A pod whose label names the session, and what its sidecar says; None if it cannot be reached."""

    member: Member
    state: StateAnswer | None


class Step(StrEnum):
    RUN = "Run"
    """It never started: run it as if it were new."""
    PREPARE = "Prepare"
    """Its pod is assigned but has not been given the program: go on there."""
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


def is_doubtful(phase: str, created: float, until: float | None, *, carried: bool) -> bool:
    """Whether a session that looks untouched may have been started nevertheless.

    created: when (seconds since 1970). until: how long an earlier leader may have acted, None if that is not
    known. carried: a pod with its label is there.
    """
    untouched = phase in ("", Phase.PENDING, Phase.QUEUED) and not carried
    return untouched and (until is None or created <= until)


def decide(
    uid: str, phase: str, named_pod: str, carriers: Sequence[Carrier], vanished: Member | None = None
) -> Decision:
    """uid: of the session. phase, named_pod: its status, the pod by uid. carriers: pods with its label.
    vanished: a pod that carried it, and is gone."""
    mine = [carrier for carrier in carriers if _owns(carrier, uid)]
    foreign = [carrier for carrier in carriers if _belongs_elsewhere(carrier, uid)]
    silent = [carrier for carrier in carriers if carrier.state is None]
    blank = [carrier for carrier in carriers if carrier.state is not None and carrier.state.owner is None]

    if mine:
        # The furthest run is the one that counts; two can only be prepared, never started.
        best = max(mine, key=lambda carrier: (_progress(carrier), carrier.member.uid == named_pod))
        return Decision(Step.ATTACH, best.member, _others(carriers, best.member))
    if silent:
        lost = next((entry.member for entry in silent if entry.member.uid == named_pod), silent[0].member)
        return Decision(Step.LOST, lost, _others(carriers, lost))
    if vanished is not None and not carriers:
        return Decision(Step.LOST, vanished)
    if phase == Phase.RUNNING:
        return Decision(Step.LOST, None, tuple(carrier.member for carrier in carriers))
    usable = [carrier.member for carrier in blank if not carrier.member.deleting and not carrier.member.ended]
    if usable:
        return Decision(Step.PREPARE, usable[0], _others(carriers, usable[0]))
    return Decision(Step.RUN, None, tuple(carrier.member for carrier in [*foreign, *blank]))


def _owns(carrier: Carrier, uid: str) -> bool:
    owner = carrier.state.owner if carrier.state is not None else None
    return owner is not None and owner.kind == "session" and owner.uid == uid


def _belongs_elsewhere(carrier: Carrier, uid: str) -> bool:
    return carrier.state is not None and carrier.state.owner is not None and not _owns(carrier, uid)


def _progress(carrier: Carrier) -> int:
    run = carrier.state.run if carrier.state is not None else None
    return ("prepared", "running", "finished").index(run) if run is not None else -1


def _others(carriers: Sequence[Carrier], kept: Member) -> tuple[Member, ...]:
    return tuple(carrier.member for carrier in carriers if carrier.member.uid != kept.uid)

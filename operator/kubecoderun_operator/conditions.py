"""The status of a pool: counts, and conditions that say in the cluster's own words what is wrong. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.fields import MESSAGE_MAX_LENGTH
from kubecoderun_crds.names import ConditionStatus, PoolCondition
from kubecoderun_crds.printable import printable
from kubecoderun_crds.reasons import EVENT_MEANINGS, POOL_REASON_MEANINGS, EventReason, PoolReason
from kubecoderun_operator.allocator import Counts
from kubecoderun_operator.members import Member, Trouble
from kubecoderun_operator.sizing import Target, wanted


@dataclass(frozen=True, slots=True)
class Verdict:
    """The API server's answer about the current pod template; accepted is None while it has not answered."""

    accepted: bool | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Setback:
    """What last went wrong when pods were made; it stands until a pod becomes ready."""

    reason: PoolReason
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the status of a pool is made from."""

    pool: str
    generation: int
    target: Target
    counts: Counts
    verdict: Verdict
    setback: Setback | None = None
    paced: bool = False
    """More pods are wanted than may be begun now."""


_Finding = tuple[ConditionStatus, PoolReason, str]
_TROUBLE_REASONS: Final = {
    Trouble.IMAGE: PoolReason.IMAGE_PULL_FAILED,
    Trouble.CONTAINER: PoolReason.PODS_FAILING,
    Trouble.ENDED: PoolReason.PODS_FAILING,
    Trouble.UNSCHEDULABLE: PoolReason.UNSCHEDULABLE,
}
_GRAVITY: Final = (Trouble.IMAGE, Trouble.CONTAINER, Trouble.ENDED, Trouble.UNSCHEDULABLE)


def status(facts: Facts, before: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The status to write; before is the status as it stands, now an RFC 3339 time for conditions that
    change."""
    counts = facts.counts
    findings = {
        PoolCondition.TEMPLATE_ACCEPTED: _template_accepted(facts),
        PoolCondition.AVAILABLE: _available(facts),
        PoolCondition.PROGRESSING: _progressing(facts),
        PoolCondition.STARVED: _starved(facts),
    }
    return {
        "observedGeneration": facts.generation,
        "replicas": len(counts.free) + counts.reserved,
        "readyReplicas": counts.ready + counts.reserved,
        "updatedReplicas": sum(1 for member in counts.free if member.revision == facts.target.revision),
        "assignedReplicas": counts.assigned,
        "terminatingReplicas": counts.terminating,
        "waitingSessions": counts.waiting,
        "revision": facts.target.revision,
        "selector": f"{names.LABEL_POOL}={facts.pool},{names.LABEL_STATE}={names.PodState.WARM}",
        "conditions": _conditions(findings, facts.generation, before.get("conditions") or (), now),
    }


def urgent(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether people or programs wait for this change, so that it is written at once.

    Everything else can wait for the next regular write: while sessions come and go, `Available` and
    `Starved` may change back within a second.
    """
    if before.get("observedGeneration") != after["observedGeneration"]:
        return True
    old = {entry["type"]: entry for entry in before.get("conditions") or ()}
    for entry in after["conditions"]:
        was = old.get(entry["type"], {}).get("status")
        if was == entry["status"]:
            continue
        if entry["type"] == PoolCondition.AVAILABLE and entry["status"] == ConditionStatus.TRUE:
            return True
        if entry["type"] in (PoolCondition.TEMPLATE_ACCEPTED, PoolCondition.PROGRESSING):
            return True
        if entry["type"] == PoolCondition.STARVED and entry["reason"] in _BLOCKS:
            return True
    return False


def announcements(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[EventReason, str]]:
    """What the change of a pool's status is worth telling people, with the message of each."""
    found = []
    was, now = _condition(before, PoolCondition.PROGRESSING), _condition(after, PoolCondition.PROGRESSING)
    blocked, is_blocked = (entry.get("status") == ConditionStatus.FALSE for entry in (was, now))
    if is_blocked and (not blocked or was["reason"] != now["reason"]):
        found.append((EventReason(now["reason"]), now["message"]))
    elif blocked and not is_blocked:
        found.append((EventReason.RECOVERED, ""))
    was, now = _condition(before, PoolCondition.STARVED), _condition(after, PoolCondition.STARVED)
    if now.get("reason") == PoolReason.AT_MAX_PODS != was.get("reason"):
        found.append((EventReason.AT_MAX_PODS, EVENT_MEANINGS[EventReason.AT_MAX_PODS]))
    return found


def _condition(status: Mapping[str, Any], kind: PoolCondition) -> Mapping[str, Any]:
    return next((entry for entry in status.get("conditions") or () if entry.get("type") == kind), {})


_BLOCKS: Final = frozenset(
    {
        PoolReason.TEMPLATE_REJECTED,
        PoolReason.QUOTA_EXCEEDED,
        PoolReason.NETWORK_POLICY_FAILED,
        *_TROUBLE_REASONS.values(),
    }
)


_CERTAIN: Final = frozenset({PoolReason.QUOTA_EXCEEDED, PoolReason.NETWORK_POLICY_FAILED})
"""What the API server has said itself; what pods look like comes after that."""


def _template_accepted(facts: Facts) -> _Finding:
    if facts.verdict.accepted is None:
        return ConditionStatus.UNKNOWN, PoolReason.NOT_CHECKED, facts.verdict.message
    if facts.verdict.accepted:
        return ConditionStatus.TRUE, PoolReason.ACCEPTED, ""
    return ConditionStatus.FALSE, PoolReason.TEMPLATE_REJECTED, facts.verdict.message


def _available(facts: Facts) -> _Finding:
    if facts.counts.ready + facts.counts.reserved > 0:
        return ConditionStatus.TRUE, PoolReason.PODS_READY, ""
    if facts.target.replicas == 0:
        return ConditionStatus.FALSE, PoolReason.SCALED_TO_ZERO, ""
    block = _block(facts)
    return ConditionStatus.FALSE, PoolReason.NO_READY_PODS, block.message if block else ""


def _progressing(facts: Facts) -> _Finding:
    counts, target = facts.counts, facts.target
    want = wanted(target, counts)
    complete = counts.ready + counts.reserved >= want
    block = _block(facts)
    if block is not None and (not complete or block.reason is PoolReason.TEMPLATE_REJECTED):
        return ConditionStatus.FALSE, block.reason, block.message
    if any(member.revision != target.revision for member in counts.free):
        return ConditionStatus.TRUE, PoolReason.ROLLING_OUT, ""
    if want < target.replicas + counts.waiting:
        return ConditionStatus.TRUE, PoolReason.AT_MAX_PODS, ""
    if complete:
        return ConditionStatus.TRUE, PoolReason.COMPLETE, ""
    return ConditionStatus.TRUE, PoolReason.PACED if facts.paced else PoolReason.CREATING_PODS, ""


def _starved(facts: Facts) -> _Finding:
    counts = facts.counts
    if counts.waiting == 0:
        return ConditionStatus.FALSE, PoolReason.NOTHING_WAITING, ""
    if counts.ready > 0:
        return ConditionStatus.FALSE, PoolReason.PODS_READY, ""
    block = _block(facts)
    if block is not None:
        return ConditionStatus.TRUE, block.reason, block.message
    at_max = wanted(facts.target, counts) <= len(counts.free) < facts.target.replicas + counts.waiting
    if at_max:
        return ConditionStatus.TRUE, PoolReason.AT_MAX_PODS, ""
    return ConditionStatus.TRUE, PoolReason.PACED if facts.paced else PoolReason.CREATING_PODS, ""


def _block(facts: Facts) -> Setback | None:
    """What keeps the pool from getting pods, the gravest first."""
    if facts.verdict.accepted is False:
        return Setback(PoolReason.TEMPLATE_REJECTED, facts.verdict.message)
    if facts.setback is not None and facts.setback.reason in _CERTAIN:
        return facts.setback
    troubled: dict[Trouble, Member] = {}
    for member in facts.counts.free:
        if member.trouble is not None and member.revision == facts.target.revision:
            troubled.setdefault(member.trouble, member)
    for trouble in _GRAVITY:
        if trouble in troubled:
            found = troubled[trouble]
            return Setback(_TROUBLE_REASONS[trouble], f"pod {found.name}: {found.message}")
    return facts.setback


def _conditions(
    findings: Mapping[PoolCondition, _Finding], generation: int, before: Sequence[Mapping[str, Any]], now: str
) -> list[dict[str, Any]]:
    old = {entry.get("type"): entry for entry in before}
    made = []
    for kind, (state, reason, message) in findings.items():
        was = old.get(kind, {})
        same = was.get("status") == state and was.get("lastTransitionTime")
        made.append(
            {
                "type": str(kind),
                "status": str(state),
                "reason": str(reason),
                "message": printable(message or POOL_REASON_MEANINGS[reason], MESSAGE_MAX_LENGTH),
                "lastTransitionTime": was["lastTransitionTime"] if same else now,
                "observedGeneration": generation,
            }
        )
    return made

"""Takes up a session that an earlier operator process has worked on: the pods that it may have been given,
what their sidecars say, and which of them go."""

from collections.abc import Sequence
from typing import Final

from kubecoderun_operator import metrics, recovery
from kubecoderun_operator.orders import Session
from kubecoderun_operator.recovery import Carrier, Decision
from kubecoderun_operator.registry import Registry
from kubecoderun_operator.sidecars import Sidecars, ask_states

_STATE_ATTEMPTS: Final = 3
_STATE_PAUSE: Final = 1.0


async def carriers(session: Session, registry: Registry, sidecars: Sidecars) -> list[Carrier]:
    """The pods that status or labels connect with the session. One that its sidecar knows to be another
    session's is that one's from now on."""
    registry.take(session.named_pod, session.uid)
    pods = registry.carriers(session.uid, session.named_pod)
    states = await ask_states(sidecars, pods, session.uid, _STATE_ATTEMPTS, _STATE_PAUSE)
    found = [Carrier(pod, state) for pod, state in zip(pods, states, strict=True)]
    for carrier in found:
        owner = carrier.state.owner if carrier.state is not None else None
        if owner is not None and owner.uid != session.uid:
            registry.hand_over(carrier.member, owner.uid)
    return found


def take_up(session: Session, found: Sequence[Carrier], registry: Registry) -> Decision:
    """Decide how the session goes on, and remove the pods that serve nobody."""
    decision = recovery.decide(session.uid, session.phase, session.named_pod, found)
    metrics.RECOVERED.labels(decision.step).inc()
    for pod in decision.discard:
        registry.discard(pod, "orphan")
    return decision

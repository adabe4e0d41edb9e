"""The closed lists agree with each other."""

import pytest

from kubecoderun_crds.names import ConditionStatus, PoolCondition
from kubecoderun_crds.reasons import (
    MODE_MEANINGS,
    NON_TERMINAL_REASONS,
    PHASE_MEANINGS,
    POOL_CONDITION_REASONS,
    POOL_REASON_MEANINGS,
    REASON_MEANINGS,
    TERMINAL_PHASES,
    Mode,
    Phase,
    PoolReason,
    Reason,
    phase_of,
)


def test_every_value_has_one_line_of_meaning() -> None:
    assert list(MODE_MEANINGS) == list(Mode)
    assert list(PHASE_MEANINGS) == list(Phase)
    assert list(REASON_MEANINGS) == list(Reason)
    assert list(POOL_REASON_MEANINGS) == list(PoolReason)
    for meaning in [
        *MODE_MEANINGS.values(),
        *PHASE_MEANINGS.values(),
        *REASON_MEANINGS.values(),
        *POOL_REASON_MEANINGS.values(),
    ]:
        assert meaning
        assert "\n" not in meaning
        assert not meaning.endswith(".")


@pytest.mark.parametrize("reason", Reason)
def test_each_end_has_a_final_phase(reason: Reason) -> None:
    if reason in NON_TERMINAL_REASONS:
        with pytest.raises(ValueError, match="does not end"):
            phase_of(reason)
    else:
        assert phase_of(reason) in TERMINAL_PHASES


def test_phases_with_one_reason() -> None:
    assert phase_of(Reason.SUCCEEDED) is Phase.SUCCEEDED
    assert phase_of(Reason.TIME_LIMIT) is Phase.TIMED_OUT
    assert phase_of(Reason.TOOL_WAIT_EXPIRED) is Phase.TIMED_OUT
    assert phase_of(Reason.CANCELLED) is Phase.CANCELLED
    assert phase_of(Reason.FILES_HELD) is Phase.HELD
    assert phase_of(Reason.IDLE_TIMEOUT) is Phase.TIMED_OUT
    assert phase_of(Reason.MAX_LIFETIME) is Phase.TIMED_OUT
    failed = [r for r in Reason if r not in NON_TERMINAL_REASONS and phase_of(r) is Phase.FAILED]
    assert len(failed) == len(Reason) - len(NON_TERMINAL_REASONS) - 7


def test_every_pool_reason_belongs_to_a_condition() -> None:
    assert set(POOL_CONDITION_REASONS) == set(PoolCondition)
    used = set()
    for by_status in POOL_CONDITION_REASONS.values():
        assert set(by_status) <= set(ConditionStatus)
        listed = [reason for reasons in by_status.values() for reason in reasons]
        assert len(listed) == len(set(listed)), "a reason must say which status the condition has"
        used |= set(listed)
    assert used == set(PoolReason)

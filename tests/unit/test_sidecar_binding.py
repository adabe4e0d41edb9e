"""First wins, for life; epochs only rise: any history."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kubecoderun_sidecar.answers import Owner
from kubecoderun_sidecar.binding import Binding, BoundElsewhereError, NotBoundError, StaleEpochError

UIDS = st.sampled_from(["a", "b", "c"])


class Histories(RuleBasedStateMachine):
    """The model: the first owner ever, and the highest epoch ever."""

    def __init__(self) -> None:
        super().__init__()
        self.binding = Binding()
        self.first: Owner | None = None
        self.highest = 0

    @rule(uid=UIDS)
    def bind(self, uid: str) -> None:
        self.first = self.first or Owner("session", uid)
        if self.first == Owner("session", uid):
            self.binding.bind(uid)
        else:
            with pytest.raises(BoundElsewhereError) as caught:
                self.binding.bind(uid)
            assert caught.value.owner == self.first

    @rule(uid=UIDS)
    def retire(self, uid: str) -> None:
        self.first = self.first or Owner("retired", uid)
        if self.first.kind == "retired":
            self.binding.retire(uid)
        else:
            with pytest.raises(BoundElsewhereError) as caught:
                self.binding.retire(uid)
            assert caught.value.owner == self.first

    @rule(uid=UIDS)
    def require(self, uid: str) -> None:
        if self.first is None:
            with pytest.raises(NotBoundError):
                self.binding.require(uid)
        elif self.first == Owner("session", uid):
            self.binding.require(uid)
        else:
            with pytest.raises(BoundElsewhereError):
                self.binding.require(uid)

    @rule(epoch=st.integers(0, 5))
    def admit(self, epoch: int) -> None:
        if epoch < self.highest:
            with pytest.raises(StaleEpochError) as caught:
                self.binding.admit(epoch)
            assert caught.value.epoch == self.highest
        else:
            self.binding.admit(epoch)
            self.highest = epoch

    @invariant()
    def agrees(self) -> None:
        assert self.binding.owner == self.first
        assert self.binding.epoch == self.highest


TestHistories = Histories.TestCase

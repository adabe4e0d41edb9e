"""Several programs one after another in one container: what one leaves for the next, and what it must not.

Files stay, they are what the user comes back for. Gone are the program's own text, and whatever is left of a
delivery that broke off. A file that an earlier program left, or an earlier delivery brought, is no output of
a later program unless that one has changed it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubecoderun_runner.delivery import Delivery
from kubecoderun_runner.inputs import Delivered


class Turns:
    """What is known of earlier programs."""

    def __init__(self) -> None:
        self.known: dict[str, Delivered] = {}
        """Files as the last look at the folder has found them, by path."""
        self.more = False
        """Another program may follow the one that was ordered last."""
        self._last: Delivery | None = None

    def begin(self, delivery: Delivery) -> None:
        """This one's program comes next."""
        self._last = delivery

    def clear_away(self) -> None:
        """The last program has ended, or its delivery has come to nothing: make room for the next one."""
        delivery, self._last = self._last, None
        if delivery is not None:
            delivery.withdraw()
            self.known.update(delivery.inputs.delivered)

    def ended(self) -> None:
        """The last program has ended. What is there now is `known` as soon as somebody has looked."""
        delivery, self._last = self._last, None
        if delivery is not None:
            delivery.withdraw()

    def before(self, delivery: Delivery) -> Mapping[str, Delivered]:
        """Files that were there before this one's program started."""
        return {**self.known, **delivery.inputs.delivered} if self.known else delivery.inputs.delivered

"""What those who use the runtime hear from it: the events of a run, and why something came to nothing."""

from __future__ import annotations

from typing import Protocol

from kubecoderun_sidecar.dialogue import DeliveryFault, ExitReport
from kubecoderun_sidecar.toolcalls import AskedCall


class RuntimeLostError(Exception):
    """The runner is gone or broke the protocol. The text is the sidecar's own, never the runner's."""


class UndeliverableError(Exception):
    """The runner cannot take a delivery, and has said why."""

    def __init__(self, fault: DeliveryFault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


class RunObserver(Protocol):
    """Takes what happens to a program, as it happens. Methods must not raise or block."""

    def on_started(self) -> None: ...

    def on_output(self, is_stderr: bool, chunk: memoryview) -> None:
        """`chunk` is only valid during the call."""

    def on_call(self, call: AskedCall) -> None:
        """The program calls a tool."""

    def on_exit(self, report: ExitReport) -> None:
        """The program is over. `on_listed` or `on_lost` follows if files were wanted."""

    def on_listed(self) -> None:
        """The list of files is complete."""

    def on_lost(self, detail: str) -> None: ...

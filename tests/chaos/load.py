"""Callers that send programs one after the other for as long as victims are struck."""

import http.client
import random
import threading
import time
from types import TracebackType

from chaos.account import Call
from chaos.programs import new_tag, program
from e2e.frontend import FrontEnd, exec_body

SILENCE = 30.0
"""Seconds without a byte after which a caller gives a connection up. The front end sends one at least every
two; but the end of a node, or of a pod that is deleted without grace, need not be told to its connections."""
PATIENCE = 200.0
"""Seconds after which no answer is a lost one."""
TIME_LIMIT_MS = 60_000
DURATIONS = (0.2, 0.2, 0.5, 1.5, 3.0)
"""Seconds that programs take, at random."""


class Load:
    """So many callers in threads; leaving the block waits for the last answers."""

    def __init__(self, front_end: FrontEnd, callers: int) -> None:
        self.calls: list[Call] = []
        self._front_end = front_end
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call_for_ever) for _ in range(callers)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def answered_since(self, moment: float) -> bool:
        """Whether a call that began after that moment has its right answer."""
        return any(call.outcome == "right" and call.began >= moment for call in list(self.calls))

    def _call_for_ever(self) -> None:
        while not self._stopping.is_set():
            call = self._call()
            self.calls.append(call)
            if call.outcome in ("refused", "broken"):
                self._stopping.wait(0.5)

    def _call(self) -> Call:
        tag, began = new_tag(), time.monotonic()
        outcome, said = self._outcome(tag)
        took = time.monotonic() - began
        return Call(tag, began, took, "silent" if took > PATIENCE else outcome, said)

    def _outcome(self, tag: str) -> tuple[str, str]:
        code = program(tag, random.choice(DURATIONS))
        try:
            body = exec_body(code, timeout=TIME_LIMIT_MS)
            answer = self._front_end.call("POST", "/v1/exec", body, timeout=SILENCE)
        except ConnectionRefusedError:
            return "refused", ""
        except TimeoutError:
            return "broken", "silence"
        except (OSError, http.client.HTTPException) as failure:
            return "broken", type(failure).__name__
        stdout, stderr = answer.parsed.get("stdout", ""), answer.parsed.get("stderr", "")
        if answer.status == 200 and stdout == f"{tag}\n":
            return "right", ""
        if answer.status >= 400 and answer.parsed:
            return "told", str(answer.parsed.get("error", answer.status))
        if answer.status == 200 and stdout == "" and stderr:
            return "told", stderr.strip()[:80]
        return "wrong", f"status {answer.status}, body {answer.body[:120]!r}"

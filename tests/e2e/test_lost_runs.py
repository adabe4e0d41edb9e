"""A program that loses its pod, or a part of it, from outside: session, caller and whoever looks at the pool
are told, soon and definitely. How soon is measured by `make bench` (`lost_*`)."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.deployment import SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import Kube
from e2e.losses import strikes
from e2e.node import Node, NoNodeError
from e2e.pools import ended, running, wait_at_target
from e2e.waiting import eventually

pytestmark = pytest.mark.cluster
PROGRAM = "import time\nprint('so far', flush=True)\ntime.sleep(240)"
COMMITTED_SECONDS = 3.0
"""After the call the front end has sent a heartbeat, so that whatever comes is a 200 with text."""


@pytest.mark.parametrize("reason", ["PodLost", "SidecarLost", "RuntimeLost"])
def test_a_lost_run_is_told(front_end: FrontEnd, kube: Kube, full_pool: str, reason: str) -> None:
    try:
        node: Node | None = Node(kube.kubectl("config", "current-context").stdout.strip())
    except NoNodeError as missing:
        node = None
        if reason != "PodLost":
            pytest.skip(str(missing))
    before = {session["metadata"]["name"] for session in kube.items(SESSIONS)}
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        call = thread.submit(front_end.exec, PROGRAM, timeout=250_000)
        name = eventually(
            lambda: next(iter({each["metadata"]["name"] for each in kube.items(SESSIONS)} - before), None),
            "the call's session appears",
        )
        pod = running(kube, name)["status"]["pod"]["name"]
        time.sleep(max(0.0, began + COMMITTED_SECONDS - time.monotonic()))
        strikes(kube, node)[reason](pod)
        answer = call.result(timeout=120)
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", reason)
    assert answer.status == 200, "the caller has been given heartbeats by then"
    assert answer.parsed["stderr"]
    if reason == "RuntimeLost":
        # The sidecar is there, and has kept what was printed.
        assert status["result"]["stdout"] == "so far\n"

    def event() -> bool:
        described = kube.kubectl("describe", "epool", full_pool).stdout
        return any("Warning" in line and reason in line for line in described.splitlines())

    eventually(event, f"the pool shows an event {reason}")
    wait_at_target(kube, full_pool)

"""Several front ends behind one Service: whichever answers, the answer is the same, and one may die."""

import http.client
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.deployment import SESSIONS, SYSTEM_PODS
from e2e.frontend import Answer, FrontEnd
from e2e.kube import Kube, label
from e2e.pools import TERMINAL
from e2e.uploading import upload
from e2e.waiting import eventually
from e2e.workloads import pods_of, wait_ready

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("full_pool")]
FRONT_END = "kubecoderun-api"


@pytest.fixture(autouse=True)
def _all_ready(kube: Kube) -> Iterator[None]:
    wait_ready(kube, FRONT_END)
    yield
    wait_ready(kube, FRONT_END)


def made_by(kube: Kube, answers: list[Answer]) -> set[str | None]:
    """The front ends that made the sessions of these answers."""
    return {label(kube.session(answer.session), "front-end") for answer in answers}


def test_a_conversation_needs_no_particular_front_end(front_end: FrontEnd, kube: Kube) -> None:
    """A file that one has taken and outputs of programs that another has started serve all of them. Each call
    has a connection of its own, and the Service chooses by chance: 12 calls miss one of two once in 2,000."""
    assert len(pods_of(kube, FRONT_END)) == 2
    reference = upload(front_end, "count.txt", b"0")
    answers: list[Answer] = []
    for turn in range(12):
        code = "n = int(open('count.txt').read()) + 1\nopen('count.txt', 'w').write(str(n))\nprint(n)"
        answer = front_end.exec(code, files=[reference])
        assert (answer.status, answer["stdout"]) == (200, f"{turn + 1}\n"), answer.body
        answers.append(answer)
        reference = answer["files"][0]
        told = front_end.call("GET", f"/v1/download/{answer.session}/{reference['id']}")
        assert told.body == str(turn + 1).encode()
    assert len(made_by(kube, answers)) == 2


def test_one_dies_while_the_other_answers(front_end: FrontEnd, kube: Kube) -> None:
    """Callers of the one that dies lose their connection, not their run; the other's notice nothing; nothing
    runs twice."""
    tag = secrets.token_hex(4)
    code = f"import time\ntime.sleep(5)\nprint('{tag}')"

    def call() -> str:
        try:
            return str(front_end.exec(code).parsed.get("stdout"))
        except (OSError, http.client.HTTPException):
            return "broken"

    def ours() -> list[dict[str, object]]:
        return [each for each in kube.items(SESSIONS) if tag in each["spec"]["request"].get("code", "")]

    with ThreadPoolExecutor(3) as callers:
        calls = [callers.submit(call) for _ in range(3)]
        eventually(lambda: len(ours()) == 3, "all calls have made their session")
        victim = pods_of(kube, FRONT_END)[0]["metadata"]["name"]
        kube.delete(f"{SYSTEM_PODS}/{victim}", gracePeriodSeconds=0)
        # the Service may lead new callers to the dead one for a moment
        eventually(lambda: call() == f"{tag}\n", "the other front end answers")
        outcomes = [each.result(200) for each in calls]
    assert set(outcomes) <= {f"{tag}\n", "broken"}
    made = ours()
    assert len(made) >= 4
    eventually(lambda: all(phase(each) in TERMINAL for each in ours()), "all sessions have ended")
    assert {phase(each) for each in ours()} == {"Succeeded"}, "a run does not end with its front end"


def phase(session: dict[str, object]) -> str | None:
    """The phase in its status."""
    status = session.get("status")
    return status.get("phase") if isinstance(status, dict) else None

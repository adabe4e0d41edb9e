"""Many runs at once on few warm pods: everyone is answered, nobody shares a pod."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.frontend import Answer, FrontEnd
from e2e.kube import Kube
from e2e.pools import wait_at_target
from e2e.waiting import eventually
from e2e.watching import InvariantWatcher

pytestmark = pytest.mark.cluster


def at_once(front_end: FrontEnd, programs: list[str]) -> list[Answer]:
    """Answers of programs sent at the same moment, in the order of the programs."""
    with ThreadPoolExecutor(len(programs)) as threads:
        return list(threads.map(front_end.exec, programs))


def test_ten_runs_on_three_pods(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    answers = at_once(front_end, [f"print({number})" for number in range(10)])
    assert [answer.status for answer in answers] == [200] * 10
    assert [answer["stdout"] for answer in answers] == [f"{number}\n" for number in range(10)]
    statuses = [kube.session(answer.session)["status"] for answer in answers]
    assert len({status["pod"]["uid"] for status in statuses}) == 10
    assert {status["attempts"] for status in statuses} == {1}
    assert {status["startType"] for status in statuses} == {"Warm", "Waited"}
    wait_at_target(kube, full_pool)


def test_a_pod_is_used_once_and_goes(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    before = {pod["metadata"]["uid"] for pod in kube.pods(full_pool)}
    answer = front_end.exec("open('/mnt/data/trace', 'w').write('x')\nopen('/tmp/trace', 'w').write('x')")
    status = kube.session(answer.session)["status"]
    assert status["startType"] == "Warm"
    used = status["pod"]["uid"]
    assert used in before
    eventually(
        lambda: used not in {pod["metadata"]["uid"] for pod in kube.pods(full_pool)}, "the used pod goes"
    )
    wait_at_target(kube, full_pool)
    after = {pod["metadata"]["uid"] for pod in kube.pods(full_pool)}
    assert len(after) == 3
    assert len(after - before) == 1, "the unused pods stay, one is new"


def test_runs_do_not_see_each_other(front_end: FrontEnd) -> None:
    code = (
        "import os, time\n"
        "found = [p for p in ('/mnt/data/mark', '/tmp/mark', '/dev/shm/mark') if os.path.exists(p)]\n"
        "for p in ('/mnt/data/mark', '/tmp/mark'): open(p, 'w').write('x')\n"
        "time.sleep(0.5)\nprint(found, len([p for p in os.listdir('/proc') if p.isdigit()]) < 20)"
    )
    assert {answer["stdout"] for answer in at_once(front_end, [code] * 4)} == {"[] True\n"}


def test_random_state_differs_between_runs(front_end: FrontEnd) -> None:
    """Warm interpreters must not hand every user the same random numbers."""
    code = "import random, numpy, uuid\nprint(random.random(), numpy.random.rand(), uuid.uuid4(), hash('a'))"
    words = [answer["stdout"].split() for answer in at_once(front_end, [code] * 3)]
    for column in zip(*words, strict=True):
        assert len(set(column)) == 3


def test_the_watcher_sees_what_happens(
    front_end: FrontEnd, invariants: InvariantWatcher, full_pool: str
) -> None:
    """The invariants mean something only if sessions and the pods given to them are seen."""
    sessions, pods = invariants.seen
    front_end.exec("print(1)")
    eventually(
        lambda: invariants.seen[0] > sessions and invariants.seen[1] > pods,
        "the watcher sees the session and its pod",
    )

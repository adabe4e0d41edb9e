"""What becomes of unfinished sessions after a restart."""

import pytest

from kubecoderun_operator.members import Member
from kubecoderun_operator.recovery import Carrier, Step, decide
from kubecoderun_sidecar.protocol import Owner, StateAnswer

ME = "session-uid"


def pod(name: str) -> Member:
    return Member(
        "ns", name, f"uid-{name}", "python", "p", "r", "assigned", 1, 0.0, session_uid=ME, ip="10.0.0.1"
    )


def mine(name: str, run: str) -> Carrier:
    return Carrier(pod(name), StateAnswer(Owner("session", ME), 1, run, "warm"))  # type: ignore[arg-type]


def foreign(name: str) -> Carrier:
    return Carrier(pod(name), StateAnswer(Owner("session", "other"), 1, "running", "warm"))


def retired(name: str) -> Carrier:
    return Carrier(pod(name), StateAnswer(Owner("retired", "x"), 1, None, "warm"))


def blank(name: str) -> Carrier:
    return Carrier(pod(name), StateAnswer(None, 1, None, "warm"))


def silent(name: str) -> Carrier:
    return Carrier(pod(name), None)


@pytest.mark.parametrize(
    ("phase", "carriers", "step", "pod_name", "discard"),
    [
        # no pod carries it
        ("", [], Step.RUN, None, []),
        ("Queued", [], Step.RUN, None, []),
        ("Running", [], Step.LOST, None, []),
        # its pod answers
        ("", [mine("a", "prepared")], Step.ATTACH, "a", []),
        ("", [mine("a", "running")], Step.ATTACH, "a", []),
        ("Running", [mine("a", "finished")], Step.ATTACH, "a", []),
        ("", [blank("a")], Step.PREPARE, "a", []),
        ("Running", [mine("a", "running")], Step.ATTACH, "a", []),
        # its pod is silent
        ("", [silent("a")], Step.LOST, "a", []),
        ("Running", [silent("a")], Step.LOST, "a", []),
        # its pod belongs to somebody else
        ("", [foreign("a")], Step.RUN, None, []),
        ("", [retired("a")], Step.RUN, None, []),
        # several
        ("", [mine("a", "prepared"), mine("b", "running")], Step.ATTACH, "b", ["a"]),
        ("", [silent("a"), mine("b", "prepared")], Step.ATTACH, "b", ["a"]),
        ("", [blank("a"), foreign("b")], Step.PREPARE, "a", []),
        ("", [blank("a"), silent("b")], Step.LOST, "b", ["a"]),
    ],
)
def test_decisions(
    phase: str, carriers: list[Carrier], step: Step, pod_name: str | None, discard: list[str]
) -> None:
    found = decide(ME, phase, "", carriers)
    assert found.step is step
    assert (found.pod.name if found.pod else None) == pod_name
    assert [other.name for other in found.discard] == discard


@pytest.mark.parametrize(
    ("carriers", "step", "pod_name", "discard"),
    [
        # the pod is gone: the program may have been started there
        ([], Step.LOST, None, []),
        ([blank("b")], Step.LOST, None, ["b"]),
        ([foreign("b")], Step.LOST, None, []),
        # it is there
        ([blank("a")], Step.PREPARE, "a", []),
        ([mine("a", "prepared")], Step.ATTACH, "a", []),
        ([mine("a", "running"), blank("b")], Step.ATTACH, "a", ["b"]),
        ([silent("a")], Step.LOST, "a", []),
        # another session was faster
        ([foreign("a")], Step.RUN, None, []),
        ([retired("a")], Step.RUN, None, []),
    ],
)
def test_decisions_about_a_session_whose_status_names_a_pod(
    carriers: list[Carrier], step: Step, pod_name: str | None, discard: list[str]
) -> None:
    found = decide(ME, "Running", "uid-a", carriers)
    assert found.step is step
    assert (found.pod.name if found.pod else None) == pod_name
    assert [other.name for other in found.discard] == discard


def test_the_pod_named_in_the_status_counts_among_silent_ones() -> None:
    found = decide(ME, "Running", "uid-b", [silent("a"), silent("b")])
    assert found.pod is not None
    assert found.pod.name == "b"

"""What the API server refuses about sessions, whoever asks: added, changed, removed or wiped."""

import json
from itertools import count
from typing import Any

import pytest

from cluster.kubectl import (
    Json,
    Kubectl,
    nested,
    patch_arguments,
    removals_refused,
    replace_arguments,
    without,
)

pytestmark = pytest.mark.cluster

SERIAL = count(1)
AT, LATER, EARLIER = "2027-01-01T00:00:00.5Z", "2027-01-01T00:00:01Z", "2026-12-31T23:59:59Z"
ENDED: Json = {
    "observedGeneration": 1,
    "phase": "Failed",
    "reason": "NonZeroExit",
    "attempts": 1,
    "epoch": 7,
    "pod": {"name": "python-abcdefgh", "uid": "11111111-2222-3333-4444-555555555555"},
    "timings": {"completed": AT},
    "result": {"exitCode": 3, "stdout": "x\n", "stdoutBytes": 2, "stdoutTruncated": False},
}


def session(name: str | None = None, **request: Any) -> Json:
    """A session to create; a value of None leaves a field of the request out."""
    fields = {"poolRef": {"name": "python"}, "language": "py", "code": "print(1)", **request}
    return {
        "apiVersion": "kubecoderun.io/v1alpha1",
        "kind": "ExecutionSession",
        "metadata": {"name": name or f"s{next(SERIAL)}"},
        "spec": {"request": {key: value for key, value in fields.items() if value is not None}},
    }


def created(kubectl: Kubectl, status: Json | None = None, **spec: Any) -> str:
    """Name of a new session with that status and those fields beside the request."""
    thing = session()
    thing["spec"].update(spec)
    name = str(kubectl.create(thing)["metadata"]["name"])
    if status is not None:
        kubectl.out(*patch_arguments("esess", name, {"status": status}, "status"))
    return name


# --- the request ----------------------------------------------------------------------------------

IMMUTABLE = "the request must not be changed"


@pytest.mark.parametrize(
    "patch",
    [
        nested("code", "print(2)"),
        nested("args", ["added"]),
        nested("timeoutSeconds", 5),
        nested("poolRef/name", "other"),
        nested("language", "js"),
        {"code": None, "codeRef": {"bytes": 1, "sha256": "a" * 64}},
        nested("env", [{"name": "A"}]),
        nested("stdin", "text"),
        nested("tenant", "me"),
    ],
)
def test_request_is_immutable(kubectl: Kubectl, patch: Json) -> None:
    name = created(kubectl)
    said = kubectl.refusal(*patch_arguments("esess", name, {"spec": {"request": patch}}))
    assert IMMUTABLE in said


def test_parts_of_the_request_cannot_be_removed(kubectl: Kubectl) -> None:
    name = str(kubectl.create(session(args=["a"], tenant="me", timeoutSeconds=3))["metadata"]["name"])
    for field in ("args", "tenant", "timeoutSeconds"):
        for said in removals_refused(kubectl, name, f"spec/request/{field}", None):
            assert IMMUTABLE in said


def test_request_and_spec_cannot_be_removed(kubectl: Kubectl) -> None:
    name = created(kubectl)
    for said in removals_refused(kubectl, name, "spec/request", None):
        assert "spec.request: Required value" in said
    for said in removals_refused(kubectl, name, "spec", None):
        assert "spec: Required value" in said
    wiped = {**kubectl.get("esess", name), "spec": {}}
    assert "spec.request: Required value" in kubectl.refusal(*replace_arguments(), stdin=json.dumps(wiped))


def test_a_request_can_be_sent_again_as_it_is(kubectl: Kubectl) -> None:
    name = created(kubectl)
    thing = kubectl.get("esess", name)
    kubectl.out(*replace_arguments(), stdin=json.dumps(thing))
    assert kubectl.get("esess", name)["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("request_fields", "said"),
    [
        ({"code": None}, "there must be exactly one of code and codeRef"),
        ({"codeRef": {"bytes": 1, "sha256": "a" * 64}}, "there must be exactly one of code and codeRef"),
        ({"code": "x" * 16_385}, "may not be more than 16384"),
        ({"code": "ä" * 8_193}, "code must not have more than 16384 bytes in UTF-8: use codeRef"),
        ({"stdin": "ä" * 8_193}, "stdin must not have more than 16384 bytes"),
        ({"args": ["x" * 4096] * 8 + ["x"]}, "args must not have more than 32768 characters together"),
        ({"args": ["x"] * 65}, "must have at most 64 items"),
        ({"env": [{"name": "KCR_URL", "value": "x"}]}, "names must not begin with KCR_"),
        ({"env": [{"name": "A B"}]}, "spec.request.env[0].name"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "Duplicate value"),
        (
            {"env": [{"name": f"A{n}", "value": "x" * 4096} for n in range(9)]},
            "values of env must not have more than 32768 characters together",
        ),
        ({"language": "python"}, 'supported values: "py", "js", "ts"'),
        ({"language": None}, "a session of mode Run must have language, and poolRef or workspaceRef"),
        ({"poolRef": None}, "a session of mode Run must have language, and poolRef or workspaceRef"),
        ({"poolRef": {"name": "a.b"}}, "spec.request.poolRef.name"),
        ({"poolRef": {"name": "p" * 41}}, "may not be more than 40"),
        ({"timeoutSeconds": 0}, "spec.request.timeoutSeconds"),
        ({"timeoutSeconds": 86_401}, "spec.request.timeoutSeconds"),
        ({"tenant": "a b"}, "spec.request.tenant"),
        ({"codeRef": {"bytes": 1, "sha256": "zz"}, "code": None}, "spec.request.codeRef.sha256"),
        ({"codeRef": {"bytes": 52_428_801, "sha256": "a" * 64}, "code": None}, "spec.request.codeRef.bytes"),
        ({"code": "\x1b[2J"}, "spec.request.code"),
        ({"code": "\x85"}, "spec.request.code"),
        ({"args": ["\0"]}, "spec.request.args[0]"),
        ({"stdin": "\x07"}, "spec.request.stdin"),
        ({"env": [{"name": "A", "value": "\x7f"}]}, "spec.request.env[0].value"),
    ],
)
def test_requests_that_make_no_sense(kubectl: Kubectl, request_fields: Json, said: str) -> None:
    assert said in kubectl.create_refused(session(**request_fields))


def test_largest_request(kubectl: Kubectl) -> None:
    kubectl.create(
        session(
            code="ä" * 8_192,
            stdin="ä" * 8_192,
            args=["x" * 512] * 64,
            env=[{"name": f"A{n}", "value": "x" * 512} for n in range(64)],
            timeoutSeconds=86_400,
            tenant="t" * 128,
        )
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.b", "the name must not have dots"), ("a" * 64, "the name must not have more than 63 characters")],
)
def test_names_of_sessions(kubectl: Kubectl, name: str, said: str) -> None:
    assert said in kubectl.create_refused(session(name))


def test_longest_name(kubectl: Kubectl) -> None:
    kubectl.create(session("a" * 63))


# --- beside the request ---------------------------------------------------------------------------


def test_cancel_goes_one_way(kubectl: Kubectl) -> None:
    name = created(kubectl)
    assert kubectl.get("esess", name)["spec"]["cancel"] is False
    kubectl.out(*patch_arguments("esess", name, {"spec": {"cancel": True}}))
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"spec": {"cancel": False}})),
        *removals_refused(kubectl, name, "spec/cancel", None),
    ]
    assert all("a cancelled session must stay cancelled" in text for text in said)
    assert kubectl.get("esess", name)["spec"]["cancel"] is True


def test_cancel_is_not_lost_when_its_owner_stops_applying_it(kubectl: Kubectl) -> None:
    thing = session()
    applied = {**thing, "spec": {**thing["spec"], "cancel": True}}
    arguments = ("apply", "--server-side", "--field-manager=somebody", "-f", "-")
    kubectl.out(*arguments, stdin=json.dumps(applied))
    assert "must stay cancelled" in kubectl.refusal(*arguments, stdin=json.dumps(thing))


def test_a_session_can_be_born_cancelled(kubectl: Kubectl) -> None:
    assert kubectl.get("esess", created(kubectl, cancel=True))["spec"]["cancel"] is True


def test_expiry_only_moves_later(kubectl: Kubectl) -> None:
    name = created(kubectl)
    for moment in (AT, AT, LATER):
        kubectl.out(*patch_arguments("esess", name, {"spec": {"expiresAt": moment}}))
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"spec": {"expiresAt": EARLIER}})),
        kubectl.refusal(*patch_arguments("esess", name, {"spec": {"expiresAt": AT}})),
        *removals_refused(kubectl, name, "spec/expiresAt", None),
    ]
    assert all("expiresAt must only be moved to a later time" in text for text in said)


def test_expiry_is_a_time(kubectl: Kubectl) -> None:
    thing = session()
    thing["spec"]["expiresAt"] = "tomorrow"
    assert "date-time" in kubectl.create_refused(thing)


# --- the status -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Done"}, "Unsupported value"),
        ({"reason": "Because"}, "Unsupported value"),
        ({"phase": "Failed", "timings": {"completed": AT}}, "an ended session must have a reason"),
        ({"phase": "Failed", "reason": "PodLost"}, "must have a reason and timings.completed"),
        ({"phase": "Failed", "reason": "PodLost", "timings": {"finished": AT}}, "timings.completed"),
        ({**ENDED, "reason": "Succeeded"}, "one that goes with the phase"),
        ({**ENDED, "reason": "WaitingForPod"}, "one that goes with the phase"),
        ({**ENDED, "phase": "Succeeded"}, "one that goes with the phase"),
        ({**ENDED, "phase": "TimedOut"}, "one that goes with the phase"),
        ({**ENDED, "phase": "Cancelled", "reason": "TimeLimit"}, "one that goes with the phase"),
        ({**ENDED, "phase": "Held"}, "one that goes with the phase"),
        ({**ENDED, "reason": "FilesHeld"}, "one that goes with the phase"),
        ({"phase": "Held", "reason": "FilesHeld"}, "must have a reason and timings.completed"),
        ({"epoch": -1}, "status.epoch"),
        ({"result": {"stdout": "a", "stdoutBase64": "YQ=="}}, "must not be both stdout and stdoutBase64"),
        ({"result": {"stderr": "a", "stderrBase64": "YQ=="}}, "must not be both stderr and stderrBase64"),
        ({"result": {"stdout": "x" * 16_641}}, "may not be more than 16640"),
        ({"result": {"stdoutBase64": "a b"}}, "status.result.stdoutBase64"),
        ({"result": {"exitCode": 256}}, "status.result.exitCode"),
        ({"result": {"signal": "\x1b"}}, "status.result.signal"),
        ({"timings": {"queued": "now"}}, "date-time"),
    ],
)
def test_statuses_that_make_no_sense(kubectl: Kubectl, status: Json, said: str) -> None:
    name = created(kubectl)
    assert said in kubectl.refusal(*patch_arguments("esess", name, {"status": status}, "status"))


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        ("Succeeded", "Succeeded"),
        ("Failed", "NonZeroExit"),
        ("Failed", "OperatorError"),
        ("TimedOut", "TimeLimit"),
        ("Cancelled", "Cancelled"),
        ("Held", "FilesHeld"),
    ],
)
def test_an_end_is_final(kubectl: Kubectl, phase: str, reason: str) -> None:
    status = {**ENDED, "phase": phase, "reason": reason}
    name = created(kubectl, status)
    for other in ("Pending", "Queued", "Running", "Succeeded", "Failed", "TimedOut", "Cancelled", "Held"):
        if other != phase:
            said = kubectl.refusal(*patch_arguments("esess", name, {"status": {"phase": other}}, "status"))
            assert "an ended session must keep its phase" in said
    for path in ("status/phase", "status"):
        for said in removals_refused(kubectl, name, path, "status"):
            assert "an ended session must keep its phase" in said
    wiped = {**kubectl.get("esess", name), "status": {}}
    said = kubectl.refusal(*replace_arguments("status"), stdin=json.dumps(wiped))
    assert "an ended session must keep its phase" in said
    assert kubectl.get("esess", name)["status"] == status


def test_an_end_keeps_its_reason_and_result(kubectl: Kubectl) -> None:
    name = created(kubectl, ENDED)
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"status": change}, "status"))
        for change in (
            {"reason": "PodLost"},
            {"result": {"exitCode": 0}},
            {"result": {"stdout": "y\n"}},
            {"result": {"stored": True}},
        )
    ]
    said += removals_refused(kubectl, name, "status/result", "status")
    said += removals_refused(kubectl, name, "status/result/stdout", "status")
    assert all("an ended session must keep its reason, result and files" in text for text in said)
    for text in removals_refused(kubectl, name, "status/reason", "status"):
        assert "an ended session must have a reason" in text
    for text in removals_refused(kubectl, name, "status/timings", "status"):
        assert "timings.completed" in text


def test_an_end_without_result_gets_none_later(kubectl: Kubectl) -> None:
    lost = {"phase": "Failed", "reason": "PodLost", "timings": {"completed": AT}}
    name = created(kubectl, lost)
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": {"result": {"exitCode": 0}}}, "status"))
    assert "an ended session must keep its reason, result and files" in said


def test_an_end_can_be_written_again_and_explained(kubectl: Kubectl) -> None:
    name = created(kubectl, ENDED)
    kubectl.out(*patch_arguments("esess", name, {"status": ENDED}, "status"))
    more = {
        "message": "the pod was evicted",
        "observedGeneration": 2,
        "epoch": 8,
        "usage": {"cpuSeconds": 0.1},
    }
    kubectl.out(*patch_arguments("esess", name, {"status": more}, "status"))
    assert kubectl.get("esess", name)["status"] == {**ENDED, **more}


def test_writers_of_the_object_do_not_reach_the_status(kubectl: Kubectl) -> None:
    name = created(kubectl, ENDED)
    thing = without(kubectl.get("esess", name), "status")
    kubectl.out(*replace_arguments(), stdin=json.dumps(thing))
    kubectl.out(*patch_arguments("esess", name, {"status": {"phase": "Running"}}))
    assert kubectl.get("esess", name)["status"] == ENDED


def test_a_status_that_is_no_end_can_be_wiped_and_written_anew(kubectl: Kubectl) -> None:
    name = created(kubectl, {"phase": "Queued", "reason": "WaitingForPod"})
    kubectl.out(*patch_arguments("esess", name, {"status": None}, "status"))
    assert not kubectl.get("esess", name).get("status")
    for phase in ("Running", "Queued"):
        kubectl.out(*patch_arguments("esess", name, {"status": {"phase": phase}}, "status"))


@pytest.mark.parametrize("field", ["epoch", "attempts", "observedGeneration"])
def test_counters_never_fall(kubectl: Kubectl, field: str) -> None:
    name = created(kubectl, {"phase": "Queued"})
    for value in (0, 3, 3, 4):
        kubectl.out(*patch_arguments("esess", name, {"status": {field: value}}, "status"))
    said = [
        kubectl.refusal(*patch_arguments("esess", name, {"status": {field: 3}}, "status")),
        *removals_refused(kubectl, name, f"status/{field}", "status"),
        *removals_refused(kubectl, name, "status", "status"),
    ]
    assert all(f"status.{field} must not fall" in text for text in said)


def test_another_pod_is_another_attempt(kubectl: Kubectl) -> None:
    first, second = ({"name": f"p-{n}", "uid": f"uid-{n}"} for n in (1, 2))
    name = created(kubectl, {"pod": first, "attempts": 1})
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": {"pod": second}}, "status"))
    assert "status.attempts must rise when the session gets another pod" in said
    kubectl.out(*patch_arguments("esess", name, {"status": {"pod": {**first, "ip": "10.0.0.1"}}}, "status"))
    kubectl.out(*patch_arguments("esess", name, {"status": {"pod": second, "attempts": 2}}, "status"))


# --- text that is printed -------------------------------------------------------------------------

TRICKS = [
    "\0",
    "\x07",
    "\x08",
    "\r",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\x9b31m",
    "\xad",
    "\u061c",
    "\u200b",
    "\u200d",
]
TRICKS += ["\u2028", "\u202e", "\u2066", "\ufeff", "\uffff", "\U000e0041"]


@pytest.mark.parametrize("trick", TRICKS, ids=ascii)
def test_statuses_have_no_text_that_tricks_terminals(kubectl: Kubectl, trick: str) -> None:
    name, text = created(kubectl), f"a{trick}b"
    condition = {"type": "Completed", "status": "True", "reason": "X", "lastTransitionTime": AT}
    status = {
        "message": text,
        "result": {"stdout": text, "stderr": text},
        "conditions": [{**condition, "message": text}],
    }
    said = kubectl.refusal(*patch_arguments("esess", name, {"status": status}, "status"))
    for path in ("message", "result.stdout", "result.stderr", "conditions[0].message"):
        assert f"status.{path}: Invalid value" in said

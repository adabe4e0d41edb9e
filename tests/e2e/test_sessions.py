"""Sessions as a person with kubectl sees and uses them, without the front end."""

import json
from collections.abc import Callable

import pytest

from e2e.deployment import PODS, POOLS, SESSIONS
from e2e.frontend import FrontEnd
from e2e.kube import MERGE_PATCH, Kube, KubeError, Object, is_going, label
from e2e.pools import ended, fresh_name, running, session_manifest
from e2e.waiting import eventually

pytestmark = pytest.mark.cluster
Create = Callable[[Object], str]


def gone(kube: Kube, status: Object) -> None:
    """Wait until the pod a session had is gone."""
    eventually(lambda: kube.find(f"{PODS}/{status['pod']['name']}") is None, "the session's pod goes")


def test_a_call_is_visible_to_kubectl(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    answer = front_end.exec("print('seen')")
    columns, line = kube.kubectl("get", "esess", answer.session).stdout.splitlines()[:2]
    for column in ("NAME", "PHASE", "POOL", "START", "EXIT", "REASON", "AGE"):
        assert column in columns
    assert line.split()[:5] == [answer.session, "Succeeded", full_pool, "Warm", "0"]
    described = kube.kubectl("describe", "esess", answer.session).stdout
    for text in ("Succeeded", "seen", full_pool):
        assert text in described
    pods, row = kube.kubectl("get", "esess", answer.session, "-o", "wide").stdout.splitlines()[:2]
    assert "POD" in pods
    assert kube.session(answer.session)["status"]["pod"]["name"] in row


def test_a_failure_says_why(front_end: FrontEnd, kube: Kube, pool: str) -> None:
    answer = front_end.exec("import sys; sys.exit(7)")
    line = kube.kubectl("get", "esess", answer.session).stdout.splitlines()[1].split()
    assert line[:2] == [answer.session, "Failed"]
    assert "7" in line
    assert "NonZeroExit" in line


def test_both_kinds_in_one_category(kube: Kube, pool: str) -> None:
    listed = kube.kubectl("get", "kubecoderun").stdout
    assert f"executionpool.kubecoderun.io/{pool}" in listed
    assert kube.kubectl("explain", "executionsession.spec.request.code").stdout


def test_apply_hello(kube: Kube, full_pool: str, own_session: Create) -> None:
    """A session named by a person runs without the front end."""
    code = "import sys\nprint('hello', sys.argv[1:], input())"
    name = own_session(session_manifest("hello", full_pool, code, args=["a"], stdin="typed\n"))
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"], status["startType"]) == ("Succeeded", "Succeeded", "Warm")
    assert status["result"]["stdout"] == "hello ['a'] typed\n"
    assert status["result"]["exitCode"] == 0
    assert status["usage"]["maxRssBytes"] > 0
    # prepare and the pod patch go on side by side; the start waits for both
    for binding in ("prepared", "patched"):
        times = [status["timings"][name] for name in ("queued", binding, "started", "finished", "completed")]
        assert times == sorted(times)


def test_environment_of_a_session(kube: Kube, full_pool: str, own_session: Create) -> None:
    code = "import os\nprint(os.environ['GREETING'])"
    env = [{"name": "GREETING", "value": "hi"}]
    name = own_session(session_manifest(fresh_name("env"), full_pool, code, env=env))
    assert ended(kube, name)["status"]["result"]["stdout"] == "hi\n"


def test_delete_while_running(kube: Kube, full_pool: str, own_session: Create) -> None:
    name = own_session(
        session_manifest(fresh_name("del"), full_pool, "import time\ntime.sleep(300)", timeoutSeconds=300)
    )
    status = running(kube, name)["status"]
    kube.kubectl("delete", "esess", name)
    gone(kube, status)


def test_cancel_while_running(kube: Kube, full_pool: str, own_session: Create) -> None:
    code = "import time\nprint('so far', flush=True)\ntime.sleep(300)"
    name = own_session(session_manifest(fresh_name("stop"), full_pool, code, timeoutSeconds=300))
    running(kube, name)
    kube.kubectl("patch", "esess", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    assert status["result"]["stdout"] == "so far\n"
    gone(kube, status)


def test_cancel_before_a_pod_is_found(kube: Kube, new_pool: Callable[..., str], own_session: Create) -> None:
    """A session that waits at an empty pool can be cancelled as well."""
    empty = new_pool(replicas=0, pod={"nodeSelector": {"kubecoderun.io/none": "x"}})
    name = own_session(session_manifest(fresh_name("wait"), empty, "print(1)", language="d"))
    eventually(lambda: kube.session(name).get("status", {}).get("phase") == "Queued", "the session waits")
    kube.kubectl("patch", "esess", name, "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert ended(kube, name)["status"]["reason"] == "Cancelled"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"poolRef": {"name": "no-such-pool"}}, "PoolNotFound"),
        ({"language": "f90"}, "LanguageNotInPool"),
    ],
)
def test_sessions_that_cannot_run(
    kube: Kube, pool: str, own_session: Create, change: Object, reason: str
) -> None:
    name = own_session(session_manifest(fresh_name("bad"), pool, "print(1)", **change))
    status = ended(kube, name)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", reason)
    assert status["message"]
    assert "pod" not in status


def test_a_request_cannot_be_changed(kube: Kube, pool: str, own_session: Create) -> None:
    name = own_session(session_manifest(fresh_name("fixed"), pool, "print(1)"))
    for spec in ({"request": {"code": "print(2)"}}, {"request": None}):
        with pytest.raises(KubeError) as refused:
            kube.request("PATCH", f"{SESSIONS}/{name}", {"spec": spec}, MERGE_PATCH)
        assert refused.value.status == 422


def test_an_ended_session_stays_ended(kube: Kube, pool: str, own_session: Create) -> None:
    name = own_session(session_manifest(fresh_name("over"), pool, "print(1)"))
    ended(kube, name)
    for status in ({"phase": "Running"}, None):
        with pytest.raises(KubeError) as refused:
            kube.request("PATCH", f"{SESSIONS}/{name}/status", {"status": status}, MERGE_PATCH)
        assert refused.value.status == 422


def test_terminal_tricks_reach_no_terminal(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """Escape sequences and direction marks a program prints are kept as bytes, and shown by kubectl only
    encoded."""
    tricks = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u202egnp.exe\x9b31m\r\x08"
    answer = front_end.exec(f"import sys\nt = {tricks!r}\nprint(t)\nprint(t, file=sys.stderr)\nsys.exit(t)")
    assert answer["stdout"] == tricks + "\n", "the front end's client gets what was printed"
    shown = "".join(
        kube.kubectl(*arguments).stdout
        for arguments in (
            ("get", "esess", answer.session), ("get", "esess", answer.session, "-o", "wide"),
            ("describe", "esess", answer.session), ("get", "esess", answer.session, "-o", "yaml"),
            ("get", "events"),
        )
    )  # fmt: skip
    for character in "\x1b\x07\u202e\x9b\r\x08":
        assert character not in shown, repr(character)
    assert "stdoutBase64" in kube.session(answer.session)["status"]["result"]


def test_the_pod_of_a_run_points_to_its_session(kube: Kube, full_pool: str, own_session: Create) -> None:
    name = own_session(session_manifest(fresh_name("owner"), full_pool, "import time\ntime.sleep(6)"))
    session = running(kube, name)
    path = f"{PODS}/{session['status']['pod']['name']}"
    eventually(lambda: "activeDeadlineSeconds" in kube.request("GET", path)["spec"], "the pod has a deadline")
    pod = kube.request("GET", path)
    owners = pod["metadata"]["ownerReferences"]
    assert [(o["kind"], o["uid"]) for o in owners] == [("ExecutionSession", session["metadata"]["uid"])]
    assert label(pod, "state") == "assigned"
    assert pod["spec"]["activeDeadlineSeconds"] > 6
    assert not is_going(pod)


def test_a_session_is_removed_after_its_time(
    kube: Kube, full_pool: str, own_session: Create, patched: Callable[[str, Object], None]
) -> None:
    """Sessions vanish some time after their end; the pool says how long."""
    patched(f"{POOLS}/{full_pool}", {"sessionDefaults": {"ttlSecondsAfterFinished": 10}})
    name = own_session(session_manifest(fresh_name("ttl"), full_pool, "print(1)"))
    eventually(lambda: kube.find(f"{SESSIONS}/{name}") is None, f"session {name} is removed", patience=240)


def test_events_are_for_the_unusual(front_end: FrontEnd, kube: Kube, full_pool: str) -> None:
    """A normal session makes no Event."""
    answer = front_end.exec("print(1)")
    events = json.loads(kube.kubectl("get", "events", "-o", "json").stdout)["items"]
    assert not [event for event in events if event["involvedObject"].get("name") == answer.session]

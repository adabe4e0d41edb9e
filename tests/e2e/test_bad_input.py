"""What is no valid request is refused with a short JSON error, before any session exists."""

import json

import pytest

from e2e.deployment import POOLS, SESSIONS
from e2e.frontend import Answer, FrontEnd, exec_body
from e2e.kube import Kube
from kubecoderun_crds.fields import LANGUAGES

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pool")]


def refused(answer: Answer, status: int) -> None:
    """The answer is an error a client understands: short JSON, and a connection nobody uses again."""
    assert answer.status == status, answer.body[:500]
    assert isinstance(answer["error"], str)
    assert answer["error"]
    assert len(answer.body) < 1000
    assert answer.headers["connection"].lower() == "close"


@pytest.mark.parametrize(
    "body",
    [
        {"lang": "klingon", "code": "x"},
        {"lang": "", "code": "x"},
        {"code": "x"},
        {"lang": "py"},
        {"lang": "py", "code": ""},
        {"lang": "py", "code": 5},
        {"lang": "py", "code": ["print(1)"]},
        {"lang": ["py"], "code": "x"},
        {"lang": "py", "code": "x", "timeout": -1},
        {"lang": "py", "code": "x", "timeout": "soon"},
        [],
        "text",
        None,
    ],
    ids=lambda body: json.dumps(body)[:50],
)
def test_wrong_bodies(front_end: FrontEnd, body: object) -> None:
    refused(front_end.call("POST", "/v1/exec", json.dumps(body).encode()), 400)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"lang=py", b"[" * 100_000], ids=lambda body: repr(body[:8])
)
def test_bodies_that_are_no_json(front_end: FrontEnd, body: bytes) -> None:
    refused(front_end.call("POST", "/v1/exec", body), 400)


def test_body_over_the_limit(front_end: FrontEnd) -> None:
    """The limit is 50 MB. Where the server closes before everything is sent, a broken pipe is a refusal
    too."""
    body = exec_body("x" * (60 << 20))
    try:
        answer = front_end.call("POST", "/v1/exec", body)
    except (BrokenPipeError, ConnectionResetError):
        return
    refused(answer, 413)


@pytest.mark.parametrize(
    "changed",
    [
        {"X_API_Key": None},
        {"X_API_Key": "wrong"},
        {"X_API_Key": ""},
        {"X_API_Key": None, "Authorization": "Bearer wrong"},
    ],
    ids=["none", "wrong", "empty", "bearer"],
)
def test_wrong_key(front_end: FrontEnd, changed: dict[str, str | None]) -> None:
    refused(front_end.call("POST", "/v1/exec", exec_body("print(1)"), front_end.headers(**changed)), 401)


def test_a_refused_key_leaves_no_session(front_end: FrontEnd, kube: Kube) -> None:
    before = {session["metadata"]["name"] for session in kube.items(SESSIONS)}
    front_end.call("POST", "/v1/exec", exec_body("print('no')"), front_end.headers(X_API_Key="wrong"))
    front_end.exec("x", lang="klingon")
    made = [s for s in kube.items(SESSIONS) if s["metadata"]["name"] not in before]
    assert made == []


def test_a_language_no_pool_serves(front_end: FrontEnd, kube: Kube) -> None:
    """A language of the client's list without a pool is a permanent condition, and says so in the client's
    own code."""
    served = {one for pool in kube.items(POOLS) for one in pool["spec"]["runtime"]["languages"]}
    missing = next((one for one in LANGUAGES if one not in served), None)
    if missing is None:
        pytest.skip("every language has a pool here")
    answer = front_end.exec("1", lang=missing)
    refused(answer, 400)
    assert missing in answer["error"] or missing in answer.parsed.get("message", "")
    assert "unsupported_capability" in (answer["error"], answer.parsed.get("code"))


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/exec", 405), ("POST", "/v1/nothing", 404)]
)
def test_wrong_method_or_path(front_end: FrontEnd, method: str, path: str, status: int) -> None:
    answer = front_end.call(method, path, b"{}" if method == "POST" else None)
    assert answer.status == status
    assert answer.headers["connection"].lower() == "close"

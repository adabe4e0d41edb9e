"""Requests against their pool."""

from typing import Any

import pytest

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import Reason
from kubecoderun_operator.orders import Order, Refusal, order, session
from kubecoderun_sidecar.protocol import InlineCode, StoredCode

POOL = PoolSpec.model_validate(
    {
        "runtime": {"image": "i", "languages": ["py", "js"]},
        "sessionDefaults": {"timeoutSeconds": 20},
        "limits": {"maxTimeoutSeconds": 60, "maxOutputBytes": 2048},
    }
)
SHA = "a" * 64


def raw(**request: Any) -> dict[str, Any]:
    given = {"poolRef": {"name": "python"}, "language": "py", "code": "print(1)", **request}
    return {
        "metadata": {
            "namespace": "ns",
            "name": "hello",
            "uid": "u1",
            "resourceVersion": "7",
            "generation": 2,
        },
        "spec": {"request": {key: value for key, value in given.items() if value is not None}},
    }


def placed(**request: Any) -> Order:
    found = order(session(raw(**request)), POOL)
    assert isinstance(found, Order)
    return found


def test_a_plain_request() -> None:
    found = placed(args=["a", "b"], stdin="in", env=[{"name": "A", "value": "1"}, {"name": "B"}])
    request = found.prepare()
    assert request.session.name == "hello"
    assert request.code == InlineCode("print(1)")
    assert request.args == ("a", "b")
    assert request.env == {"A": "1", "B": ""}
    assert (request.limits.timeout_seconds, request.limits.output_bytes) == (20, 2048)
    assert not found.stored


def test_empty_code_is_code() -> None:
    assert placed(code="").prepare().code == InlineCode("")


def test_stored_code() -> None:
    found = placed(code=None, codeRef={"bytes": 30_000, "sha256": SHA})
    assert found.stored
    assert found.prepare("http://store/x").code == StoredCode("http://store/x", 30_000, SHA)


def test_a_time_limit_of_its_own() -> None:
    assert placed(timeoutSeconds=60).timeout_seconds == 60


@pytest.mark.parametrize(
    ("request_", "reason", "says"),
    [
        ({"language": "rs"}, Reason.LANGUAGE_NOT_IN_POOL, "the pool python offers py, js, not rs"),
        (
            {"timeoutSeconds": 61},
            Reason.INVALID_REQUEST,
            "timeoutSeconds is 61; the pool python allows at most 60",
        ),
        ({"code": None}, Reason.INVALID_REQUEST, "give exactly one of code and codeRef"),
        (
            {"codeRef": {"bytes": 1, "sha256": SHA}},
            Reason.INVALID_REQUEST,
            "give exactly one of code and codeRef",
        ),
        ({"args": [7]}, Reason.INVALID_REQUEST, "the spec is not valid at request.args.0"),
    ],
)
def test_refusals(request_: dict[str, Any], reason: Reason, says: str) -> None:
    assert order(session(raw(**request_)), POOL) == Refusal(reason, says)


def test_a_refusal_never_repeats_what_the_user_sent() -> None:
    found = order(session(raw(language="py", env=[{"name": "TOKEN", "value": 5}])), POOL)
    assert isinstance(found, Refusal)
    assert "TOKEN" not in found.message


def test_reading_a_session() -> None:
    given = raw()
    given["spec"].update(cancel=True, expiresAt="1970-01-01T00:01:00Z")
    given["status"] = {"phase": "Succeeded", "timings": {"completed": "1970-01-01T00:00:30.5Z"}}
    found = session(given)
    assert (found.pool, found.generation, found.version) == ("python", 2, 7)
    assert found.cancel
    assert found.terminal
    assert (found.expires_at, found.completed_at) == (60.0, 30.5)


def test_code_is_in_no_repr() -> None:
    found = placed(code="secret = 1", stdin="also secret")
    assert "secret" not in repr(found)
    assert "secret" not in repr(session(raw(code="secret = 1")))

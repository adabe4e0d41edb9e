"""Requests against their pool."""

from dataclasses import replace
from typing import Any

import pytest

from kubecoderun_crds.pool import PoolSpec
from kubecoderun_crds.reasons import Reason
from kubecoderun_operator.inputs import Input
from kubecoderun_operator.orders import Order, Refusal, cut_note, order, session, time_limit
from kubecoderun_sidecar.protocol import InlineCode, InputFile, PrepareRequest, StoredCode

POOL = PoolSpec.model_validate(
    {
        "runtime": {"image": "i", "languages": ["py", "js"]},
        "sessionDefaults": {"timeoutSeconds": 20},
        "limits": {
            "maxTimeoutSeconds": 60,
            "maxOutputBytes": 2048,
            "maxFiles": 3,
            "maxFileBytes": 1000,
            "maxTotalFileBytes": 1500,
        },
    }
)
SHA = "a" * 64
INPUT = {"path": "data.csv", "session": "other", "id": "a" * 21}


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


def test_more_time_than_the_pool_allows_is_cut() -> None:
    """As the text of the resource says, and as over HTTP."""
    assert placed(timeoutSeconds=61).timeout_seconds == 60
    assert time_limit(86_400, POOL) == 60
    assert time_limit(None, POOL) == 20
    assert cut_note(61, 60) == "timeoutSeconds 61 was cut to 60, the most that the pool allows"
    assert cut_note(60, 60) == cut_note(None, 60) == ""


def test_arguments_of_several_lines() -> None:
    text = '{\n\t"rows": 3\n}'
    assert placed(args=[text]).prepare().args == (text,)


def test_files_that_are_handed_back() -> None:
    found = placed()
    assert found.prepare().limits.files == 0
    limits = found.prepare(keep_files=True).limits
    assert (limits.files, limits.file_bytes, limits.total_file_bytes) == (3, 1000, 1500)
    assert PrepareRequest.parse(found.prepare(keep_files=True).to_json()).limits == limits


def test_inputs() -> None:
    found = placed(inputs=[INPUT, {**INPUT, "path": "b/c", "readOnly": True}], tenant="me")
    assert found.fetches
    assert found.tenant == "me"
    assert [reference.path for reference in found.references] == ["data.csv", "b/c"]
    known = replace(found, inputs=(Input("data.csv", "other", "a" * 21, 7, False),))
    request = known.prepare(input_urls=["http://store/x"])
    assert request.inputs == (InputFile("data.csv", "http://store/x", 7, False),)
    assert PrepareRequest.parse(request.to_json()).inputs == request.inputs
    assert not placed().fetches


def test_every_input_needs_its_url() -> None:
    known = replace(placed(inputs=[INPUT]), inputs=(Input("data.csv", "other", "a" * 21, 7, False),))
    with pytest.raises(ValueError, match="shorter"):
        known.prepare()


def test_what_a_session_says_of_its_inputs() -> None:
    assert session(raw(inputs=[INPUT])).inputs() == {"data.csv": INPUT}
    assert session(raw()).inputs() == {}


def test_modes() -> None:
    assert session(raw()).mode == "Run"
    held = session(raw(mode="Files", files=[], poolRef=None, language=None, code=None))
    assert (held.mode, held.pool) == ("Files", "")


@pytest.mark.parametrize(
    ("request_", "reason", "says"),
    [
        ({"language": "rs"}, Reason.LANGUAGE_NOT_IN_POOL, "the pool python offers py, js, not rs"),
        ({"code": None}, Reason.INVALID_REQUEST, "give exactly one of code and codeRef"),
        (
            {"codeRef": {"bytes": 1, "sha256": SHA}},
            Reason.INVALID_REQUEST,
            "give exactly one of code and codeRef",
        ),
        ({"args": [7]}, Reason.INVALID_REQUEST, "the spec is not valid at request.args.0"),
        ({"language": None}, Reason.INVALID_REQUEST, "language is missing"),
        (
            {"inputs": [{**INPUT, "path": "../x"}]},
            Reason.INVALID_REQUEST,
            "the spec is not valid at request.inputs.0.path",
        ),
        (
            {"inputs": [INPUT, {**INPUT, "path": "data.csv/x"}]},
            Reason.INVALID_REQUEST,
            "input data.csv is a file, and input data.csv/x needs a directory of that name",
        ),
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

"""Messages survive the wire, bad ones name their field, and signatures cover what they must."""

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.protocol import (
    Caller,
    Captured,
    Finished,
    Heartbeat,
    InlineCode,
    Limits,
    Owner,
    PrepareRequest,
    ProtocolError,
    Refusal,
    ResultTarget,
    RunResult,
    SessionRef,
    SignatureError,
    Signer,
    Started,
    StartRequest,
    StateAnswer,
    StoredCode,
    Usage,
    Verifier,
    event_line,
    parse_event,
    signing_text,
)

TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
SESSION = SessionRef("kubecoderun", "hello", "uid-1")
STORED = StoredCode("https://store/x?sig=secret", 10, "ab" * 32)
NOW = 1_800_000_000.0
SIGNER = Signer(b"1" * 32)
OTHER = Signer(b"2" * 32)
RESULT = RunResult(
    reason="TimeLimit",
    exit_code=None,
    signal="SIGKILL",
    started_at=rfc3339(NOW),
    finished_at=rfc3339(NOW + 1),
    stored_at=None,
    stdout=Captured("hé\n", None, 4, False),
    stderr=Captured(None, "/w==", 1, True),
    stored=False,
    usage=Usage(None, None, 1.5),
    store_error="the store refused",
    detail="late",
)


@given(code=TEXT, args=st.lists(TEXT, max_size=5), stdin=TEXT, value=TEXT)
def test_a_prepare_survives_the_wire(code: str, args: list[str], stdin: str, value: str) -> None:
    for source in (InlineCode(code), STORED):
        request = PrepareRequest(SESSION, "py", source, tuple(args), stdin, {"A": value}, limits=Limits(1.5, 2048))
        assert PrepareRequest.parse(request.to_json()) == request


def test_other_messages_survive_the_wire() -> None:
    for start in (StartRequest(), StartRequest(ResultTarget("http://s/r", 16384, 1.0))):
        assert StartRequest.parse(start.to_json()) == start
    for state in (
        StateAnswer(None, 0, None, "waiting"),
        StateAnswer(Owner("session", "u"), 7, "running", "lost"),
    ):
        assert StateAnswer.parse(state.to_json()) == state
    for refusal in (
        Refusal("not_prepared"),
        Refusal("bound", "why", owner=Owner("retired", "p")),
        Refusal("stale_epoch", epoch=0),
    ):
        assert Refusal.parse(refusal.to_json()) == refusal
    for event in (Started(rfc3339(NOW)), Heartbeat(), Finished(RESULT)):
        line = event_line(event)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert parse_event(line) == event
    assert RunResult.parse(RESULT.to_json()) == RESULT


def test_the_result_has_the_agreed_names() -> None:
    plain = dataclasses.replace(RESULT, store_error=None, detail=None)
    assert json.loads(plain.to_json()) == {
        "reason": "TimeLimit",
        "exitCode": None,
        "signal": "SIGKILL",
        "startedAt": "2027-01-15T08:00:00.000000Z",
        "finishedAt": "2027-01-15T08:00:01.000000Z",
        "storedAt": None,
        "stdout": {"text": "hé\n", "bytes": 4, "truncated": False},
        "stderr": {"base64": "/w==", "bytes": 1, "truncated": True},
        "stored": False,
        "usage": {"cpuSeconds": None, "maxRssBytes": None, "wallSeconds": 1.5},
        "files": [],
        "skipped": [],
        "skippedCount": 0,
    }


def test_secrets_and_content_are_not_in_repr() -> None:
    request = PrepareRequest(SESSION, "py", STORED, ("arg-secret",), "stdin-secret", {"A": "env-secret"})
    assert "secret" not in repr(request)
    assert "secret" not in repr(StartRequest(ResultTarget("http://secret")))
    assert "hé" not in repr(RESULT)


def prepare_with(**changes: Any) -> bytes:
    body = json.loads(PrepareRequest(SESSION, "py", InlineCode("x")).to_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = body
        for parent in parents:
            target = target[parent]
        target[last] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"session": None}, "prepare.session must be an object"),
        ({"session__uid": ""}, r"prepare.session.uid must be a string"),
        ({"session__name": 5}, r"prepare.session.name"),
        ({"language": None}, "prepare.language"),
        ({"code": {}}, "prepare.code.text must be given, or url, but not both"),
        ({"code": {"text": "x", "url": "y"}}, "but not both"),
        ({"code": {"text": "x" * 16385}}, "prepare.code.text must be a string of 0 to 16384 bytes"),
        ({"code": {"text": "é" * 8193}}, "prepare.code.text"),
        ({"code": {"text": "\ud800"}}, "prepare.code.text"),
        ({"code": {"url": "u", "bytes": 1, "sha256": "AB" * 32}}, "prepare.code.sha256"),
        ({"code": {"url": "u", "bytes": 1, "sha256": "ab"}}, "prepare.code.sha256"),
        ({"code": {"url": "u", "bytes": -1, "sha256": "ab" * 32}}, "prepare.code.bytes"),
        ({"code": {"url": "u", "bytes": (50 << 20) + 1, "sha256": "ab" * 32}}, "prepare.code.bytes"),
        ({"args": ["a", 1]}, "prepare.args"),
        ({"args": ["a\0"]}, "prepare.args"),
        ({"args": ["\udfff"]}, "prepare.args"),
        ({"args": "abc"}, "prepare.args"),
        ({"args": ["a"] * 1025}, "prepare.args"),
        ({"stdin": "x" * 16385}, "prepare.stdin"),
        ({"env": {"A": 1}}, "prepare.env"),
        ({"env": {"": "x"}}, "prepare.env"),
        ({"env": {"A=B": "x"}}, "prepare.env"),
        ({"env": {"A": "\0"}}, "prepare.env"),
        ({"limits__timeoutSeconds": 0}, "prepare.limits.timeoutSeconds"),
        ({"limits__timeoutSeconds": True}, "prepare.limits.timeoutSeconds"),
        ({"limits__timeoutSeconds": 86401}, "prepare.limits.timeoutSeconds"),
        ({"limits__outputBytes": 1023}, "prepare.limits.outputBytes"),
        ({"limits__outputBytes": 1048577}, "prepare.limits.outputBytes"),
    ],
)
def test_a_bad_prepare_names_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        PrepareRequest.parse(prepare_with(**changes))


def test_errors_do_not_repeat_content() -> None:
    for body in (b'{"session": secret}', b"secret", prepare_with(args=[["secret"]])):
        with pytest.raises(ProtocolError) as caught:
            PrepareRequest.parse(body)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_unknown_fields_are_ignored() -> None:
    assert PrepareRequest.parse(prepare_with(later=1)) == PrepareRequest(SESSION, "py", InlineCode("x"))
    assert parse_event(b'{"event":"heartbeat","later":[]}') == Heartbeat()


@pytest.mark.parametrize("line", [b"", b"{}", b'{"event":"other"}', b'{"event":"started"}', b"[]", b"\xff"])
def test_a_bad_event_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_event(line)


# ---- signatures


def signed(signer: Signer = SIGNER, **changes: Any) -> dict[str, str]:
    headers = signer.headers(
        changes.get("method", "POST"),
        changes.get("path", "/v1/start"),
        pod_uid=changes.get("pod_uid", "pod"),
        caller=Caller(changes.get("session", "sess"), changes.get("epoch", 3)),
        body=changes.get("body", b"{}"),
        expires=int(NOW) + changes.get("ahead", 60),
    )
    return {name.lower(): value for name, value in headers.items()}


def verify(headers: dict[str, str], verifier: Verifier | None = None, now: float = NOW) -> Caller:
    verifier = verifier or Verifier([SIGNER.public_key], "pod")
    return verifier.verify("POST", "/v1/start", headers, b"{}", now)


def test_the_signed_text_is_the_agreed_one() -> None:
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    text = signing_text("POST", "/v1/start", "pod", "sess", 3, 99, b"{}")
    assert text == f"kcr1\nPOST /v1/start\npod\nsess\n3\n99\n{digest}".encode()


def test_a_good_signature_names_the_caller() -> None:
    assert verify(signed()) == Caller("sess", 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"path": "/v1/prepare"},
        {"pod_uid": "another pod"},
        {"body": b'{"other":1}'},
        {"signer": OTHER},
    ],
)
def test_a_signature_for_something_else_does_not_match(changes: dict[str, Any]) -> None:
    signer = changes.pop("signer", SIGNER)
    with pytest.raises(SignatureError, match="does not match"):
        verify(signed(signer, **changes))


@pytest.mark.parametrize("header", ["kcr-session-uid", "kcr-epoch", "kcr-expires"])
def test_signed_headers_cannot_be_changed(header: str) -> None:
    headers = signed()
    changed = "other" if header == "kcr-session-uid" else str(int(headers[header]) + 1)
    with pytest.raises(SignatureError, match="does not match"):
        verify({**headers, header: changed})


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("kcr-session-uid", None),
        ("kcr-session-uid", "x" * 129),
        ("kcr-session-uid", "a\nb"),
        ("kcr-session-uid", "é"),
        ("kcr-epoch", None),
        ("kcr-epoch", "-1"),
        ("kcr-epoch", "03"),
        ("kcr-epoch", "+3"),
        ("kcr-epoch", "٣"),
        ("kcr-epoch", "9" * 19),
        ("kcr-expires", "1e9"),
        ("kcr-signature", None),
        ("kcr-signature", "not base64"),
        ("kcr-signature", base64.b64encode(b"x" * 63).decode()),
        ("kcr-signature", "é"),
    ],
)
def test_missing_or_malformed_headers_are_refused(header: str, value: str | None) -> None:
    headers = signed()
    del headers[header]
    if value is not None:
        headers[header] = value
    with pytest.raises(SignatureError):
        verify(headers)


@pytest.mark.parametrize(("ahead", "valid"), [(-31, False), (-29, True), (60, True), (89, True), (91, False)])
def test_expiry_with_its_allowance(ahead: int, valid: bool) -> None:
    headers = signed(ahead=ahead)
    if valid:
        verify(headers)
    else:
        with pytest.raises(SignatureError, match="expire"):
            verify(headers)


def test_two_keys_while_rotating() -> None:
    both = Verifier([SIGNER.public_key, OTHER.public_key], "pod")
    assert verify(signed(SIGNER), both) == verify(signed(OTHER), both)
    with pytest.raises(SignatureError):
        verify(signed(Signer(b"3" * 32)), both)


@pytest.mark.parametrize("keys", [[], ["x"], [""], [SIGNER.public_key] * 3, [SIGNER.public_key, "AAAA"]])
def test_unusable_public_keys(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        Verifier(keys, "pod")


def test_the_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"short")


def test_times() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(1.9999999) == "1970-01-01T00:00:02.000000Z"
    assert rfc3339(1.000001) == "1970-01-01T00:00:01.000001Z"

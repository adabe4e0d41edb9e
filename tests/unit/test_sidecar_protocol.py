"""Messages survive the wire, bad ones name their field, and signatures cover what they must."""

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubecoderun_sidecar.answers import SKIP_REASONS
from kubecoderun_sidecar.clock import rfc3339
from kubecoderun_sidecar.protocol import (
    MAX_BODY_BYTES,
    MAX_EVENT_BYTES,
    Caller,
    Captured,
    FileSlot,
    Finished,
    FormTarget,
    Heartbeat,
    InlineCode,
    InputFile,
    Limits,
    OutputFile,
    OutputTarget,
    Owner,
    PrepareRequest,
    ProtocolError,
    Refusal,
    ResultTarget,
    RunResult,
    SessionRef,
    SignatureError,
    Signer,
    SkippedFile,
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
        limits = Limits(1.5, 2048)
        request = PrepareRequest(SESSION, "py", source, tuple(args), stdin, {"A": value}, limits=limits)
        assert PrepareRequest.parse(request.to_json()) == request


IDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=21, max_size=21)
PATHS = st.text(
    alphabet=st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=250
).filter(lambda path: path not in (".", ".."))
SIZES = st.integers(0, 1 << 40)
SECRETS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80)


@given(
    files=st.lists(st.tuples(PATHS, SECRETS, SIZES, st.booleans()), max_size=5),
    limits=st.tuples(st.integers(0, 256), SIZES, SIZES),
)
def test_input_files_survive_the_wire(
    files: list[tuple[str, str, int, bool]], limits: tuple[int, int, int]
) -> None:
    inputs = tuple(InputFile(f"folder/{path}", url, size, fixed) for path, url, size, fixed in files)
    request = PrepareRequest(SESSION, "py", InlineCode("x"), inputs=inputs, limits=Limits(1.5, 2048, *limits))
    assert PrepareRequest.parse(request.to_json()) == request
    for _path, url, _size, _fixed in files:
        assert f"'{url}'" not in repr(request)


@given(
    prefix=st.text(alphabet="abcdef0123", max_size=13),
    fields=st.dictionaries(SECRETS, TEXT, max_size=8),
    slots=st.lists(st.tuples(IDS, SECRETS), min_size=1, max_size=256),
)
def test_grants_survive_the_wire(prefix: str, fields: dict[str, str], slots: list[tuple[str, str]]) -> None:
    form = OutputTarget(prefix, FormTarget("http://s/b", "i/n/s/", fields))
    puts = OutputTarget(prefix, slots=tuple(FileSlot(*slot) for slot in slots))
    for outputs in (form, puts):
        for result in (None, ResultTarget("http://s/r", 16384, 1.0)):
            start = StartRequest(result, outputs)
            assert StartRequest.parse(start.to_json()) == start
    assert len(StartRequest(outputs=puts).to_json()) < MAX_BODY_BYTES


@given(
    files=st.lists(st.tuples(IDS, PATHS, SIZES, st.booleans()), max_size=256),
    skipped=st.lists(st.tuples(PATHS, st.sampled_from(sorted(SKIP_REASONS))), max_size=20),
    more=st.integers(0, 1 << 40),
)
def test_files_of_a_result_survive_the_wire(
    files: list[tuple[str, str, int, bool]], skipped: list[tuple[str, Any]], more: int
) -> None:
    result = dataclasses.replace(
        RESULT,
        files=tuple(OutputFile(*file) for file in files),
        skipped=tuple(SkippedFile(*one) for one in skipped),
        skipped_count=len(skipped) + more,
    )
    assert RunResult.parse(result.to_json()) == result
    line = event_line(Finished(result))
    assert parse_event(line) == Finished(result)
    assert len(line) < MAX_EVENT_BYTES


def test_the_longest_result_fits_in_an_event() -> None:
    path = "\U0001d4aa" * 256
    files = tuple(OutputFile("i" * 21, path, 1 << 40, True) for _ in range(256))
    skipped = tuple(SkippedFile(path, "unreadable") for _ in range(20))
    output = Captured(None, "x" * 22000, 1 << 40, True)
    result = dataclasses.replace(
        RESULT, files=files, skipped=skipped, skipped_count=1 << 60, stdout=output, stderr=output
    )
    line = event_line(Finished(result))
    assert len(line) < MAX_EVENT_BYTES
    assert parse_event(line) == Finished(result)


OUTPUTS = {"idPrefix": "p", "form": {"url": "u", "keyPrefix": "k", "fields": {"a": "b"}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"idPrefix": None}, "start.outputs.idPrefix"),
        ({"idPrefix": "x" * 65}, "start.outputs.idPrefix"),
        ({"form": None}, "start.outputs.form must be given, or slots"),
        ({"slots": [{"id": "i", "url": "u"}]}, "but not both"),
        ({"form": {"url": "", "keyPrefix": "k", "fields": {}}}, "start.outputs.form.url"),
        ({"form": {"url": "u", "keyPrefix": 1, "fields": {}}}, "start.outputs.form.keyPrefix"),
        ({"form": {"url": "u", "keyPrefix": "k", "fields": {"a": 1}}}, "start.outputs.form.fields"),
        ({"form": {"url": "u", "keyPrefix": "k", "fields": {"a": "\0"}}}, "start.outputs.form.fields"),
        ({"form": {"url": "u", "keyPrefix": "k"}}, "start.outputs.form.fields"),
        ({"form": None, "slots": [{"id": "", "url": "u"}]}, r"start.outputs.slots\[0\].id"),
        ({"form": None, "slots": [{"id": "i"}]}, r"start.outputs.slots\[0\].url"),
        ({"form": None, "slots": [{"id": "i", "url": "u"}] * 257}, "start.outputs.slots"),
        ({"form": None, "slots": "x"}, "start.outputs.slots"),
    ],
    ids=str,
)
def test_a_bad_grant_names_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        StartRequest.parse(json.dumps({"outputs": {**OUTPUTS, **changes}}).encode())


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
        Refusal("input_unavailable", "why", input=255),
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
        ({"inputs": [{"path": "a", "url": "u", "bytes": 1}] * 257}, "prepare.inputs"),
        ({"inputs": {}}, "prepare.inputs"),
        ({"inputs": ["a"]}, r"prepare.inputs\[0\]"),
        ({"inputs": [{"path": "", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "/a", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "a/../b", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "a/./b", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "a//b", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "a\0", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "\ud800", "url": "u", "bytes": 1}]}, r"prepare.inputs\[0\].path"),
        ({"inputs": [{"path": "a", "url": "", "bytes": 1}]}, r"prepare.inputs\[0\].url"),
        ({"inputs": [{"path": "a", "url": "u", "bytes": -1}]}, r"prepare.inputs\[0\].bytes"),
        ({"inputs": [{"path": "a", "url": "u", "bytes": 1, "readOnly": 1}]}, r"prepare.inputs\[0\].readOnly"),
        ({"limits__files": 257}, "prepare.limits.files"),
        ({"limits__fileBytes": -1}, "prepare.limits.fileBytes"),
        ({"limits__totalFileBytes": "1"}, "prepare.limits.totalFileBytes"),
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

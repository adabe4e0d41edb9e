"""Small parts: settings and their page, storage, signing, log lines, the timetable."""

import base64
import json
import logging
import re
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.signer import presign_v4
from pydantic import ValidationError

from kubecoderun_crds import names
from kubecoderun_operator import signing, slots
from kubecoderun_operator.log import JsonLines, about
from kubecoderun_operator.settings import Settings
from kubecoderun_operator.storage import Storage, StoreAddress
from kubecoderun_operator.sweeper import Expiry, Timetable
from kubecoderun_sidecar.protocol import (
    MAX_BODY_BYTES,
    InlineCode,
    InputFile,
    PrepareRequest,
    SessionRef,
    StartRequest,
    Verifier,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operator-settings.md"

# --- settings -----------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """A default as the page shows it."""
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value in ("", None) else f"`{value}`"


def test_the_page_lists_every_setting_as_it_is() -> None:
    rows = re.findall(r"^\| `(KCR_\w+)` \| (.*?) ?\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        (f"KCR_{name.upper()}", shown(field.default), " ".join((field.description or "").split()))
        for name, field in Settings.model_fields.items()
    ]
    assert sorted(rows) == sorted(expected)
    assert all(meaning for _, _, meaning in rows)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCR_NAMESPACES", "one, two")
    monkeypatch.setenv("KCR_POD_UID", "me")
    found = Settings()
    assert found.namespaces == ("one", "two")
    assert found.identity == "me"
    monkeypatch.setenv("KCR_POD_NAME", "operator-x")
    assert Settings().identity == "operator-x_me"


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespaces": ""},
        {"namespaces": "Not_A_Name"},
        {"runtime_uid_first": 5000, "runtime_uid_last": 4000},
        {"runtime_uid_first": 0},
        {"lease_seconds": 6.0},
        {"install_id": "a/b"},
        {"store_uploads": "form"},
        {"store_ca_file": "/nowhere/ca.pem"},
        {"orphan_share": 0},
        {"orphan_seconds": 59},
        {"log_level": "LOUD"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)  # type: ignore[arg-type]


def test_an_error_does_not_repeat_the_stores_keys() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(store_secret_key="hunter2", namespaces="")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(Settings(store_secret_key="hunter2"))  # type: ignore[arg-type]


def test_a_second_key_goes_into_pods_while_keys_are_changed() -> None:
    assert Settings().pod_defaults("mine").public_keys == ("mine",)
    assert Settings(other_public_key="next").pod_defaults("mine").public_keys == ("mine", "next")


# --- storage ------------------------------------------------------------------------------------------


def storage(
    endpoint: str = "http://store:7070",
    *,
    virtual_hosts: bool = False,
    uploads: Literal["post", "put"] = "post",
) -> Storage:
    address = StoreAddress(endpoint, "eu-1", "bucket", virtual_hosts, "install", uploads)
    return Storage(address, "access", "secret")


def test_urls_are_signed_without_asking_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("signing went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    url = urlsplit(storage().result_url("ns", "hello", 150.9))
    assert url.netloc == "store:7070"
    assert url.path == "/bucket/install/ns/hello/result.json"
    query = parse_qs(url.query)
    assert query["X-Amz-Expires"] == ["150"]
    assert "/eu-1/s3/" in query["X-Amz-Credential"][0]
    assert "secret" not in url.query


def test_code_is_read_from_the_sessions_own_key() -> None:
    assert urlsplit(storage().code_url("ns", "hello", 60)).path == "/bucket/install/ns/hello/code"


def test_urls_are_those_of_the_sdk() -> None:
    """Signed a little differently, because the SDK takes twice as long."""
    client = Minio("store:7070", access_key="access", secret_key="secret", region="eu-1", secure=False)
    at = datetime.now(UTC)
    theirs = client.get_presigned_url(
        "GET", "bucket", "install/ns/hello/code", expires=timedelta(seconds=60), request_date=at
    )
    ours = storage().code_url("ns", "hello", 60)
    signed = parse_qs(urlsplit(ours).query)["X-Amz-Date"][0]
    if signed == at.strftime("%Y%m%dT%H%M%SZ"):
        assert ours == theirs
    else:  # the second has just ended
        assert re.sub(r"(Date|Signature)=\w+", "", ours) == re.sub(r"(Date|Signature)=\w+", "", theirs)


def test_files_are_read_by_their_id() -> None:
    url = urlsplit(storage().file_url("ns", "hello", "a" * 21, 60))
    assert url.path == f"/bucket/install/ns/hello/{'a' * 21}"
    for wrong in ("code", "result.json", "../x", "A" * 21):
        with pytest.raises(ValueError, match="id of a file"):
            storage().file_url("ns", "hello", wrong, 60)


def test_the_form_takes_files_of_one_session_and_nothing_else() -> None:
    session = "abcdefghijklmnopqrstu"
    outputs = storage().outputs("ns", session, files=5, file_bytes=1000, seconds=90)
    assert outputs.form is not None
    assert (outputs.id_prefix, outputs.form.key_prefix) == (session[:13], f"install/ns/{session}/")
    assert outputs.form.url == "http://store:7070/bucket"
    policy = json.loads(base64.b64decode(outputs.form.fields["policy"]))
    conditions = policy["conditions"]
    assert ["starts-with", "$key", f"install/ns/{session}/{session[:13]}"] in conditions
    assert ["eq", "$bucket", "bucket"] in conditions
    assert ["content-length-range", 0, 1000] in conditions
    assert ["starts-with", "$x-amz-meta-path", ""] in conditions
    left = datetime.fromisoformat(policy["expiration"]) - datetime.now(UTC)
    assert timedelta(seconds=80) < left <= timedelta(seconds=90)
    assert "secret" not in json.dumps(dict(outputs.form.fields))
    sent = StartRequest(outputs=outputs)
    assert StartRequest.parse(sent.to_json()) == sent


def test_the_form_of_a_virtual_host() -> None:
    made = storage("https://s3.example.org", virtual_hosts=True)
    outputs = made.outputs("ns", "hello", files=5, file_bytes=1000, seconds=90)
    assert outputs.form is not None
    assert outputs.form.url == "https://bucket.s3.example.org/"
    assert outputs.id_prefix == names.file_id_prefix("hello")


def signed_by_the_sdk(url: str) -> str:
    """The SDK's own URL for the PUT of the same key at the same time."""
    parts, fields = urlsplit(url), parse_qs(urlsplit(url).query)
    return presign_v4(
        method="PUT",
        url=urlsplit(f"{parts.scheme}://{parts.netloc}{parts.path}"),
        region=fields["X-Amz-Credential"][0].split("/")[2],
        credentials=Credentials("access", "secret"),
        date=datetime.strptime(fields["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        expires=int(fields["X-Amz-Expires"][0]),
    ).geturl()


@given(
    keys=st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789-./", min_size=1, max_size=80), max_size=6),
    expires=st.integers(1, 604_800),
    bucket=st.sampled_from(
        ["http://store:7070/bucket", "https://bucket.s3.example.org/", "https://[::1]:9/b"]
    ),
)
def test_many_urls_are_signed_like_one(keys: list[str], expires: int, bucket: str) -> None:
    made = list(slots.presigned(urlsplit(bucket), keys, "eu-1", Credentials("access", "secret"), expires))
    assert len(made) == len(keys)
    for url in made:
        assert signed_by_the_sdk(url) == url


def test_a_url_for_each_file() -> None:
    outputs = storage(uploads="put").outputs("ns", "hello", files=3, file_bytes=1000, seconds=90)
    assert outputs.form is None
    assert len({slot.id for slot in outputs.slots}) == 3
    for slot in outputs.slots:
        assert slot.id.startswith(outputs.id_prefix)
        assert urlsplit(slot.url).path == f"/bucket/install/ns/hello/{slot.id}"
        assert signed_by_the_sdk(slot.url) == slot.url
    sent = StartRequest(outputs=outputs)
    assert StartRequest.parse(sent.to_json()) == sent


def test_most_files_fit_into_the_requests() -> None:
    """256 inputs and 256 uploads with the longest paths stay below the sidecar's bound on bodies."""
    made = storage("https://" + "s" * 60 + ".example.org", uploads="put")
    session = "s" * 63
    outputs = made.outputs("ns" * 30, session, files=256, file_bytes=1, seconds=90)
    assert len(StartRequest(outputs=outputs).to_json()) < MAX_BODY_BYTES
    url = made.file_url("ns" * 30, session, "a" * 21, 90)
    inputs = tuple(InputFile("ä" * 250 + f"{n:03d}", url, 1) for n in range(256))
    request = PrepareRequest(SessionRef("ns", session, "u"), "py", InlineCode("x" * 16_384), inputs=inputs)
    assert len(request.to_json()) < MAX_BODY_BYTES


def test_requests_about_the_bucket() -> None:
    url, headers = storage().request("GET", {"prefix": "a/ü", "list-type": "2"})
    assert url == "http://store:7070/bucket?list-type=2&prefix=a%2F%C3%BC"
    assert headers["Host"] == "store:7070"
    assert "Content-MD5" not in headers
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date" in headers["Authorization"]
    _, posted = storage().request("POST", {"delete": ""}, b"<Delete/>")
    assert posted["Content-MD5"] == "ePbrFwvNFIRnzBrIv+T8Ag=="


def test_virtual_hosts_and_tls() -> None:
    url = urlsplit(storage("https://s3.example.org", virtual_hosts=True).code_url("ns", "hello", 60))
    assert (url.scheme, url.netloc) == ("https", "bucket.s3.example.org")


def test_the_life_of_a_url_has_the_bounds_of_s3() -> None:
    long = parse_qs(urlsplit(storage().code_url("ns", "hello", 10**9)).query)
    assert long["X-Amz-Expires"] == [str(7 * 86_400)]


@pytest.mark.parametrize("session", ["../other", "a/b", "", "UPPER"])
def test_no_key_leaves_its_session(session: str) -> None:
    with pytest.raises(ValueError, match="DNS labels"):
        storage().code_url("ns", session, 60)


@pytest.mark.parametrize("endpoint", ["store:7070", "ftp://store", "http://store/path", ""])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        storage(endpoint)


# --- signing ------------------------------------------------------------------------------------------


def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "private.key"
    path.write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
    keys = signing.load(path)
    headers = keys.headers("POST", "/v1/prepare", pod_uid="pod", owner="session", epoch=4, body=b"{}")
    lowered = {name.lower(): value for name, value in headers.items()}
    caller = Verifier([keys.public_key], "pod").verify("POST", "/v1/prepare", lowered, b"{}", time.time())
    assert (caller.session_uid, caller.epoch) == ("session", 4)


@pytest.mark.parametrize("content", ["c2VjcmV0", "not base64 at all!", ""])
def test_a_wrong_key_file_is_not_repeated(tmp_path: Path, content: str) -> None:
    path = tmp_path / "private.key"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"private\.key") as caught:
        signing.load(path)
    assert not content or content not in str(caught.value)


# --- log ----------------------------------------------------------------------------------------------


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("kcr", logging.INFO, __file__, 1, "session %s", ("ended",), None)
    record.__dict__.update(about(session="hello", pool="", total_ms=12.5, pod=None))
    line = json.loads(JsonLines().format(record))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "kcr",
        "message": "session ended",
        "session": "hello",
        "total_ms": 12.5,
    }


# --- timetable ----------------------------------------------------------------------------------------


def entry(uid: str, at: float) -> Expiry:
    return Expiry(at, "ns", uid, uid)


def test_sessions_are_due_in_their_order_and_once() -> None:
    table = Timetable()
    for uid, at in (("b", 20.0), ("a", 10.0), ("c", 30.0)):
        table.put(entry(uid, at))
    assert table.next_at() == 10.0
    assert table.take_due(9.9) == []
    assert [due.uid for due in table.take_due(25.0)] == ["a", "b"]
    assert table.take_due(25.0) == []
    assert "c" in table
    assert "a" not in table


def test_a_later_entry_replaces_an_earlier_one() -> None:
    table = Timetable()
    table.put(entry("a", 10.0))
    table.put(entry("a", 50.0))
    assert table.take_due(20.0) == []
    assert [due.at for due in table.take_due(50.0)] == [50.0]
    assert len(table) == 0

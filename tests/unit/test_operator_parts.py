"""Small parts: settings and their page, storage, signing, log lines, the timetable."""

import base64
import json
import logging
import re
import socket
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from kubecoderun_operator import signing
from kubecoderun_operator.log import JsonLines, about
from kubecoderun_operator.settings import Settings
from kubecoderun_operator.storage import Storage, StoreAddress
from kubecoderun_operator.sweeper import Expiry, Timetable
from kubecoderun_sidecar.protocol import Verifier

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespaces": ""},
        {"namespaces": "Not_A_Name"},
        {"runtime_uid_first": 5000, "runtime_uid_last": 4000},
        {"runtime_uid_first": 0},
        {"lease_seconds": 6.0},
        {"install_id": "a/b"},
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


def storage(endpoint: str = "http://store:7070", *, virtual_hosts: bool = False) -> Storage:
    return Storage(StoreAddress(endpoint, "eu-1", "bucket", virtual_hosts, "install"), "access", "secret")


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
    return Expiry(at, "ns", uid, uid, None)


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

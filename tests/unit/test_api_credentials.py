"""Keys, their file, networks, and who a principal is."""

import hashlib
import json
import tempfile
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_api.auth import credentials, networks
from kubecoderun_api.auth.authenticator import Authenticator
from kubecoderun_api.auth.keys import BadLine, KeyRing, parse_line
from kubecoderun_api.auth.principal import Principal, tenant_name
from kubecoderun_api.auth.tokens import TokenPolicy
from kubecoderun_crds import names
from kubecoderun_crds.session import Request

TEXTS = st.text(min_size=1, max_size=80)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="#\x00"), min_size=1, max_size=40).filter(
    lambda key: key == key.strip() and len(key.split()) == 1 and len(key.splitlines()) == 1
)


def hashed(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def test_a_line_has_a_key_or_its_hash_and_what_goes_with_it() -> None:
    for first in ("some-long-key", hashed("some-long-key")):
        known = parse_line(f"  {first} tenant=acme label=chat role=admin ")
        assert known is not None
        assert known.digest == hashlib.sha256(b"some-long-key").digest()
        assert known.principal == Principal(tenant="acme", label="chat", admin=True)
    assert parse_line("") is parse_line("   ") is parse_line("# a comment") is None


@pytest.mark.parametrize(
    "line",
    [
        "sha256:abc",
        "sha256:" + "g" * 64,
        "the-secret-key tenant",
        "the-secret-key tenant=",
        "the-secret-key tenant=a tenant=b",
        "the-secret-key role=boss",
        "the-secret-key unknown=x",
        "the-secret-key label=a/b",
    ],
)
def test_a_line_that_cannot_be_understood_is_no_key_and_its_complaint_repeats_nothing(
    line: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadLine) as caught:
        parse_line(line)
    assert "secret" not in str(caught.value)
    file = tmp_path / "keys"
    file.write_text(f"{line}\nanother-good-key\n")
    ring = KeyRing(file)
    assert ring.find("the-secret-key") is None
    assert ring.find("another-good-key") == Principal()
    assert all("secret" not in str(vars(record)) for record in caplog.records)


@settings(deadline=None)
@given(KEYS, st.sets(KEYS, max_size=4))
def test_only_keys_of_the_file_are_known(key: str, others: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys"
        file.write_text("\n".join(hashed(other) for other in sorted(others)))
        ring = KeyRing(file)
        assert (ring.find(key) is not None) == (key in others)
        assert ring.find("") is None
        assert all(ring.find(hashed(other)) is None for other in others), "the hash is not the key"


def test_a_file_that_cannot_be_read_knows_no_key(tmp_path: Path) -> None:
    assert KeyRing(tmp_path).find("x") is None
    assert KeyRing(tmp_path / "missing").find("") is None
    assert not KeyRing(tmp_path / "missing").knows_any()


def test_keys_are_found_in_bodies_that_are_not_parsed() -> None:
    key = 'a"b\\c'
    for body in ({"code": "x", "apiKey": key}, {"LIBRECHAT_CODE_API_KEY": key}):
        assert list(credentials.candidates_in(json.dumps(body, indent=1).encode())) == [key]
    assert not list(credentials.candidates_in(json.dumps({"other": key}).encode()))


@pytest.mark.parametrize(
    ("peer", "inside"),
    [
        ("10.1.2.3", True),
        ("10.2.0.0", False),
        ("::ffff:10.1.9.9", True),
        ("fd00::5", True),
        ("fd01::5", False),
        ("fd00::5%eth0", True),
        ("", False),
        ("localhost", False),
    ],
)
def test_networks(peer: str, inside: bool) -> None:
    assert networks.contain(networks.parse("10.1.0.0/16, fd00::/64,"), peer) is inside


@settings(deadline=None)
@given(st.ip_addresses())
def test_a_network_holds_its_own_addresses(address: object) -> None:
    assert networks.contain(networks.parse(str(address)), str(address))
    assert not networks.contain((), str(address))
    assert ip_address(str(address)) == address


def test_a_network_with_host_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        networks.parse("10.1.2.3/16")


@settings(deadline=None)
@given(TEXTS)
def test_every_tenant_has_a_name_that_a_resource_may_hold(text: str) -> None:
    name = tenant_name(text)
    file = {"id": "a" * 21, "path": "a", "bytes": 0}
    assert Request.model_validate({"mode": "Files", "files": [file], "tenant": name}).tenant == name
    assert tenant_name(text) == name


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_different_texts_get_different_names_and_labels(one: str, other: str) -> None:
    assert (tenant_name(one) == tenant_name(other)) == (one == other)
    assert (names.label_value(one) == names.label_value(other)) == (one == other)


@settings(deadline=None)
@given(TEXTS)
def test_a_text_that_is_a_hash_of_another_is_not_taken_for_it(text: str) -> None:
    for made in (tenant_name, names.label_value):
        name = made(text)
        if name != text:
            assert made(name) != name


def test_ids_of_librechat_stand_in_labels_as_they_are() -> None:
    principal = Principal(tenant="acme").on_behalf_of("65f0c0ffee65f0c0ffee65f0")
    assert principal.labels() == {
        "kubecoderun.io/tenant": "acme",
        "kubecoderun.io/user": "65f0c0ffee65f0c0ffee65f0",
    }
    assert Principal().labels() == {}


def test_a_token_s_user_is_not_replaced_by_what_the_request_says() -> None:
    assert Principal(user="me", vouched=True).on_behalf_of("you").user == "me"
    assert Principal().on_behalf_of(5).user is None
    assert Principal().on_behalf_of("  ").user is None
    assert len(Principal().on_behalf_of("u" * 1000).user or "") == 256


def test_credentials_are_not_shown() -> None:
    assert "hush" not in repr(Principal(credentials=frozenset({"hush"})))


@settings(deadline=None)
@given(st.text(min_size=8, max_size=50), st.text(max_size=20), st.text(max_size=20))
def test_a_credential_is_seen_wherever_it_stands(key: str, before: str, after: str) -> None:
    principal = Principal(credentials=frozenset({key}))
    assert principal.is_leaked_in(json.dumps({"a": [{"b": before + key + after}]}).encode())
    assert not principal.is_leaked_in(b"{}")


@settings(deadline=None)
@given(st.text(min_size=1, max_size=30), st.binary(max_size=40))
async def test_a_credential_that_is_no_key_is_never_accepted(text: str, junk: bytes) -> None:
    who = Authenticator(
        keys=None, token_keys=None, policy=TokenPolicy("i", "a"), open_networks=(), required=True
    )
    assert not await who.may_be_in(json.dumps({"apiKey": text}).encode())
    assert not await who.may_be_in(junk)

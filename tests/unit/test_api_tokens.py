"""Tokens: what is accepted, and that nothing else is."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.auth.token_keys import from_pem, parse_set
from kubecoderun_api.auth.tokens import BadToken, TokenPolicy, key_id, looks_like_token, verify

ED, RSA = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
POLICY = TokenPolicy("librechat", "codeapi", admin_roles=frozenset({"ADMIN"}))
Json = dict[str, Any]


def pem(private: Any) -> bytes:
    return bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def claims(**changed: Any) -> Json:
    now = int(time.time())
    made = {
        "iss": "librechat",
        "aud": "codeapi",
        "sub": "user-1",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
        "jti": "one",
        "principal_source": "librechat_jwt",
        "auth_context_hash": "x",
        **changed,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(payload: Json, private: Any = ED, algorithm: str = "EdDSA", **header: Any) -> str:
    return jwt.encode(payload, private, algorithm, headers={"kid": "k1"} | header)


def check(made: str, private: Any = ED, policy: TokenPolicy = POLICY) -> Principal:
    key_id(made, policy)
    return verify(made, from_pem(pem(private), "k1"), policy)


@pytest.mark.parametrize(("private", "algorithm"), [(ED, "EdDSA"), (RSA, "RS256")])
def test_a_good_token(private: Any, algorithm: str) -> None:
    made = token(claims(tenant_id="acme", role="USER"), private, algorithm)
    assert looks_like_token(made)
    assert key_id(made, POLICY) == "k1"
    assert check(made, private) == Principal(tenant="acme", user="user-1", vouched=True)


def test_claims_that_may_be_otherwise() -> None:
    assert check(token(claims())).tenant is None
    assert check(token(claims(aud=["other", "codeapi"]))).user == "user-1"
    assert check(token(claims(role="ADMIN"))).admin
    for role in ("USER", "admin", ["ADMIN"], {"ADMIN": 1}):
        assert not check(token(claims(role=role))).admin
    assert check(token(claims(nbf=None, jti=None, principal_source=None))).user == "user-1"
    policy = TokenPolicy("librechat", "codeapi", tenant_claim="org")
    assert check(token(claims(org="b")), policy=policy).tenant == "b"
    now = int(time.time())
    assert check(token(claims(iat=now - 80, exp=now - 20))).user == "user-1"  # clocks may differ by 30 s


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "u" * 257}, "sub"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "aud"),
        ({"iss": "other"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": 5}, "tenant_id"),
    ],
)
def test_a_claim_that_is_wrong(changed: Json, word: str) -> None:
    with pytest.raises(BadToken, match=word):
        check(token(claims(**changed)))


@settings(deadline=None)
@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_times(begin: int, length: int) -> None:
    now = int(time.time())
    made = token(claims(iat=now + begin, nbf=now + begin, exp=now + begin + length))
    good = 0 < length <= 300 and begin <= 27 and begin + length > -27
    bad = not 0 < length <= 300 or begin > 33 or begin + length < -33
    if good:
        assert check(made).user == "user-1"
    elif bad:
        with pytest.raises(BadToken):
            check(made)


def test_no_tenant_may_be_refused() -> None:
    with pytest.raises(BadToken, match="tenant"):
        check(token(claims()), policy=TokenPolicy("librechat", "codeapi", tenant_required=True))


def test_forged_tokens() -> None:
    for made in (
        token(claims(), Ed25519PrivateKey.generate()),
        token(claims(), RSA, "RS256"),
        jwt.encode(claims(), None, "none", headers={"kid": "k1"}),
        jwt.encode(claims(), "s" * 40, "HS256", headers={"kid": "k1"}),
        token(claims())[:-4] + "AAAA",
        token(claims(), kid=""),
        jwt.encode(claims(), ED, "EdDSA"),
    ):
        with pytest.raises(BadToken):
            check(made)
    with pytest.raises(BadToken):  # an algorithm that was switched off
        check(token(claims(), RSA, "RS256"), RSA, TokenPolicy("librechat", "codeapi", ("EdDSA",)))


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["", ".", "..", "a.b.c"]))
def test_junk_is_refused_and_nothing_else_happens(text: str, middle: str) -> None:
    for made in (text, text + middle, token(claims())[: len(text)] + middle):
        with pytest.raises(BadToken):
            check(made)


def test_sets_of_keys() -> None:
    one = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(ED.public_key())) | {"kid": "k1", "use": "sig"}
    other = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(RSA.public_key())) | {"kid": "k2"}
    others: list[Any] = [{"kty": "oct", "k": "c2VjcmV0", "kid": "k3"}, {"kty": "new", "kid": "k4"}, 5, {}]
    others += [{**one, "kid": ""}, {**one, "kid": "k5", "use": "enc"}]
    keys = parse_set(json.dumps({"keys": [one, other, *others]}).encode())
    assert set(keys) == {"k1", "k2"}
    assert verify(token(claims()), keys["k1"], POLICY).user == "user-1"
    assert set(parse_set(json.dumps(one).encode())) == {"k1"}
    for bad in (b"[]", b"x", b'{"keys": 5}'):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_set(bad)

"""Signs a token as LibreChat does, with the private key in its `.env`, to see whether it is accepted."""

import base64
import binascii
import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

DEFAULT_KID: Final = "lc-codeapi-2026-05"
_SECONDS: Final = 60
_ALGORITHMS: Final = ("EdDSA", "RS256")


class TokenError(Exception):
    """No token can be made; the text says why, and holds nothing of the key."""


def sign(env: Mapping[str, str], now: float | None = None) -> str:
    """A token good for a minute. Raises TokenError."""
    moment = int(time.time() if now is None else now)
    claims = {
        "iss": env.get("CODEAPI_JWT_ISSUER") or "librechat",
        "aud": env.get("CODEAPI_JWT_AUDIENCE") or "codeapi",
        "sub": "kubecoderun-doctor",
        "iat": moment,
        "nbf": moment,
        "exp": moment + _SECONDS,
        "jti": uuid.uuid4().hex,
        "principal_source": "librechat_jwt",
        "auth_context_hash": hashlib.sha256(b"kubecoderun-doctor").hexdigest(),
    }
    tenant = env.get("CODEAPI_JWT_SINGLE_TENANT_ID")
    if tenant:
        claims["tenant_id"] = tenant
    key, algorithm = _key(env)
    headers = {"kid": env.get("CODEAPI_JWT_KID") or env.get("CODEAPI_JWT_KEY_ID") or DEFAULT_KID}
    try:
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)
    except (jwt.PyJWTError, TypeError, ValueError):
        raise TokenError("the private key cannot sign") from None


def _key(env: Mapping[str, str]) -> tuple[Ed25519PrivateKey | RSAPrivateKey | jwt.PyJWK, str]:
    document = env.get("CODEAPI_JWT_PRIVATE_JWK_JSON", "").strip()
    if document:
        try:
            found = jwt.PyJWK(json.loads(document))
        except (jwt.PyJWTError, ValueError, TypeError):
            raise TokenError("CODEAPI_JWT_PRIVATE_JWK_JSON is not a JWK") from None
        if found.algorithm_name not in _ALGORITHMS:
            raise TokenError(f"the private key is not one for {' or '.join(_ALGORITHMS)}")
        return found, found.algorithm_name
    try:
        private = load_pem_private_key(_pem(env), password=None)
    except (ValueError, TypeError):
        raise TokenError("the private key is not a PEM without a password") from None
    if isinstance(private, Ed25519PrivateKey):
        return private, "EdDSA"
    if isinstance(private, RSAPrivateKey):
        return private, "RS256"
    raise TokenError(f"the private key is not one for {' or '.join(_ALGORITHMS)}")


def _pem(env: Mapping[str, str]) -> bytes:
    encoded = env.get("CODEAPI_JWT_PRIVATE_KEY_BASE64", "").strip()
    if encoded:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise TokenError("CODEAPI_JWT_PRIVATE_KEY_BASE64 is not base64") from None
    # a .env has its line breaks as \n
    return env.get("CODEAPI_JWT_PRIVATE_KEY", "").replace("\\n", "\n").encode()

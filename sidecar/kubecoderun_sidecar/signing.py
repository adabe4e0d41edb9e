"""Who may drive a sidecar: Ed25519 signatures over method, path, pod, owner, epoch, expiry and body.

Pods hold public keys only, so nobody who can read a pod can drive it. A replayed request does no harm: it
names one pod, one owner and one body, and every operation is idempotent for its owner.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

HEADER_SESSION_UID = "KCR-Session-Uid"
HEADER_EPOCH = "KCR-Epoch"
HEADER_EXPIRES = "KCR-Expires"
HEADER_SIGNATURE = "KCR-Signature"

EXPIRES_AHEAD_SECONDS = 60
"""How long a signature may live."""
CLOCK_SKEW_SECONDS = 30
"""How far the two clocks may differ: added at both ends of the window."""


class SignatureError(ValueError):
    """A request is not signed by a known key for this pod, or not for this moment."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks, once the signature is checked: the owner the request is about, and the operator's epoch."""

    session_uid: str
    epoch: int


def signing_text(
    method: str, path: str, pod_uid: str, session_uid: str, epoch: int, expires: int, body: bytes
) -> bytes:
    """The bytes that are signed. `path` is the request target as sent (the protocol has no queries)."""
    digest = hashlib.sha256(body).hexdigest()
    return f"kcr1\n{method} {path}\n{pod_uid}\n{session_uid}\n{epoch}\n{expires}\n{digest}".encode()


class Signer:
    """Signs requests with the operator's Ed25519 key (a seed of 32 bytes)."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError("the signing key must be a seed of 32 bytes")
        self._key = SigningKey(seed)

    @property
    def public_key(self) -> str:
        """Base64 form, as KCR_PUBLIC_KEYS takes it."""
        return base64.b64encode(bytes(self._key.verify_key)).decode("ascii")

    def headers(
        self, method: str, path: str, *, pod_uid: str, caller: Caller, body: bytes, expires: int
    ) -> dict[str, str]:
        """Headers for one request. `expires` is unix seconds, at most EXPIRES_AHEAD_SECONDS ahead."""
        text = signing_text(method, path, pod_uid, caller.session_uid, caller.epoch, expires, body)
        return {
            HEADER_SESSION_UID: caller.session_uid,
            HEADER_EPOCH: str(caller.epoch),
            HEADER_EXPIRES: str(expires),
            HEADER_SIGNATURE: base64.b64encode(self._key.sign(text).signature).decode("ascii"),
        }


class Verifier:
    """Checks requests to one pod against one public key, or two while a key is being rotated."""

    def __init__(self, public_keys: Iterable[str], pod_uid: str) -> None:
        self._keys = [_public_key(text) for text in public_keys]
        if not 1 <= len(self._keys) <= 2:
            raise ValueError("one or two public keys are needed")
        self._pod_uid = pod_uid

    def verify(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Caller:
        """The caller, or SignatureError. `headers` has lower-case names; `now` is unix seconds."""
        session_uid = headers.get(HEADER_SESSION_UID.lower(), "")
        epoch = _header_integer(headers, HEADER_EPOCH)
        expires = _header_integer(headers, HEADER_EXPIRES)
        if not 1 <= len(session_uid) <= 128 or not session_uid.isascii() or not session_uid.isprintable():
            raise SignatureError(f"{HEADER_SESSION_UID} is missing or malformed")
        if expires < now - CLOCK_SKEW_SECONDS:
            raise SignatureError("the signature has expired")
        if expires > now + EXPIRES_AHEAD_SECONDS + CLOCK_SKEW_SECONDS:
            raise SignatureError("the signature expires too far ahead")
        signature = _decode64(headers.get(HEADER_SIGNATURE.lower(), ""), 64, HEADER_SIGNATURE, SignatureError)
        text = signing_text(method, path, self._pod_uid, session_uid, epoch, expires, body)
        if not any(_matches(key, text, signature) for key in self._keys):
            raise SignatureError("the signature does not match")
        return Caller(session_uid, epoch)


def _matches(key: VerifyKey, text: bytes, signature: bytes) -> bool:
    try:
        key.verify(text, signature)
    except BadSignatureError:
        return False
    return True


def _public_key(text: str) -> VerifyKey:
    return VerifyKey(_decode64(text, 32, "public key", ValueError))


def _decode64(text: str, size: int, what: str, error: Callable[[str], ValueError]) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != size:
        raise error(f"{what} must be base64 of {size} bytes")
    return data


def _header_integer(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name.lower(), "")
    # Only canonical decimals: "+1" or "01" would sign a different text than they mean.
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and text == str(int(text))):
        raise SignatureError(f"{name} is missing or not a number")
    return int(text)

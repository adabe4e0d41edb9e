"""The key that signs requests to sidecars. Only the operator has it; pods have its public half."""

import base64
import binascii
import time
from pathlib import Path

from kubecoderun_sidecar.protocol import EXPIRES_AHEAD_SECONDS, Caller, Signer

_LIFE_SECONDS = EXPIRES_AHEAD_SECONDS - 5
"""A little less than allowed, so that a clock that is a second off needs none of the sidecar's tolerance."""


class Signatures:
    """Signs requests as one owner of one pod."""

    def __init__(self, seed: bytes) -> None:
        self._signer = Signer(seed)

    @property
    def public_key(self) -> str:
        """Base64, as pods get it."""
        return self._signer.public_key

    def headers(
        self, method: str, path: str, *, pod_uid: str, owner: str, epoch: int, body: bytes
    ) -> dict[str, str]:
        """Signature headers for one request. owner: uid of the session, or of the pod itself to retire it."""
        expires = int(time.time()) + _LIFE_SECONDS
        caller = Caller(owner, epoch)
        return self._signer.headers(method, path, pod_uid=pod_uid, caller=caller, body=body, expires=expires)


def load(path: Path) -> Signatures:
    """Read the key. Raises ValueError, without the content, for a file that is not base64 of 32 bytes."""
    try:
        seed = base64.b64decode(path.read_text("ascii").strip(), validate=True)
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"{path} is not base64") from None
    if len(seed) != 32:
        raise ValueError(f"{path} does not hold 32 bytes")
    return Signatures(seed)

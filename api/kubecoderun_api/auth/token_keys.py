"""Public keys that tokens are checked with: from a folder, or from a JWKS address (RFC 7517).

Both are read again after a while and when a token names a key that is not known, so that keys are changed
without a restart. Keys that were read once stay good while the address does not answer, for a while.
"""

import asyncio
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kubecoderun_api import log
from kubecoderun_api.auth.tokens import ALGORITHMS

Keys = dict[str, jwt.PyJWK]
_FETCH_SECONDS: Final = 3.0
_MAX_DOCUMENT_BYTES: Final = 1024 * 1024
_PAUSE_SECONDS: Final = 1.0
"""Between two attempts, however many tokens with unknown keys come."""
_STALE_SECONDS: Final = 3600.0
"""How long keys are used that could not be read again."""


class NoKeys(Exception):  # noqa: N818 - says what there is
    """The keys cannot be read, and there are none from before."""


class TokenKeys:
    """The keys by their id."""

    def __init__(self, *, folder: Path | None, url: str | None, fresh_seconds: float) -> None:
        """Keys older than `fresh_seconds` are read again before they are used."""
        self._folder = folder
        self._url = url
        self._fresh_seconds = fresh_seconds
        self._keys: Keys = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._reading = asyncio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key with that id; None if there is none. Raises NoKeys if that cannot be found out."""
        if time.monotonic() - self._read_at >= self._fresh_seconds or kid not in self._keys:
            await self._read_again(kid)
        found = self._keys.get(kid)
        if found is None and time.monotonic() - self._read_at > self._fresh_seconds + _PAUSE_SECONDS:
            raise NoKeys
        return found

    async def _read_again(self, kid: str) -> None:
        async with self._reading:
            now = time.monotonic()
            if now - self._tried_at < _PAUSE_SECONDS:
                return
            self._tried_at = now
            try:
                self._keys = await self._read()
                self._read_at = time.monotonic()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, jwt.PyJWTError) as error:
                log.event("token_keys_not_read", level=log.ERROR, error=error)
                if now - self._read_at > _STALE_SECONDS:
                    self._keys = {}

    async def _read(self) -> Keys:
        keys: Keys = {}
        if self._folder is not None:
            keys |= read_folder(self._folder)
        if self._url is not None:
            keys |= parse_set(await _fetch(self._url))
        return keys


def read_folder(folder: Path) -> Keys:
    """Keys of all files of a folder: `*.json` is a JWK or a set of them, all other files one PEM each.

    A PEM's key has the file's name without its extension as its id. Raises OSError; a file that cannot be
    understood is logged and left out.
    """
    keys: Keys = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue  # the kubelet's own entries in a mounted Secret
        try:
            if path.suffix == ".json":
                keys |= parse_set(path.read_bytes())
            else:
                keys[path.stem] = from_pem(path.read_bytes(), path.stem)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            log.event("token_key_refused", level=log.ERROR, file=path.name, error=error)
    return keys


def from_pem(pem: bytes, kid: str) -> jwt.PyJWK:
    """A public key in PEM. Raises ValueError for what is none that tokens may be signed with."""
    public = load_pem_public_key(pem)
    for algorithm in ALGORITHMS:
        handler = jwt.get_algorithm_by_name(algorithm)
        try:
            document: dict[str, Any] = json.loads(handler.to_jwk(public))
        except (jwt.PyJWTError, TypeError, AttributeError, ValueError):
            continue
        return jwt.PyJWK({**document, "kid": kid}, algorithm)
    raise ValueError("a key for EdDSA or RS256 is needed")


def parse_set(document: bytes) -> Keys:
    """The keys of a JWK or of a set of them that have an id and an algorithm of ours. Raises ValueError."""
    parsed = json.loads(document)
    if not isinstance(parsed, dict):
        raise ValueError("a JWK set is a JSON object")
    entries = parsed.get("keys", [parsed])
    if not isinstance(entries, list):
        raise ValueError("keys of a JWK set is a list")
    return dict(_usable(entries))


def _usable(entries: Iterable[Any]) -> Iterable[tuple[str, jwt.PyJWK]]:
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or not kid or entry.get("use", "sig") != "sig" or "k" in entry:
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # of a kind that is of no use here, as sets may hold
        if key.algorithm_name in ALGORITHMS:
            yield kid, key


async def _fetch(url: str) -> bytes:
    limit = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
    async with (
        aiohttp.ClientSession(timeout=limit) as session,
        session.get(url, headers={"Accept": "application/json"}) as response,
    ):
        response.raise_for_status()
        document = await response.content.read(_MAX_DOCUMENT_BYTES + 1)
        while len(document) <= _MAX_DOCUMENT_BYTES and not response.content.at_eof():
            document += await response.content.read(_MAX_DOCUMENT_BYTES + 1 - len(document))
    if len(document) > _MAX_DOCUMENT_BYTES:
        raise ValueError("the JWK set is too large")
    return document

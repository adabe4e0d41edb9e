"""API keys: where a request may carry one, and which are known.

A key may stand in `X-API-Key`, in `Authorization` (Bearer or ApiKey), or in the JSON body under one of three
names that LibreChat's clients use. Keys are kept as hashes only and never leave this module.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

BODY_NAMES = ("LIBRECHAT_CODE_API_KEY", "api_key", "apiKey")
_SCHEMES = ("bearer", "apikey")
_FOREIGN = "\0"
"""Begins a credential that cannot be one of our keys."""
_IN_BODY = re.compile(rb'"(?:LIBRECHAT_CODE_API_KEY|api_key|apiKey)"\s*:\s*("(?:[^"\\]|\\.){1,1024}")')

Headers = Iterable[tuple[bytes, bytes]]


class Verdict(StrEnum):
    """Outcome of looking at all credentials of one request."""

    ACCEPTED = "accepted"
    MISSING = "missing"
    WRONG = "wrong"
    AMBIGUOUS = "ambiguous"


def header_credentials(headers: Headers) -> set[str]:
    """All different credentials in the headers (names in lower case, as ASGI has them).

    An Authorization header of another scheme counts as a credential too (one that nobody knows), so that it
    cannot hide beside a good key.
    """
    found = set()
    for name, raw in headers:
        value = raw.decode("latin-1").strip()
        if name == b"authorization" and value:
            scheme, _, rest = value.partition(" ")
            found.add(rest.strip() if scheme.lower() in _SCHEMES else f"{_FOREIGN}{value}")
        elif name == b"x-api-key" and value:
            found.add(value)
    return found


def body_credentials(body: Mapping[str, Any]) -> set[str]:
    """All different credentials in a JSON body; empty and non-text values are none."""
    values = (body.get(name) for name in BODY_NAMES)
    return {value.strip() for value in values if isinstance(value, str) and value.strip()}


class KeyRing:
    """The known keys of one file, or everybody (`path` is None)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._digests: tuple[bytes, ...] = ()

    @property
    def open_to_all(self) -> bool:
        """Whether no key is needed."""
        return self._path is None

    def knows_any(self) -> bool:
        """Whether the file can be read and holds a key."""
        if self._path is not None:
            self._refresh(self._path)
        return bool(self._digests)

    def judge(self, credentials: set[str]) -> Verdict:
        """Decide about the credentials of one request. A file that cannot be read knows no key."""
        if self.open_to_all:
            return Verdict.ACCEPTED
        if not credentials:
            return Verdict.MISSING
        if len(credentials) > 1:
            return Verdict.AMBIGUOUS
        return Verdict.ACCEPTED if self._knows(next(iter(credentials))) else Verdict.WRONG

    def may_be_in(self, raw_body: bytes | bytearray) -> bool:
        """Whether an unparsed body holds a known key: keeps big bodies of strangers from the JSON parser."""
        if self.open_to_all:
            return True
        for match in _IN_BODY.finditer(raw_body):
            try:
                value = json.loads(match[1])
            except ValueError:
                continue
            if self._knows(value.strip()):
                return True
        return False

    def _knows(self, credential: str) -> bool:
        if self._path is not None:
            self._refresh(self._path)
        digest = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()
        known = False
        for candidate in self._digests:  # no early exit: the time tells nothing about which key was close
            known |= hmac.compare_digest(candidate, digest)
        return known

    def _refresh(self, path: Path) -> None:
        """Read the file if it is another one than last time (a mounted Secret is swapped as a whole)."""
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            self._stamp, self._digests = None, ()
            return
        keys = {line.strip() for line in lines} - {""}
        self._stamp = stamp
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in sorted(keys))

"""API keys: one file with a line for each, which is read again when it changes.

A line is a key, or better its hash, and what goes with it:

    sha256:<64 hexadecimal digits> [label=NAME] [tenant=NAME] [role=admin]

Keys are kept as hashes only and never leave this module. They are long and random, so a plain hash is enough.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubecoderun_api import log
from kubecoderun_api.auth.principal import Principal, tenant_name

_HASH: Final = re.compile(r"sha256:([0-9a-fA-F]{64})")
_LABEL: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,62}")


@dataclass(frozen=True)
class KnownKey:
    """One key of the file."""

    digest: bytes
    principal: Principal


class BadLine(ValueError):  # noqa: N818 - says what it is
    """A line that cannot be understood; its text says why without repeating any of it."""


def parse_line(line: str) -> KnownKey | None:
    """Read one line; None for an empty one and for a comment (`#`). Raises BadLine."""
    first, *options = line.split() or [""]
    if not first or first.startswith("#"):
        return None
    if match := _HASH.fullmatch(first):
        digest = bytes.fromhex(match[1])
    elif first.startswith("sha256:"):
        raise BadLine("a hash has 64 hexadecimal digits")
    else:
        digest = _digest(first)
    return KnownKey(digest, _principal(options))


def _principal(options: Iterable[str]) -> Principal:
    known: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("label", "tenant", "role") or not value or name in known:
            raise BadLine("after a key there may be label=, tenant= and role=, each once")
        known[name] = value
    if known.get("role", "admin") != "admin":
        raise BadLine("the only role is admin")
    if not _LABEL.fullmatch(known.get("label", "x")):
        raise BadLine("a label has letters, digits, dashes, underscores and dots")
    tenant = known.get("tenant")
    return Principal(
        tenant=None if tenant is None else tenant_name(tenant),
        admin="role" in known,
        label=known.get("label", ""),
    )


class KeyRing:
    """The known keys of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: tuple[KnownKey, ...] = ()

    def knows_any(self) -> bool:
        """Whether the file can be read and holds a key."""
        self._refresh()
        return bool(self._keys)

    def find(self, credential: str) -> Principal | None:
        """Whose key this is; None if it is nobody's. A file that cannot be read knows no key."""
        self._refresh()
        digest = _digest(credential)
        found = None
        for known in self._keys:  # no early exit: the time tells nothing about which key was close
            if hmac.compare_digest(known.digest, digest):
                found = known.principal
        return found

    def _refresh(self) -> None:
        """Read the file if it is another one than last time (a mounted Secret is swapped as a whole)."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            self._stamp, self._keys = None, ()
            return
        self._stamp = stamp
        self._keys = tuple(_understood(lines))


def _understood(lines: Iterable[str]) -> Iterable[KnownKey]:
    for number, line in enumerate(lines, 1):
        try:
            known = parse_line(line)
        except BadLine as error:
            log.event("bad_key_line", level=log.ERROR, line=number, problem=str(error))
            continue
        if known is not None:
            yield known


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

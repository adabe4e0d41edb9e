"""On whose behalf a request is served. No I/O.

The tenant is the boundary: nobody sees or uses what belongs to another tenant. The user is a note inside it,
so that all of one user's sessions can be found; only a token vouches for it.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Final

from kubecoderun_crds import names

_TENANT: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9._:@]{0,126}[A-Za-z0-9])?")
_HASHED: Final = "sha256-"
MAX_USER_LENGTH: Final = 256
_SHORTEST_SECRET: Final = 8
"""Characters; what is shorter occurs in texts by chance."""


@dataclass(frozen=True)
class Principal:
    """Who is calling."""

    tenant: str | None = None
    """None is a tenant too: that of all callers whose credential names none."""
    user: str | None = None
    vouched: bool = False
    """Whether a token says who the user is, rather than the caller."""
    admin: bool = False
    """Whether it may delete what belongs to others of its tenant."""
    label: str = ""
    """What the key is called in the log; empty if it has no name."""
    credentials: frozenset[str] = field(default=frozenset(), repr=False)
    """What it has sent to prove itself; kept for `is_leaked_in` only."""

    def on_behalf_of(self, user: object) -> "Principal":
        """The same for the user that the request names, unless a token has named one; no text: nobody."""
        if self.vouched or not isinstance(user, str) or not user.strip():
            return self
        return replace(self, user=user.strip()[:MAX_USER_LENGTH])

    def for_everybody(self) -> "Principal":
        """The same, for what no single user of the tenant owns."""
        return replace(self, user=None)

    def labels(self) -> dict[str, str]:
        """Labels of the sessions that are made for it."""
        texts = {names.LABEL_TENANT: self.tenant, names.LABEL_USER: self.user}
        return {label: names.label_value(text) for label, text in texts.items() if text}

    def owns(self, tenant: str | None) -> bool:
        """Whether something of that tenant is its own."""
        return self.tenant == tenant

    def is_leaked_in(self, document: bytes) -> bool:
        """Whether one of its credentials stands somewhere in a JSON document."""
        return any(
            json.dumps(credential)[1:-1].encode() in document
            for credential in self.credentials
            if len(credential) >= _SHORTEST_SECRET
        )


def tenant_name(text: str) -> str:
    """How a tenant is called in resources: by its name if that is possible, else by a hash of it."""
    if _TENANT.fullmatch(text) and not text.startswith(_HASHED):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]

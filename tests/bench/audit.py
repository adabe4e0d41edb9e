"""Who wrote how often: reads the API server's audit log, one JSON document per line. No I/O."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
OWN_ACCOUNTS = "system:serviceaccount:kubecoderun-system:"
LEASES = "leases"


class AuditError(Exception):
    """A line of the log is not what an audit log holds."""


@dataclass(frozen=True)
class Write:
    """One request that wanted to change something."""

    account: str
    verb: str
    what: str
    """Resource, and subresource after a slash."""
    refused: bool


def writes(lines: Iterable[str]) -> list[Write]:
    """Every completed writing request of a log. Raises AuditError for a line that is no audit event."""
    found = []
    for line in lines:
        if not line.strip():
            continue
        try:
            event: dict[str, Any] = json.loads(line)
            stage, verb, account = event["stage"], event["verb"], event["user"]["username"]
        except (ValueError, KeyError, TypeError) as wrong:
            raise AuditError(f"not an audit event: {line[:80]!r}") from wrong
        if stage == "ResponseComplete" and verb in WRITES:
            code = int(event.get("responseStatus", {}).get("code", 0))
            found.append(Write(str(account), str(verb), subject(event.get("objectRef") or {}), code >= 400))
    return found


def subject(reference: Mapping[str, str]) -> str:
    """What a request was about, such as `pods` or `executionsessions/status`."""
    parts = (reference.get("resource", "unknown"), reference.get("subresource"))
    return "/".join(part for part in parts if part)


def short_account(account: str) -> str:
    """An account's name without what every account of its kind begins with; all nodes are one account."""
    if account.startswith("system:node:"):
        return "kubelet"
    return account.removeprefix("system:serviceaccount:").removeprefix("kube-system:").removeprefix("system:")


def per_session(found: Iterable[Write], sessions: int) -> dict[str, Any]:
    """Writes for each of `sessions` runs: by our own accounts, by everyone, and in detail. Leases are
    counted apart.

    Refused requests count too: they cost the API server as much.
    """
    considered = [write for write in found if write.what != LEASES]
    own = [write for write in considered if write.account.startswith(OWN_ACCOUNTS)]
    accounts = Counter(short_account(write.account) for write in considered)
    details = Counter(f"{short_account(w.account)} {w.verb} {w.what}" for w in considered)
    return {
        "n": sessions,
        "errors": 0,
        "own_writes": share(len(own), sessions),
        "own_refused": share(sum(write.refused for write in own), sessions),
        "all_writes": share(len(considered), sessions),
        "by_account": {name: share(count, sessions) for name, count in accounts.most_common()},
        "in_detail": {name: share(count, sessions) for name, count in details.most_common()},
    }


def share(count: int, sessions: int) -> float:
    """A count for each session, with two decimals."""
    return round(count / sessions, 2)

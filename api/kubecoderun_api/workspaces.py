"""From a client's runtime_session_hint to a workspace: which one it is, and that it is there.

The name of a workspace follows from who asks and the hint, by a keyed hash. So any replica finds the same
one, two that make it at the same time make one (the API server lets only one of them), and nobody learns a
hint from a name. A workspace that has ended makes room for a new one of the same name.

The tenant is part of the name, and of the workspace: the operator lets no run of another one in. So is the
user, and whether a token says who that is: naming somebody does not lead to what tokens have vouched for.
"""

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_api import answers, log, wire
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.principal import Principal
from kubecoderun_api.cluster import Cluster, ClusterError
from kubecoderun_api.manifests import in_json
from kubecoderun_api.profiles import Profile
from kubecoderun_api.waiters import NoResult
from kubecoderun_api.watching import backoff
from kubecoderun_crds import names
from kubecoderun_crds.reasons import TERMINAL_PHASES, Mode, Reason

Json = dict[str, Any]

HINT: Final = "runtime_session_hint"
_HINT: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DIGITS: Final = 40
_PAUSE: Final = 0.05
ATTEMPTS: Final = 3
"""Workspaces that may end under one call before it is answered with an error."""
GONE: Final = frozenset({Reason.WORKSPACE_ENDED, Reason.WORKSPACE_NOT_FOUND})
"""Ends of a run that was not started because its workspace was not there any more."""


def hint_of(body: Mapping[str, Any], profile: Profile | None) -> str | None:
    """The hint that counts. Raises BadRequest for one that cannot be one.

    A client that asserts the profile `default` has told its model that runs stand alone.
    """
    value = body.get(HINT)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or _HINT.fullmatch(value) is None:
        wire.refuse(f"{HINT} must be 1 to 128 characters: letters, digits, '.', '_', ':' or '-'")
    return None if profile is Profile.DEFAULT else value


_PREFIX: Final = "ws-"
_ID_PREFIX: Final = "rt_"


@dataclass(frozen=True)
class Place:
    """The workspace of a hint."""

    name: str
    """The session of mode Workspace."""
    id: str
    """What clients are told, `rt_` and 40 digits: the same for as long as the hint is."""
    pool: str


def named(answer: Answer, session: Mapping[str, Any], status: Mapping[str, Any]) -> Answer:
    """The answer of a session that ended with that status, with the workspace that it ran in, if a hint has
    led to it."""
    workspace = (session["spec"]["request"].get("workspaceRef") or {}).get("name") or ""
    digits = workspace.removeprefix(_PREFIX)
    if digits == workspace:
        return answer
    return answers.in_runtime_session(answer, f"{_ID_PREFIX}{digits}", status)


def place(key: bytes, pool: str, hint: str, principal: Principal) -> Place:
    """The workspace of a hint, for this tenant and user, in this pool."""
    who = [principal.tenant, principal.user, principal.user is not None and principal.vouched]
    told = json.dumps([*who, pool, hint]).encode()
    digits = hmac.new(key, b"workspace\n" + told, hashlib.sha256).hexdigest()[:_DIGITS]
    return Place(f"{_PREFIX}{digits}", f"{_ID_PREFIX}{digits}", pool)


class Workspaces:
    """Makes workspaces, and makes them anew."""

    def __init__(self, cluster: Cluster, *, namespace: str, key: bytes, create_seconds: float) -> None:
        """key: secret that names are derived with; equal in all replicas."""
        self._cluster = cluster
        self._namespace = namespace
        self._key = key
        self._create_seconds = create_seconds

    def place(self, pool: str, hint: str, principal: Principal) -> Place:
        """See `place`."""
        return place(self._key, pool, hint, principal)

    async def ensure(self, place: Place, principal: Principal) -> None:
        """See to it that the principal's workspace is there. It need not have its pod yet: runs wait for
        that.

        Raises NoResult if that fails.
        """
        give_up = time.monotonic() + self._create_seconds
        failures = 0
        while True:
            try:
                if await self._is_there(place) or await self._make(place, principal):
                    return
                failures, delay = 0, _PAUSE  # somebody else was quicker: look again
            except ClusterError as error:
                failures += 1
                delay = max(backoff(failures), error.retry_after or 0.0)
                log.event(
                    "workspace_failed",
                    level=log.WARNING,
                    session=place.name,
                    status=error.status,
                    reason=error.reason,
                    attempt=failures,
                )
                if not error.retriable:
                    raise NoResult("Refused") from None
            if time.monotonic() + delay >= give_up:
                raise NoResult("NotCreated")
            await asyncio.sleep(delay)

    async def _is_there(self, place: Place) -> bool:
        """Whether it can be used. One that has ended is removed."""
        try:
            found = await self._cluster.get_session(place.name)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        meta, status = found["metadata"], found.get("status") or {}
        if meta.get("deletionTimestamp"):
            return False
        if status.get("phase") not in TERMINAL_PHASES:
            return True
        log.event("workspace_replaced", session=place.name, reason=status.get("reason"))
        try:
            await self._cluster.delete_session(place.name, meta["uid"])
        except ClusterError as error:
            # Another replica has removed it, and perhaps made the next one.
            if error.status not in (404, 409):
                raise
        return False

    async def _make(self, place: Place, principal: Principal) -> bool:
        """Whether it is ours or anybody's now; False if its name is taken by one that may have ended."""
        request: Json = {"mode": str(Mode.WORKSPACE), "poolRef": {"name": place.pool}}
        if principal.tenant is not None:
            request["tenant"] = principal.tenant
        made = {
            "apiVersion": names.API_VERSION,
            "kind": names.SESSION_KIND,
            "metadata": {"name": place.name, "namespace": self._namespace, "labels": principal.labels()},
            "spec": {"request": request},
        }
        try:
            await self._cluster.create_session(in_json(made, principal))
        except ClusterError as error:
            if error.status == 409:
                return False
            raise
        log.event("workspace_made", session=place.name, pool=place.pool)
        return True

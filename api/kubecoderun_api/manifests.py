"""Resources as the front end creates them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kubecoderun_api import wire
from kubecoderun_api.auth.principal import Principal
from kubecoderun_crds import names

Json = dict[str, Any]


def manifest(
    name: str,
    *,
    namespace: str,
    front_end: str,
    expires: datetime,
    principal: Principal,
    spec: Json,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """The ExecutionSession to create on somebody's behalf, in JSON; `expires` is when it is not needed any
    more at the latest, `metadata` further labels and annotations.

    Raises wire.BadRequest if a credential of the principal stands in it."""
    if principal.tenant is not None:
        spec = {**spec, "request": {**spec["request"], "tenant": principal.tenant}}
    more = metadata or {}
    made: Json = {
        "apiVersion": names.API_VERSION,
        "kind": names.SESSION_KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                names.LABEL_FRONT_END: front_end,
                names.LABEL_EXPIRES: names.expiry_bucket(expires),
                **principal.labels(),
                **more.get("labels", {}),
            },
        },
        "spec": spec,
    }
    if more.get("annotations"):
        made["metadata"]["annotations"] = dict(more["annotations"])
    return in_json(made, principal)


def in_json(made: Json, principal: Principal) -> bytes:
    """A manifest as it is sent. Raises wire.BadRequest if a credential of the principal stands in it."""
    document = json.dumps(made).encode()
    if principal.is_leaked_in(document):
        wire.refuse(
            "The request repeats its API key or token where it is stored: send it in a header only.",
            error="credential_in_request",
        )
    return document


def timestamp(moment: datetime) -> str:
    """An aware moment as resources have it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

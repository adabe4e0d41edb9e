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
    labels: Mapping[str, str],
    spec: Json,
) -> Json:
    """The ExecutionSession to create; `expires` is when it is not needed any more at the latest."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.SESSION_KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                names.LABEL_FRONT_END: front_end,
                names.LABEL_EXPIRES: names.expiry_bucket(expires),
                **labels,
            },
        },
        "spec": spec,
    }


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

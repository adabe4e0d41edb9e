"""Resources as the front end creates them."""

from datetime import UTC, datetime
from typing import Any

from kubecoderun_crds import names

Json = dict[str, Any]


def manifest(
    name: str,
    *,
    namespace: str,
    front_end: str,
    expires: datetime,
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
            },
        },
        "spec": spec,
    }


def timestamp(moment: datetime) -> str:
    """An aware moment as resources have it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

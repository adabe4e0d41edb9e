"""What the object store has of a run that ended."""

from collections.abc import Mapping
from typing import Any

from kubecoderun_api import answers, log
from kubecoderun_api.storage import Store
from kubecoderun_api.transfer import StoreError


async def stored_result(store: Store, session: str, status: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a session with this status, if the answer needs it; None also if it cannot be read."""
    if not answers.wants_stored(status):
        return None
    try:
        return await store.get_result(session)
    except StoreError as error:
        log.event("result_not_read", level=log.WARNING, session=session, cause=str(error))
        return None

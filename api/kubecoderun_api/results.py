"""The answer for a run that ended, and what the object store has of it."""

from collections.abc import Mapping
from typing import Any

from kubecoderun_api import answers, echoes, log, workspaces
from kubecoderun_api.answers import Answer
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


async def answer_of(
    store: Store, session: Mapping[str, Any], status: Mapping[str, Any], *, retry_after_seconds: int
) -> tuple[Answer, dict[str, Any] | None]:
    """The answer for a session that has ended with that status, and its `stored_result`."""
    name = session["metadata"]["name"]
    stored = await stored_result(store, name, status)
    answer = answers.from_status(
        name,
        status,
        stored=stored,
        retry_after_seconds=retry_after_seconds,
        inherited=echoes.unchanged(session, status),
    )
    return workspaces.named(answer, session, status), stored

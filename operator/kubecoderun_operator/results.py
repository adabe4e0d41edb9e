"""Reads the results that sidecars have put into the object store: what is left of a run whose pod is gone.

A sidecar stores the result of every run of more than a second before it tells anybody. A pod that is lost
after that has lost nothing.
"""

import asyncio
import logging
import time
from datetime import datetime
from http import HTTPStatus
from typing import Final

import aiohttp

from kubecoderun_operator.log import about
from kubecoderun_operator.orders import Session
from kubecoderun_operator.storage import Storage
from kubecoderun_sidecar.protocol import ProtocolError, RunResult

logger = logging.getLogger(__name__)

_SECONDS: Final = 3.0
"""For all attempts: somebody waits, and without a result there still is an answer."""
_PAUSE: Final = 0.3
_MOST_BYTES: Final = 16 << 20
"""The sidecar keeps at most 1 MiB of each stream; the rest is room for JSON escapes and names of files."""


class Results:
    """The client of the store; without one nothing is ever found."""

    def __init__(self, storage: Storage | None) -> None:
        self._storage = storage
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS))

    async def close(self) -> None:
        await self._client.close()

    async def of(self, session: Session, started: str | None) -> RunResult | None:
        """The stored result of this session, if there is one and it can be read in time.

        started: when its program started, as the sidecar said it; None if that is not known.
        """
        if self._storage is None:
            return None
        url = self._storage.stored_result_url(session.namespace, session.name, 60)
        give_up = time.monotonic() + _SECONDS
        while True:
            try:
                data = await asyncio.wait_for(self._get(url), give_up - time.monotonic())
                found = RunResult.parse(data) if data is not None else None
                return found if found is not None and belongs(found, started, session.created) else None
            except ProtocolError as error:
                cause, final = f"it cannot be read: {error}", True
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                cause, final = type(error).__name__, time.monotonic() + _PAUSE >= give_up
            if final:
                where = about(namespace=session.namespace, session=session.name, cause=cause)
                logger.warning("no stored result was read", extra=where)
                return None
            await asyncio.sleep(_PAUSE)

    async def _get(self, url: str) -> bytes | None:
        async with self._client.get(url, allow_redirects=False) as answer:
            if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN):
                return None  # 403: some stores do not tell who may not list whether there is an object
            if answer.status != HTTPStatus.OK:
                raise aiohttp.ClientPayloadError(f"status {answer.status}")
            data = await answer.content.read(_MOST_BYTES + 1)
            while len(data) <= _MOST_BYTES and (more := await answer.content.read(_MOST_BYTES)):
                data += more
        if len(data) > _MOST_BYTES:
            raise ProtocolError("it is bigger than any result")
        return data


def belongs(found: RunResult, started: str | None, created: float) -> bool:
    """Whether a stored result is that of a session, and not of an earlier one of the same name. Pure.

    started: when the session's program started, if that is known. Otherwise it must have been after the
    session was created (seconds since 1970).
    """
    if started is not None:
        return found.started_at == started
    try:
        return datetime.fromisoformat(found.started_at or "").timestamp() >= created
    except ValueError:
        return False

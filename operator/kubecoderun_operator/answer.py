"""Writes the status of one session. One writer per session, one write at a time."""

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any

from kubecoderun_crds.reasons import TERMINAL_PHASES, Reason
from kubecoderun_operator.cluster import ApiError, Cluster
from kubecoderun_operator.log import about
from kubecoderun_operator.orders import Session
from kubecoderun_operator.outcomes import Outcome, Record

logger = logging.getLogger(__name__)


class SessionGoneError(Exception):
    """The session was deleted, or another one has its name now, or it has ended without us."""


class PodTakenError(Exception):
    """The session's status names another pod by now: an earlier operator was faster."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__("the session has another pod")
        self.found = found
        """The session as it stands."""


class Answer:
    """The status of one session, on its way."""

    def __init__(self, session: Session, record: Record, cluster: Cluster) -> None:
        self._session = session
        self._record = record
        self._cluster = cluster
        self._writing = asyncio.Lock()
        self._final = False

    async def progress(self, status: dict[str, Any]) -> None:
        """Write a status on the way. A refusal is only logged: the final status is what counts."""
        async with self._writing:
            if self._final:
                return
            try:
                await self._write(status)
            except ApiError as error:
                if error.status == HTTPStatus.NOT_FOUND:
                    return
                logger.warning("a status was refused", extra=self._about(cause=error.message))

    async def assign(self, status: dict[str, Any]) -> None:
        """Write the status that names the session's pod. The program may be started only after this.

        Raises PodTakenError if the status names another pod already, and SessionGoneError.
        """
        async with self._writing:
            try:
                await self._write(status)
            except ApiError as error:
                found = await self._see_whether_it_is_there(error)
                named = (found.get("status") or {}).get("pod") or {}
                if not named.get("uid"):
                    raise
                if named["uid"] != status["pod"]["uid"]:
                    raise PodTakenError(found) from error
                # An attempt whose answer was lost has written it, and an update has come since.

    async def complete(self, outcome: Outcome) -> dict[str, Any]:
        """Write the final status; returns the session as stored.

        If the API server does not take the outcome as it is, the session ends with OperatorError instead: it
        always gets an answer. Raises SessionGoneError if nobody is there to get it.
        """
        self._final = True
        async with self._writing:
            try:
                return await self._write(self._record.completed(outcome, time.time()))
            except ApiError as error:
                await self._see_whether_it_is_there(error)
                logger.error("a result was refused", extra=self._about(cause=error.message))
                substitute = Outcome(
                    Reason.OPERATOR_ERROR,
                    f"the API server refused a result with reason {outcome.reason}: {error.message}",
                )
            try:
                return await self._write(self._record.completed(substitute, time.time()))
            except ApiError as error:
                await self._see_whether_it_is_there(error)
                raise

    async def _write(self, status: dict[str, Any]) -> dict[str, Any]:
        seen = self._session
        return await self._cluster.write_session_status(seen.namespace, seen.name, seen.uid, status)

    async def _see_whether_it_is_there(self, error: ApiError) -> dict[str, Any]:
        if error.status == HTTPStatus.NOT_FOUND:
            raise SessionGoneError from error
        try:
            found = await self._cluster.session(self._session.namespace, self._session.name)
        except ApiError as failure:
            if failure.status == HTTPStatus.NOT_FOUND:
                raise SessionGoneError from failure
            raise
        ended = (found.get("status") or {}).get("phase") in TERMINAL_PHASES
        if found["metadata"]["uid"] != self._session.uid or ended:
            raise SessionGoneError from error
        return found

    def _about(self, **fields: object) -> dict[str, Any]:
        return about(namespace=self._session.namespace, session=self._session.name, **fields)

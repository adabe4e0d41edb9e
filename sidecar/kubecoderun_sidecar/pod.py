"""What a caller may do with this pod: the operations behind the HTTP paths, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kubecoderun_sidecar.answers import Refusal, RuntimeState, StateAnswer
from kubecoderun_sidecar.binding import Binding, BoundElsewhereError, NotBoundError, StaleEpochError
from kubecoderun_sidecar.protocol import Caller, InlineCode, PrepareRequest, StartRequest, StoredCode
from kubecoderun_sidecar.run import Run
from kubecoderun_sidecar.runtime import RuntimeLink, RuntimeLostError
from kubecoderun_sidecar.transfer import Store, TransferError

DELIVERY_SECONDS = 60.0
"""Longest time for a prepare: fetching the code, all attempts together, and handing it to the runner."""

_NOT_PREPARED = Refusal("not_prepared", "prepare comes first")


class RefusedError(Exception):
    """A request that cannot be fulfilled, with its HTTP status."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.error)
        self.status = status
        self.refusal = refusal


class Pod:
    """One pod: its owner, its runtime, and its one run."""

    def __init__(self, link: RuntimeLink, store: Store) -> None:
        self._link = link
        self._store = store
        self._binding = Binding()
        self._run: Run | None = None
        self._delivery: asyncio.Task[None] | None = None
        self._cancel_asked = False

    @property
    def ready(self) -> bool:
        """The runtime has been warm; what happens to it later is for its owner to see."""
        return self._link.was_warm

    @property
    def running(self) -> Run | None:
        """The run while it is in progress."""
        return self._run if self._run is not None and self._run.state == "running" else None

    def admit(self, caller: Caller) -> None:
        """Every signed request comes through here first."""
        try:
            self._binding.admit(caller.epoch)
        except StaleEpochError as error:
            raise RefusedError(
                412, Refusal("stale_epoch", "a newer operator has spoken", epoch=error.epoch)
            ) from None

    def state(self) -> StateAnswer:
        runtime: RuntimeState = "warm" if self._link.was_warm else "waiting"
        return StateAnswer(
            self._binding.owner,
            self._binding.epoch,
            self._run.state if self._run else None,
            "lost" if self._link.lost else runtime,
        )

    async def prepare(self, caller: Caller, request: PrepareRequest) -> None:
        """Bind the pod and deliver everything to the runner; nothing starts. Again: joins or does nothing."""
        if request.session.uid != caller.session_uid:
            raise RefusedError(400, Refusal("bad_request", "prepare.session.uid is not the signed one"))
        if self._binding.owner is None:
            self._check_usable(request.language)
        self._bind(caller)
        if self._run is not None:
            return
        if self._delivery is None:
            self._delivery = asyncio.get_running_loop().create_task(self._deliver(request))
        # Shielded: a caller that goes away leaves the delivery to whoever asks next.
        await asyncio.shield(self._delivery)

    def start(self, caller: Caller, request: StartRequest) -> Run:
        """The run, started now or earlier."""
        run = self._owned(caller)
        if run is None:
            raise RefusedError(409, _NOT_PREPARED)
        run.start(request.result)
        return run

    def cancel(self, caller: Caller) -> None:
        """End the run, whatever it is doing."""
        run = self._owned(caller)
        self._cancel_asked = True
        if run is not None:
            run.cancel()

    def retire(self, caller: Caller) -> None:
        """Take a pod nobody owns out of service."""
        try:
            self._binding.retire(caller.session_uid)
        except BoundElsewhereError as error:
            raise _bound(error) from None

    def _check_usable(self, language: str) -> None:
        """Refuse before binding what cannot work in this pod, so that the pod stays free."""
        if self._link.lost:
            raise RefusedError(503, Refusal("runtime_lost", "the runtime is gone"))
        if not self._link.was_warm:
            raise RefusedError(503, Refusal("not_warm", "the runtime is not warm yet"))
        if language not in self._link.languages:
            raise RefusedError(
                422, Refusal("language_unavailable", "the runtime does not offer the language")
            )

    def _bind(self, caller: Caller) -> None:
        try:
            self._binding.bind(caller.session_uid)
        except BoundElsewhereError as error:
            raise _bound(error) from None

    def _owned(self, caller: Caller) -> Run | None:
        try:
            self._binding.require(caller.session_uid)
        except NotBoundError:
            raise RefusedError(409, _NOT_PREPARED) from None
        except BoundElsewhereError as error:
            raise _bound(error) from None
        return self._run

    async def _deliver(self, request: PrepareRequest) -> None:
        try:
            await self._hand_over(request)
        except TransferError as error:
            status = 422 if error.error == "code_unavailable" else 502
            raise RefusedError(status, Refusal(error.error, error.message)) from None
        except TimeoutError:
            refusal = Refusal("store_unavailable", "the code did not arrive in time")
            raise RefusedError(502, refusal) from None
        except RuntimeLostError as error:
            raise RefusedError(503, Refusal("runtime_lost", str(error))) from None
        else:
            self._run = Run(self._link, self._store, request.limits)
            if self._cancel_asked:
                self._run.cancel()
        finally:
            self._delivery = None

    async def _hand_over(self, request: PrepareRequest) -> None:
        code, size = self._source(request.code)
        stdin = request.stdin.encode("utf-8")
        head: dict[str, object] = {
            "language": request.language,
            "args": list(request.args),
            "env": dict(request.env),
            "timeoutSeconds": request.limits.timeout_seconds,
            "stdinBytes": len(stdin),
            "codeBytes": size,
        }
        async with asyncio.timeout(DELIVERY_SECONDS), aclosing(code):
            await self._link.deliver(head, code, size, stdin)

    def _source(self, code: InlineCode | StoredCode) -> tuple[AsyncGenerator[bytes], int]:
        if isinstance(code, InlineCode):
            data = code.text.encode("utf-8")
            return _once(data), len(data)
        return self._store.fetch(code.url, code.bytes, code.sha256), code.bytes


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    if data:
        yield data


def _bound(error: BoundElsewhereError) -> RefusedError:
    return RefusedError(409, Refusal("bound", str(error), owner=error.owner))

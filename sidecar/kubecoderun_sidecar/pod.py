"""What a caller may do with this pod: the operations behind the HTTP paths, without HTTP.

A pod serves one run, which owns it; or it is reserved by a workspace, which owns it, and serves that one's
runs in turn. Then the caller is the owner, and a request names the run it is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from kubecoderun_sidecar.answers import Refusal, RuntimeState, StateAnswer
from kubecoderun_sidecar.binding import Binding, BoundElsewhereError, NotBoundError, StaleEpochError
from kubecoderun_sidecar.calling import ResultUnavailableError
from kubecoderun_sidecar.delivery import InputFailedError, batches, check_paths
from kubecoderun_sidecar.dialogue import DeliveryFault
from kubecoderun_sidecar.glance import OutputAnswer, OutputRequest
from kubecoderun_sidecar.listing import Listing
from kubecoderun_sidecar.observer import RuntimeLostError, UndeliverableError
from kubecoderun_sidecar.protocol import (
    Caller,
    CancelRequest,
    PrepareRequest,
    ResultsRequest,
    StartRequest,
)
from kubecoderun_sidecar.run import Run
from kubecoderun_sidecar.runtime import RuntimeLink
from kubecoderun_sidecar.transfer import Store, TransferError
from kubecoderun_sidecar.turns import Turns

DELIVERY_SECONDS = 60.0
"""Longest time for a prepare: fetching code and input files, all attempts together, and handing them to the
runner."""
SLOWEST_BYTES_PER_SECOND = 8 << 20
"""What input files must reach beyond that time: 512 MiB get another 64 s."""

SEVERAL_RUNS = "again"
"""The feature of a runner that takes one run after the other."""

_NOT_PREPARED = Refusal("not_prepared", "prepare comes first")
_OCCUPIED = Refusal("run_in_progress", "another run of this owner has not ended")


class RefusedError(Exception):
    """A request that cannot be fulfilled, with its HTTP status."""

    def __init__(self, status: int, refusal: Refusal) -> None:
        super().__init__(refusal.error)
        self.status = status
        self.refusal = refusal


class Pod:
    """One pod: its owner, its runtime, and its one run, or the one of its runs whose turn it is."""

    def __init__(self, link: RuntimeLink, store: Store) -> None:
        self._link = link
        self._store = store
        self._binding = Binding()
        self._turns = Turns()
        self._run: Run | None = None
        self._delivery: asyncio.Task[None] | None = None
        self._cancel_asked = False

    async def ready(self, patience: float) -> bool:
        """Whether the runtime has been warm; what happens to it later is for its owner to see. Waits up to
        `patience` seconds for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._link.settled.wait()
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
            session=self._turns.current,
            reserved=self._turns.reserved,
            started=self._turns.started,
        )

    def reserve(self, caller: Caller) -> None:
        """Bind the pod to an owner that will bring several runs. Again is fine."""
        if self._binding.owner is None:
            self._check_runtime()
            if SEVERAL_RUNS not in self._link.features:
                message = "the runner in the runtime image is too old for several runs"
                raise RefusedError(422, Refusal("workspace_unavailable", message))
        self._bind(caller)
        if self._turns.current is not None and not self._turns.reserved:
            raise RefusedError(409, Refusal("bound", "a run owns the pod", owner=self._binding.owner))
        self._turns.reserved = True

    async def prepare(self, caller: Caller, request: PrepareRequest) -> None:
        """Bind the pod and deliver everything to the runner; nothing starts. Again: joins or does nothing."""
        if self._binding.owner is None:
            self._check_runtime()
            self._check_language(request.language)
        if not self._turns.reserved and request.session.uid != caller.session_uid:
            raise RefusedError(400, Refusal("bad_request", "prepare.session.uid is not the signed one"))
        self._bind(caller)
        if not self._turns.is_current(request.session.uid):
            await self._next_turn(request)
        if self._run is not None:
            return
        if self._delivery is None:
            self._delivery = asyncio.get_running_loop().create_task(self._deliver(request))
        # Shielded: a caller that goes away leaves the delivery to whoever asks next.
        await asyncio.shield(self._delivery)

    def start(self, caller: Caller, request: StartRequest) -> Run:
        """The run, started now or earlier."""
        run = self._owned(caller, request.run)
        if run is None:
            raise RefusedError(409, _NOT_PREPARED)
        self._turns.started += run.state == "prepared"
        run.start(request)
        return run

    async def output(self, caller: Caller, request: OutputRequest) -> OutputAnswer:
        """What the program has written so far."""
        run = self._owned(caller, request.run)
        if run is None:
            raise RefusedError(409, _NOT_PREPARED)
        return await run.output(request)

    async def results(self, caller: Caller, request: ResultsRequest) -> None:
        """Bring results of tool calls to the program; those that are for no call that waits are dropped."""
        run = self._owned(caller, request.run)
        if run is None:
            raise RefusedError(409, _NOT_PREPARED)
        try:
            await run.give(request.results)
        except ResultUnavailableError as error:
            raise _transfer_refused(error.cause, "result_unavailable", error.place) from None
        except RuntimeLostError as error:
            raise RefusedError(503, Refusal("runtime_lost", str(error))) from None

    def cancel(self, caller: Caller, request: CancelRequest) -> None:
        """End the run, whatever it is doing."""
        run = self._owned(caller, request.run)
        self._cancel_asked = True
        if run is not None:
            run.cancel()

    def retire(self, caller: Caller) -> None:
        """Take a pod nobody owns out of service."""
        try:
            self._binding.retire(caller.session_uid)
        except BoundElsewhereError as error:
            raise _bound(error) from None

    async def _next_turn(self, request: PrepareRequest) -> None:
        """Let another run come, the first one or the next. One that was not started is given up for it."""
        if self._turns.current is not None:
            before = self._run
            if before is not None and before.state == "running":
                raise RefusedError(409, _OCCUPIED)
            if self._delivery is not None:
                self._delivery.cancel()
                await asyncio.gather(self._delivery, return_exceptions=True)
            if self._link.lost:
                raise RefusedError(503, Refusal("runtime_lost", "the runtime is gone"))
            if before is not None and before.result is not None:
                self._turns.collected(before.result.files)
        if self._turns.reserved:
            self._check_language(request.language)
        self._turns.current, self._run, self._cancel_asked = request.session, None, False

    def _check_runtime(self) -> None:
        """Refuse before binding what cannot work in this pod, so that the pod stays free."""
        if self._link.lost:
            raise RefusedError(503, Refusal("runtime_lost", "the runtime is gone"))
        if not self._link.was_warm:
            raise RefusedError(503, Refusal("not_warm", "the runtime is not warm yet"))

    def _check_language(self, language: str) -> None:
        if language not in self._link.languages:
            raise RefusedError(
                422, Refusal("language_unavailable", "the runtime does not offer the language")
            )

    def _bind(self, caller: Caller) -> None:
        try:
            self._binding.bind(caller.session_uid)
        except BoundElsewhereError as error:
            raise _bound(error) from None

    def _owned(self, caller: Caller, run: str | None) -> Run | None:
        try:
            self._binding.require(caller.session_uid)
        except NotBoundError:
            raise RefusedError(409, _NOT_PREPARED) from None
        except BoundElsewhereError as error:
            raise _bound(error) from None
        if not self._turns.is_current(run or caller.session_uid):
            raise RefusedError(409, _NOT_PREPARED)
        return self._run

    async def _deliver(self, request: PrepareRequest) -> None:
        listing = Listing(request.limits, request.inputs)
        again, places = self._turns.reserved, self._turns.missing(request.inputs)
        wanted = replace(request, inputs=tuple(request.inputs[place] for place in places))
        seconds = DELIVERY_SECONDS + sum(file.bytes for file in wanted.inputs) / SLOWEST_BYTES_PER_SECOND
        try:
            check_paths(request.inputs)
            frames = batches(self._store, wanted, again=again)
            async with asyncio.timeout(seconds), aclosing(frames):
                await self._link.deliver(frames, listing, again=again)
        except InputFailedError as error:
            place = error.place if error.of_all else places[error.place]
            raise _transfer_refused(error.cause, "input_unavailable", place) from None
        except TransferError as error:
            raise _transfer_refused(error, "code_unavailable", None) from None
        except TimeoutError:
            refusal = Refusal("store_unavailable", "code and input files did not arrive in time")
            raise RefusedError(502, refusal) from None
        except UndeliverableError as error:
            raise _undeliverable(error.fault, places) from None
        except RuntimeLostError as error:
            raise RefusedError(503, Refusal("runtime_lost", str(error))) from None
        else:
            self._turns.delivered(wanted.inputs)
            self._run = Run(self._link, self._store, request.limits, listing, request.tools)
            if self._cancel_asked:
                self._run.cancel()
        finally:
            self._store.close()
            self._delivery = None


def _transfer_refused(error: TransferError, word: str, place: int | None) -> RefusedError:
    """`word`: what it is called when the object is not what was promised."""
    if error.error == "object_unavailable":
        return RefusedError(422, Refusal(word, error.message, input=place))
    return RefusedError(502, Refusal("store_unavailable", error.message, input=place))


def _undeliverable(fault: DeliveryFault, places: Sequence[int]) -> RefusedError:
    """The runner's refusal: its kind is believed, its words are not passed on."""
    if fault.kind == "inputs_too_large":
        message = "code and input files do not fit in the scratch space"
        return RefusedError(422, Refusal("inputs_too_large", message))
    if fault.kind == "input_path" and fault.input < len(places):
        message = "the file cannot be made under this path"
        return RefusedError(422, Refusal("input_unavailable", message, input=places[fault.input]))
    return RefusedError(503, Refusal("runtime_lost", "the runner reported a fault"))


def _bound(error: BoundElsewhereError) -> RefusedError:
    return RefusedError(409, Refusal("bound", str(error), owner=error.owner))

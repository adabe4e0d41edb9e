"""The two clients by themselves: what is repeated, for how long, and what is not written without the
lease."""

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contract.fakes.apiserver import ApiServer, Fault
from contract.fakes.node import Node, Sidecar
from contract.fakes.silent import SilentAddress
from contract.fakes.system import NAMESPACE, SIGNATURES
from kubecoderun_crds import names
from kubecoderun_operator.cluster import ApiError, ApiLimits, ApiUnreachableError, Cluster, NotLeadingError
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.members import Member
from kubecoderun_operator.presence import Knock
from kubecoderun_operator.sidecars import (
    SidecarLimits,
    SidecarRefusedError,
    Sidecars,
    ask_states,
)
from kubecoderun_operator.vigil import NodeSilentError, SidecarUnreachableError
from kubecoderun_sidecar.protocol import (
    InlineCode,
    Owner,
    PrepareRequest,
    SessionRef,
    StartRequest,
    Verifier,
)

LIMITS = ApiLimits(attempt=0.3, patience=1.5)


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": {names.LABEL_POOL: "p", **labels}}}


class Lease:
    """Held until it is not."""

    def __init__(self) -> None:
        self.checks = 0
        self.lost_after = 1000

    def __call__(self) -> None:
        self.checks += 1
        if self.checks > self.lost_after:
            raise NotLeadingError


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[ApiServer, Cluster, Lease]]:
    async with ApiServer().serving() as api:
        lease = Lease()
        made = Cluster(Connection(api.url), LIMITS, lease)
        try:
            yield api, made, lease
        finally:
            await made.close()


# --- the API server -----------------------------------------------------------------------------------


async def test_what_may_pass_is_repeated_and_the_lease_is_checked_each_time() -> None:
    async with cluster() as (api, client, lease):
        api.faults += [Fault("create", "pods", 1, 500), Fault("create", "pods", 1, 503)]
        await client.create_pod(pod("a"))
        assert [entry.code for entry in api.log] == [500, 503, 201]
        assert lease.checks == 3


async def test_the_wait_that_the_api_server_asks_for_is_kept() -> None:
    async with cluster() as (api, client, _):
        api.faults.append(Fault("create", "pods", 1, 429, (("Retry-After", "1"),)))
        began = time.monotonic()
        await client.create_pod(pod("a"))
        assert time.monotonic() - began >= 1.0


async def test_nothing_is_written_once_the_lease_is_lost() -> None:
    async with cluster() as (api, client, lease):
        api.faults.append(Fault("*", "*", 100, 500))
        lease.lost_after = 2
        with pytest.raises(NotLeadingError):
            await client.create_pod(pod("a"))
        assert len(api.log) == 2
        with pytest.raises(NotLeadingError):
            await client.delete_pod(NAMESPACE, "a", "uid", 0)
        with pytest.raises(NotLeadingError):
            await client.write_session_status(NAMESPACE, "a", "uid", {})
        assert len(api.log) == 2


async def test_patience_ends() -> None:
    async with cluster() as (api, client, _):
        api.faults.append(Fault("*", "*", 100, 500))
        began = time.monotonic()
        with pytest.raises(ApiError) as caught:
            await client.create_pod(pod("a"))
        assert caught.value.status == 500
        assert 0.5 < time.monotonic() - began < 2.0


async def test_an_attempt_that_hangs_is_given_up_and_repeated() -> None:
    async with cluster() as (api, client, _):
        held = api.held["create", "pods"] = asyncio.Event()
        with pytest.raises(ApiUnreachableError):
            await client.create_pod(pod("a"))
        held.set()
        await client.create_pod(pod("b"))


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
async def test_what_is_refused_is_not_repeated(status: int) -> None:
    async with cluster() as (api, client, _):
        api.faults.append(Fault("create", "pods", 1, status))
        with pytest.raises(ApiError) as caught:
            await client.create_pod(pod("a"))
        assert caught.value.status == status
        assert caught.value.message == "injected"
        assert len(api.log) == 1


async def test_a_conflict_passes_where_no_version_was_named() -> None:
    """Of a patch, the API server gives up after five lost races of its own; of a create, when the counters of
    a quota are contended."""
    async with cluster() as (api, client, _):
        api.faults += [Fault(verb, "*", 1, 409, reason="Conflict") for verb in ("create", "patch")]
        made = await client.create_pod(pod("a"))
        patch = [{"op": "add", "path": "/metadata/labels/x", "value": "y"}]
        assert (await client.patch_pod(NAMESPACE, "a", patch))["metadata"]["labels"]["x"] == "y"
        api.faults.append(Fault("delete", "*", 1, 409, reason="Conflict"))
        await client.delete_pod(NAMESPACE, "a", made["metadata"]["uid"], 0)
        assert len(api.store.all("pods")) == 1


async def test_a_name_that_is_taken_is_told_at_once() -> None:
    async with cluster() as (api, client, _):
        await client.create_pod(pod("a"))
        with pytest.raises(ApiError) as caught:
            await client.create_pod(pod("a"))
        assert caught.value.reason == "AlreadyExists"
        assert len(api.log) == 2


async def test_a_dry_run_makes_nothing() -> None:
    async with cluster() as (api, client, _):
        await client.create_pod(pod("a"), dry_run=True)
        assert api.store.all("pods") == []


async def test_deleting_what_is_not_there_any_more() -> None:
    async with cluster() as (api, client, _):
        await client.delete_pod(NAMESPACE, "a", "uid", 0)
        made = await client.create_pod(pod("a"))
        await client.delete_pod(NAMESPACE, "a", "another-uid", 0)
        with pytest.raises(ApiError) as caught:
            await client.delete_pod(NAMESPACE, "a", made["metadata"]["uid"], 0, version="1")
        assert caught.value.status == 409
        assert len(api.store.all("pods")) == 1
        await client.delete_pod(NAMESPACE, "a", made["metadata"]["uid"], 0)
        assert api.store.all("pods") == []


async def test_a_status_goes_to_the_session_with_this_uid_only() -> None:
    async with cluster() as (api, client, _):
        body = {"metadata": {"name": "hello"}, "spec": {"request": {}}}
        made = api.store.create(names.SESSION_PLURAL, NAMESPACE, body)
        with pytest.raises(ApiError) as caught:
            await client.write_session_status(NAMESPACE, "hello", "another-uid", {"phase": "Queued"})
        assert caught.value.status == 422
        await client.write_session_status(NAMESPACE, "hello", made["metadata"]["uid"], {"phase": "Queued"})
        assert api.store.get(names.SESSION_PLURAL, NAMESPACE, "hello")["status"] == {"phase": "Queued"}


async def test_lists_are_read_page_by_page() -> None:
    async with cluster() as (api, client, _):
        for number in range(450):
            api.store.create("pods", NAMESPACE, pod(f"p{number}"))
        api.store.create("pods", NAMESPACE, {"metadata": {"name": "other", "labels": {}}})
        found = {item["metadata"]["name"] async for item in client.pods(NAMESPACE)}
        assert found == {f"p{number}" for number in range(450)}
        assert len(api.log) == 3
        async for item in client.pod_metadata(NAMESPACE):
            assert set(item) == {"metadata"}


async def test_unfinished_sessions_are_selected_by_the_server() -> None:
    async with cluster() as (api, client, _):
        for name, phase in (
            ("a", ""),
            ("b", "Running"),
            ("c", "Failed"),
            ("d", "Succeeded"),
            ("e", "TimedOut"),
        ):
            body = {"metadata": {"name": name}, "spec": {"request": {}}}
            made = api.store.create(names.SESSION_PLURAL, NAMESPACE, body)
            if phase:
                made["status"] = {"phase": phase}
        found = [item["metadata"]["name"] async for item in client.unfinished_sessions(NAMESPACE)]
        assert found == ["a", "b"]


# --- sidecars -----------------------------------------------------------------------------------------

ME = "session-uid"
REQUEST = PrepareRequest(SessionRef(NAMESPACE, "hello", ME), "py", InlineCode("print:x"))


@asynccontextmanager
async def one_sidecar() -> AsyncIterator[tuple[Sidecar, Sidecars, Member, list[int]]]:
    async with ApiServer().serving() as api, Node(api, SIGNATURES.public_key).serving() as node:
        sidecar = Sidecar("pod-uid", Verifier([SIGNATURES.public_key], "pod-uid"))
        node._by_address["127.0.0.1"] = sidecar
        epochs = [1]

        async def raise_epoch(seen: int) -> None:
            epochs.append(seen + 1)

        limits = SidecarLimits(connect=0.5, answer=1.0, fetch=2.0, silence=1.5)
        client = Sidecars(SIGNATURES, limits, node.port, lambda: epochs[-1], raise_epoch)
        found = Member(
            NAMESPACE, "p", "pod-uid", "python", "p", "r", "warm", 1, 0.0, ip="127.0.0.1", ready=True
        )
        try:
            yield sidecar, client, found, epochs
        finally:
            await client.close()
            sidecar.stop()


async def test_prepare_start_state() -> None:
    async with one_sidecar() as (_, client, found, _):
        assert (await client.state(found, ME)).owner is None
        await client.prepare(found, REQUEST)
        await client.prepare(found, REQUEST)
        starts: list[str] = []
        result = await client.start(found, ME, StartRequest(), starts.append)
        assert result.stdout.text == "x"
        again = await client.start(found, ME, StartRequest(), starts.append)
        assert again == result
        assert starts[0] == starts[1]
        state = await client.state(found, ME)
        assert (state.owner, state.run) == (Owner("session", ME), "finished")


async def test_a_bound_pod_refuses_everybody_else() -> None:
    async with one_sidecar() as (_, client, found, _):
        await client.prepare(found, REQUEST)
        with pytest.raises(SidecarRefusedError) as caught:
            await client.retire(found)
        assert (caught.value.status, caught.value.error) == (409, "bound")
        with pytest.raises(SidecarRefusedError):
            await client.start(found, "another", StartRequest(), lambda _: None)


async def test_a_higher_epoch_is_learned_and_the_request_repeated() -> None:
    async with one_sidecar() as (sidecar, client, found, epochs):
        sidecar.epoch = 7
        await client.prepare(found, REQUEST)
        assert epochs == [1, 8]


async def test_start_too_learns_a_higher_epoch() -> None:
    async with one_sidecar() as (sidecar, client, found, epochs):
        await client.prepare(found, REQUEST)
        sidecar.epoch = 7
        assert (await client.start(found, ME, StartRequest(), lambda _: None)).stdout.text == "x"
        assert epochs == [1, 8]


async def test_heartbeats_keep_a_long_run_and_silence_ends_it() -> None:
    async with one_sidecar() as (_, client, found, _):
        long = PrepareRequest(SessionRef(NAMESPACE, "hello", ME), "py", InlineCode("sleep:2.2 print:x"))
        await client.prepare(found, long)
        assert (await client.start(found, ME, StartRequest(), lambda _: None)).stdout.text == "x"


async def test_a_stream_that_breaks() -> None:
    async with one_sidecar() as (sidecar, client, found, _):
        await client.prepare(found, REQUEST)
        sidecar.drops = 1
        with pytest.raises(SidecarUnreachableError):
            await client.start(found, ME, StartRequest(), lambda _: None)
        assert (await client.start(found, ME, StartRequest(), lambda _: None)).stdout.text == "x"


async def test_nobody_there() -> None:
    async with one_sidecar() as (sidecar, client, found, _):
        sidecar.unreachable = True
        await client.greet(found)
        with pytest.raises(SidecarUnreachableError):
            await client.prepare(found, REQUEST)
        assert await ask_states(client, [found], ME, attempts=2, pause=0.01) == [None]
        sidecar.unreachable = False
        (state,) = await ask_states(client, [found], ME, attempts=2, pause=0.01)
        assert state is not None


@asynccontextmanager
async def silent_node() -> AsyncIterator[tuple[Sidecars, Member]]:
    """A pod whose node takes no connections."""
    async with one_sidecar() as (_, _, found, _):
        address = SilentAddress()
        limits = SidecarLimits(connect=30.0, answer=30.0, fetch=30.0, silence=30.0)

        async def never(_: int) -> None:
            raise AssertionError

        client = Sidecars(SIGNATURES, limits, address.port, lambda: 1, never)
        try:
            yield client, found
        finally:
            address.close()
            await client.close()


async def test_knocking() -> None:
    async with one_sidecar() as (sidecar, client, found, _):
        assert await client.knock(found) is Knock.TAKEN
        sidecar.frozen = True
        assert await client.knock(found) is Knock.TAKEN
        nobody = dataclasses.replace(found, ip="127.0.0.1")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            other = Sidecars(
                SIGNATURES, client._limits, closed.getsockname()[1], client._epoch, client._raise_epoch
            )
            assert await other.knock(nobody) is Knock.REFUSED
            await other.close()
        sidecar.frozen = False
    async with silent_node() as (client, found):
        assert await client.knock(found) is Knock.SILENT


async def test_a_silent_node_does_not_hold_up_anybody() -> None:
    """Neither who begins a run nor who prepares one: long before their own limits they are told."""
    async with silent_node() as (client, found):
        prepare = client.prepare(found, REQUEST)
        start = client.start(found, ME, StartRequest(), lambda _: None)
        told = await asyncio.wait_for(asyncio.gather(prepare, start, return_exceptions=True), 25)
        assert [type(error) for error in told] == [NodeSilentError, NodeSilentError]


async def test_a_sidecar_that_stands_still_longer_than_a_silent_node_may() -> None:
    async with one_sidecar() as (sidecar, client, found, _):
        client._limits = SidecarLimits(connect=1.0, answer=30.0, fetch=30.0, silence=30.0, node_silence=1.0)
        long = PrepareRequest(SessionRef(NAMESPACE, "hello", ME), "py", InlineCode("sleep:0.5 print:x"))
        await client.prepare(found, long)
        run = asyncio.create_task(client.start(found, ME, StartRequest(), lambda _: None))
        await asyncio.sleep(0.2)
        sidecar.frozen = True
        await asyncio.sleep(4.5)
        assert not run.done()
        sidecar.frozen = False
        assert (await run).stdout.text == "x"

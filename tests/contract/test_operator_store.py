"""What the operator does in the store: looks, and removes what belongs to nobody any more."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contract.fakes.apiserver import ApiServer
from contract.fakes.s3 import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, FakeS3, fake_s3
from contract.fakes.system import NAMESPACE, System, operating
from kubecoderun_crds import names
from kubecoderun_operator import metrics
from kubecoderun_operator.bucket import Bucket, StoreError, Unfinished
from kubecoderun_operator.cluster import ApiLimits, Cluster, NotLeadingError
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.orphans import Terms
from kubecoderun_operator.purge import Purger
from kubecoderun_operator.storage import Storage, StoreAddress

ROOT = f"install/{NAMESPACE}"
TERMS = Terms(60.0, 3600.0, 0.2)


def storage(store: FakeS3, install_id: str = "install", secret: str = SECRET_KEY) -> Storage:
    return Storage(StoreAddress(store.url, REGION, BUCKET, False, install_id), ACCESS_KEY, secret)


@asynccontextmanager
async def bucket(secret: str = SECRET_KEY) -> AsyncIterator[tuple[FakeS3, Bucket]]:
    async with fake_s3() as store:
        made = Bucket(storage(store, secret=secret), seconds=1.0)
        try:
            yield store, made
        finally:
            await made.close()


# --- requests -----------------------------------------------------------------------------------------


async def test_objects_page_by_page() -> None:
    async with bucket() as (store, made):
        for number in range(5):
            store.put(f"{ROOT}/a/{number}", age=number)
        store.put(f"{ROOT}/b/0")
        first = await made.page(f"{ROOT}/a/", most=3)
        second = await made.page(f"{ROOT}/a/", token=first.token, most=3)
        assert [entry.key for entry in (*first.objects, *second.objects)] == [
            f"{ROOT}/a/{number}" for number in range(5)
        ]
        assert (bool(first.token), second.token, first.prefixes) == (True, "", ())
        assert first.now == store.now
        assert [first.now - entry.modified for entry in first.objects] == [0.0, 1.0, 2.0]


async def test_sessions_up_to_the_delimiter() -> None:
    async with bucket() as (store, made):
        for session in ("a", "b & c", "d"):
            store.put(f"{ROOT}/{session}/x")
        store.put(f"{ROOT}/loose")
        page = await made.page(f"{ROOT}/", delimiter="/")
        assert page.prefixes == (f"{ROOT}/a/", f"{ROOT}/b & c/", f"{ROOT}/d/")
        assert [entry.key for entry in page.objects] == [f"{ROOT}/loose"]


async def test_removal_leaves_the_rest() -> None:
    async with bucket() as (store, made):
        for number in range(3):
            store.put(f"{ROOT}/a/{number}")
        await made.remove([f"{ROOT}/a/0", f"{ROOT}/a/2", f"{ROOT}/a/never there"])
        assert list(store.objects) == [f"{ROOT}/a/1"]


async def test_an_object_that_stays_is_told() -> None:
    async with bucket() as (store, made):
        store.put("x")
        store.undeletable.add("x")
        with pytest.raises(StoreError, match="1 objects stay: AccessDenied"):
            await made.remove(["x", "y"])


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_may_pass_is_repeated(status: int) -> None:
    async with bucket() as (store, made):
        store.statuses = [status, status]
        assert (await made.page("x")).objects == ()
        store.statuses = [status] * 3
        with pytest.raises(StoreError, match=f"list: status {status}"):
            await made.page("x")


@pytest.mark.parametrize("status", [400, 403, 404, 301])
async def test_what_is_refused_is_not_repeated(status: int) -> None:
    async with bucket() as (store, made):
        store.statuses = [status, 200]
        with pytest.raises(StoreError, match=f"status {status}"):
            await made.page("x")
        assert store.statuses == [200]


async def test_a_wrong_key_is_an_error_without_secrets() -> None:
    async with bucket(secret="hunter2") as (_, made):
        with pytest.raises(StoreError) as caught:
            await made.page("x")
        assert str(caught.value) == "list: status 403"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"<oops", "not XML"),
        (b"<L><IsTruncated>true</IsTruncated></L>", "no token"),
        (b"<L><Contents><Key>a</Key></Contents></L>", "LastModified"),
        (b"x" * (5 << 20), "too long"),
    ],
)
async def test_answers_that_are_none(answer: bytes, says: str) -> None:
    async with bucket() as (store, made):
        store.answer = answer
        with pytest.raises(StoreError, match=says):
            await made.page("x")


async def test_a_store_that_is_not_there() -> None:
    made = Bucket(
        Storage(StoreAddress("http://127.0.0.1:9", REGION, BUCKET, False, "i"), "a", "b"), seconds=1.0
    )
    with pytest.raises(StoreError, match="list: ClientConnector"):
        await made.page("x")
    await made.close()


# --- a look at everything -----------------------------------------------------------------------------


class Lease:
    held = True

    def __call__(self) -> None:
        if not self.held:
            raise NotLeadingError


class Scene:
    """A purger between a store and an API server."""

    def __init__(self, store: FakeS3, api: ApiServer, purger: Purger, lease: Lease) -> None:
        self.store, self.api, self.purger, self.lease = store, api, purger, lease

    def session(self, name: str) -> None:
        self.api.store.create(names.SESSION_PLURAL, NAMESPACE, {"metadata": {"name": name}, "spec": {}})

    def delete(self, name: str) -> None:
        self.api.store.delete(names.SESSION_PLURAL, NAMESPACE, name)

    async def look(self) -> list[str]:
        """Names of the sessions that the store has after one look."""
        await self.purger.sweep(NAMESPACE)
        return sorted({key.split("/")[2] for key in self.store.objects if key.startswith(f"{ROOT}/")})

    @property
    def stopped(self) -> float:
        return metrics.STORE_SWEEP_STOPPED.labels(NAMESPACE)._value.get()


@asynccontextmanager
async def scene(terms: Terms = TERMS) -> AsyncIterator[Scene]:
    async with fake_s3() as store, ApiServer().serving() as api:
        lease = Lease()
        cluster = Cluster(Connection(api.url), ApiLimits(attempt=1.0, patience=1.0), lease)
        signing = storage(store)
        purger = Purger(signing, Bucket(signing, seconds=1.0), cluster, lease, terms)
        try:
            yield Scene(store, api, purger, lease)
        finally:
            await purger.close()
            await cluster.close()


async def test_sessions_that_exist_keep_everything_however_old() -> None:
    async with scene() as made:
        for name in ("aaa", "bbb"):
            made.session(name)
            made.store.put(f"{ROOT}/{name}/file", age=10**6)
        for _ in range(3):
            assert await made.look() == ["aaa", "bbb"]


async def test_a_session_that_was_seen_and_is_gone() -> None:
    async with scene() as made:
        made.session("aaa")
        made.session("bbb")
        for key in ("aaa/code", "aaa/file", "bbb/file"):
            made.store.put(f"{ROOT}/{key}", age=100)
        await made.look()
        made.delete("aaa")
        assert await made.look() == ["bbb"]


async def test_what_may_belong_to_the_next_session_of_that_name_waits() -> None:
    async with scene() as made:
        made.session("aaa")
        made.store.put(f"{ROOT}/aaa/code", age=100)
        await made.look()
        made.delete("aaa")
        made.store.put(f"{ROOT}/aaa/code", age=10)
        assert await made.look() == ["aaa"]
        made.store.now += 100
        assert await made.look() == []


async def test_an_upload_in_progress_has_no_session_yet() -> None:
    async with scene() as made:
        made.store.put(f"{ROOT}/uploading/part1", age=3500)
        made.store.put(f"{ROOT}/uploading/part2", age=10)
        for _ in range(3):
            assert await made.look() == ["uploading"]
        made.session("uploading")
        made.store.now += 10**6
        assert await made.look() == ["uploading"]


async def test_what_nobody_ever_claimed_goes_at_the_second_look() -> None:
    async with scene() as made:
        made.store.put(f"{ROOT}/lost/file", age=4000)
        assert await made.look() == ["lost"]
        assert await made.look() == []


async def test_other_installations_and_namespaces_are_none_of_our_business() -> None:
    async with scene() as made:
        others = [
            f"other/{NAMESPACE}/aaa/x",
            "install/elsewhere/aaa/x",
            "install/loose",
            f"{ROOT}/Not-A-Name/x",
        ]
        for key in others:
            made.store.put(key, age=10**6)
        for _ in range(3):
            await made.look()
        assert set(made.store.objects) == set(others)


@pytest.mark.parametrize("years", [-20, 20])
async def test_only_the_stores_own_clock_counts(years: int) -> None:
    """However wrong it is, or ours."""
    async with scene() as made:
        made.store.now = time.time() + years * 365 * 86400
        made.store.put(f"{ROOT}/uploading/part", age=100)
        made.store.put(f"{ROOT}/lost/file", age=4000)
        await made.look()
        assert await made.look() == ["uploading"]


async def test_a_restored_etcd_that_has_forgotten_the_last_sessions() -> None:
    """Their bytes stay until somebody says that this is right: the backup may not be the last one tried."""
    async with scene() as made:
        for number in range(40):
            made.session(f"s{number:02d}")
            made.store.put(f"{ROOT}/s{number:02d}/file", age=10**6)
        await made.look()
        for number in range(20, 40):
            made.delete(f"s{number:02d}")
        for _ in range(3):
            assert len(await made.look()) == 40
        assert made.stopped == 20
        for number in range(20, 40):
            made.session(f"s{number:02d}")
        assert len(await made.look()) == 40
        assert made.stopped == 0


async def test_too_many_at_once_and_none_goes() -> None:
    async with scene() as made:
        for number in range(50):
            made.store.put(f"{ROOT}/s{number:02d}/file", age=4000)
            if number >= 11:
                made.session(f"s{number:02d}")
        await made.look()
        assert len(await made.look()) == 50
        assert made.stopped == 11
        # the owner of one comes back, or somebody removes its bytes: then it is few enough
        del made.store.objects[f"{ROOT}/s00/file"]
        assert len(await made.look()) == 39
        assert made.stopped == 0


async def test_a_large_part_may_go_if_that_is_said() -> None:
    async with scene(Terms(60.0, 3600.0, 1.0)) as made:
        for number in range(50):
            made.store.put(f"{ROOT}/s{number:02d}/file", age=4000)
        await made.look()
        assert await made.look() == []


async def test_many_pages() -> None:
    async with scene() as made:
        made.store.page_size = 7
        for number in range(40):
            made.session(f"s{number:02d}")
            made.store.put(f"{ROOT}/s{number:02d}/file", age=4000)
        for number in range(30):
            made.store.put(f"{ROOT}/gone/f{number:02d}", age=4000)
        await made.look()
        assert "gone" not in await made.look()
        assert len(made.store.objects) == 40


async def test_nothing_is_removed_once_the_lease_is_lost() -> None:
    async with scene() as made:
        made.store.put(f"{ROOT}/lost/file", age=4000)
        await made.look()
        made.lease.held = False
        with pytest.raises(NotLeadingError):
            await made.look()
        assert made.store.objects


async def test_uploads_that_nobody_ends_are_given_up_after_an_hour() -> None:
    async with scene() as made:
        store = made.store
        old, new = store.now - 3601, store.now - 3500
        store.uploads = {
            "killed/1+": (f"{ROOT}/{'a' * 21}/{'f' * 21}", old),
            "killed 2": (f"{ROOT}/{'b' * 21}/{'f' * 21}", old),
            "in progress": (f"{ROOT}/{'a' * 21}/{'g' * 21}", new),
            "of another namespace": (f"install/other/{'a' * 21}/x", old),
            "of another installation": (f"install2/{NAMESPACE}/{'a' * 21}/x", old),
        }
        store.page_size = 1
        await made.purger.sweep_uploads(NAMESPACE)
        assert set(store.uploads) == {"in progress", "of another namespace", "of another installation"}


async def test_no_upload_is_given_up_once_the_lease_is_lost() -> None:
    async with scene() as made:
        made.store.uploads = {"killed": (f"{ROOT}/{'a' * 21}/{'f' * 21}", 0.0)}
        made.lease.held = False
        with pytest.raises(NotLeadingError):
            await made.purger.sweep_uploads(NAMESPACE)
        assert made.store.uploads


async def test_an_upload_that_ended_meanwhile_and_answers_that_are_none() -> None:
    async with bucket() as (store, made):
        await made.abort(Unfinished(f"{ROOT}/a/x", "gone", 0.0))
        store.answer = b"<L><IsTruncated>true</IsTruncated></L>"
        with pytest.raises(StoreError, match="no marker"):
            await made.unfinished("x")
        store.answer = b"<L><Upload><Key>a</Key><UploadId>b</UploadId></Upload></L>"
        with pytest.raises(StoreError, match="Initiated"):
            await made.unfinished("x")


async def test_a_look_without_the_api_servers_whole_list_removes_nothing() -> None:
    from contract.fakes.apiserver import Fault
    from kubecoderun_operator.cluster import ApiError

    async with scene() as made:
        made.session("aaa")
        made.store.put(f"{ROOT}/aaa/x", age=10**6)
        await made.look()
        made.api.faults.append(Fault("list", "executionsessions", times=100, status=500))
        with pytest.raises(ApiError):
            await made.look()
        assert made.store.objects


# --- sessions that the operator deletes -----------------------------------------------------------------


@asynccontextmanager
async def with_store(**overrides: Any) -> AsyncIterator[tuple[System, FakeS3]]:
    async with fake_s3() as store:
        store.now = time.time()
        chosen = {"store_endpoint": store.url, "install_id": "install", **overrides}
        async with operating(**chosen) as system:
            yield system, store


def ages(system: System, session: dict[str, Any]) -> None:
    """The session ended long ago."""
    name = session["metadata"]["name"]
    found = system.api.store.get(names.SESSION_PLURAL, NAMESPACE, name)
    found["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    found["status"]["timings"]["completed"] = "2020-01-01T00:00:00Z"


def exists(system: System, session: dict[str, Any]) -> bool:
    key = (NAMESPACE, session["metadata"]["name"])
    return key in system.api.store.collections[names.SESSION_PLURAL].objects


def expiry(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_an_expired_session_takes_its_objects_along() -> None:
    async with with_store() as (system, store):
        session = system.files(expires_at=expiry(1.0))
        name = session["metadata"]["name"]
        for key in (f"{ROOT}/{name}/a", f"{ROOT}/{name}/b", f"{ROOT}/{name}x/a"):
            store.put(key, age=100)
        assert (await system.ended(session))["phase"] == "Held"
        await system.until(lambda: len(store.objects) == 1, "purged", seconds=4)
        assert not exists(system, session)
        assert list(store.objects) == [f"{ROOT}/{name}x/a"]


async def test_stored_code_goes_with_its_session() -> None:
    async with with_store() as (system, store):
        system.pool()
        await system.ready(2)
        session = system.session(code=None, codeRef={"bytes": 9, "sha256": "a" * 64}, expires_at=expiry(1.5))
        store.put(f"{ROOT}/{session['metadata']['name']}/code", age=100)
        assert (await system.ended(session))["phase"] == "Succeeded"
        await system.until(lambda: not store.objects, "purged", seconds=4)


async def test_an_ordinary_run_costs_the_store_nothing() -> None:
    async with with_store() as (system, store):
        system.pool()
        await system.ready(2)
        session = system.session("print:x", expires_at=expiry(0.7))
        await system.ended(session)
        await system.until(lambda: not exists(system, session), "deleted", seconds=3)
        await asyncio.sleep(0.1)
        assert store.calls == []


async def test_a_store_that_fails_is_asked_again() -> None:
    async with with_store() as (system, store):
        session = system.files(expires_at=expiry(0.7))
        store.put(f"{ROOT}/{session['metadata']['name']}/a", age=100)
        store.statuses = [503] * 4
        await system.until(lambda: not store.objects, "purged", seconds=8)


async def test_what_the_store_will_not_remove_does_not_hold_up_the_rest() -> None:
    async with scene() as made:
        for name in ("aaa", "bbb"):
            made.store.put(f"{ROOT}/{name}/x", age=100)
            made.purger.session_deleted(NAMESPACE, name)
        made.store.undeletable.add(f"{ROOT}/aaa/x")
        worker = asyncio.create_task(made.purger.work())
        waiting = 0
        while len(made.store.objects) == 2 and waiting < 400:
            await asyncio.sleep(0.1)
            waiting += 1
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        assert list(made.store.objects) == [f"{ROOT}/aaa/x"]


async def test_a_session_that_somebody_deleted_is_found_by_the_look() -> None:
    async with with_store(sweep_store_seconds=0.3) as (system, store):
        session = system.files()
        name = session["metadata"]["name"]
        store.put(f"{ROOT}/{name}/a", age=100)
        await system.ended(session)
        await system.until(lambda: ("GET", f"{ROOT}/") in store.calls, "looked")
        await asyncio.sleep(0.2)
        system.api.store.delete(names.SESSION_PLURAL, NAMESPACE, name)
        await system.until(lambda: not store.objects, "purged")


async def test_the_objects_of_a_session_that_somebody_deleted_go_soon() -> None:
    async with with_store(sweep_sessions_seconds=0.3) as (system, store):
        kept, gone = system.files(), system.files()
        for session in (kept, gone):
            store.put(f"{ROOT}/{session['metadata']['name']}/a", age=100)
            await system.ended(session)
        await asyncio.sleep(0.5)
        assert len(store.objects) == 2
        system.api.store.delete(names.SESSION_PLURAL, NAMESPACE, gone["metadata"]["name"])
        await system.until(lambda: len(store.objects) == 1, "purged")
        await asyncio.sleep(0.5)
        assert list(store.objects) == [f"{ROOT}/{kept['metadata']['name']}/a"]
        assert exists(system, kept)


async def test_when_many_sessions_vanish_at_once_nothing_is_removed() -> None:
    async with with_store(sweep_sessions_seconds=0.3) as (system, store):
        made = [system.files() for _ in range(12)]
        for session in made:
            store.put(f"{ROOT}/{session['metadata']['name']}/a", age=100)
            await system.ended(session)
        for session in made[:11]:
            system.api.store.delete(names.SESSION_PLURAL, NAMESPACE, session["metadata"]["name"])
        await asyncio.sleep(1.0)
        assert len(store.objects) == 12


async def test_a_session_of_files_that_another_process_left_is_deleted_with_its_objects() -> None:
    async with with_store(sweep_sessions_seconds=0.2) as (system, store):
        session = system.files()
        store.put(f"{ROOT}/{session['metadata']['name']}/a", age=100)
        await system.ended(session)
        await system.stop(system.apps[0][0])
        ages(system, session)
        await system.start()
        await system.until(lambda: not exists(system, session) and not store.objects, "deleted")

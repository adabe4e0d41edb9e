"""The operator as a whole: waits to lead, takes over what is there, and works until it is stopped."""

import asyncio
import logging
from collections.abc import Collection, Iterator
from typing import Any, Final

import kopf

from kubecoderun_operator import handlers, orders
from kubecoderun_operator.background import Background
from kubecoderun_operator.bucket import Bucket
from kubecoderun_operator.cluster import ApiError, ApiLimits, ApiUnreachableError, Cluster
from kubecoderun_operator.connection import Connection
from kubecoderun_operator.leader import Elector, LeaseTerms
from kubecoderun_operator.log import about
from kubecoderun_operator.members import Member
from kubecoderun_operator.notices import Notices
from kubecoderun_operator.orphans import Terms
from kubecoderun_operator.purge import SEEN_SECONDS, Purger
from kubecoderun_operator.registry import Registry, load_pools
from kubecoderun_operator.remover import Remover
from kubecoderun_operator.results import Results
from kubecoderun_operator.sessions import Desk
from kubecoderun_operator.settings import Settings
from kubecoderun_operator.sidecars import SidecarLimits, Sidecars
from kubecoderun_operator.signing import Signatures
from kubecoderun_operator.storage import Storage, StoreAddress
from kubecoderun_operator.sweeper import Sweeper
from kubecoderun_operator.tools import Tools

logger = logging.getLogger(__name__)

_KINDS_PAUSE: Final = 1.0
_END_SECONDS: Final = 5.0
"""How long tasks may take to end before they are left behind."""


class WatchFailedError(Exception):
    """kopf has given a watch up, for example because the API server reported an error in it."""


class App:
    """One operator process. `run` once."""

    def __init__(self, settings: Settings, connection: Connection, signatures: Signatures) -> None:
        self._settings = settings
        self._connection = connection
        terms = LeaseTerms(
            settings.lease_namespace,
            settings.lease_name,
            settings.lease_seconds,
            settings.lease_renew_deadline,
            settings.lease_renew_seconds,
            settings.lease_retry_seconds,
        )
        self.elector = Elector(terms, settings.identity)
        limits = ApiLimits(settings.api_attempt_seconds, settings.api_patience_seconds)
        self._cluster = Cluster(connection, limits, self.elector.check)
        self.elector.use(self._cluster)
        self._sidecars = Sidecars(
            signatures,
            SidecarLimits(
                settings.sidecar_connect_seconds,
                settings.sidecar_answer_seconds,
                settings.sidecar_fetch_seconds,
                settings.sidecar_silence_seconds,
                settings.node_silence_seconds,
            ),
            settings.sidecar_port,
            lambda: self.elector.epoch,
            self.elector.raise_epoch,
        )
        self._background = Background()
        storage = _storage(settings)
        self._results = Results(storage)
        self._tools = Tools(
            settings=settings,
            cluster=self._cluster,
            sidecars=self._sidecars,
            storage=storage,
            purger=self._purger(storage),
            results=self._results,
            remover=Remover(self._cluster, self._sidecars, self._background, settings.pod_grace_seconds),
            notices=Notices(self._cluster, self._background, settings.identity, settings.event_pause_seconds),
            background=self._background,
            pod_defaults=settings.pod_defaults(signatures.public_key),
            epoch=lambda: self.elector.epoch,
        )
        self.registry = Registry(self._tools, self._pod_news)
        self.sweeper = Sweeper(self._tools, self.registry)
        self.desk = Desk(self._tools, self.registry, self.sweeper)
        self.ready = asyncio.Event()
        """Set when this process leads, has taken over, and watches."""
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask `run` to come to an end in good order."""
        self._stopping.set()

    def trouble(self) -> str:
        """Empty while all is well: standing by, or leading with a Lease that is renewed."""
        return "the lease is lost" if self.ready.is_set() and not self.elector.leading else ""

    def role(self) -> str:
        """What this process does at the moment, in two words."""
        if self.ready.is_set():
            return "leading"
        return "taking over" if self.elector.leading else "standing by"

    async def run(self) -> None:
        """Lead and work until `stop`. Raises NotLeadingError if the Lease is lost, and WatchFailedError."""
        try:
            acquired = asyncio.create_task(self.elector.acquire())
            if not await self._unless_stopped(acquired):
                return
            holding = asyncio.create_task(self.elector.hold())
            working = asyncio.create_task(self._work())
            try:
                done, _ = await asyncio.wait({holding, working}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await self._end(holding, working)
        finally:
            await self._close()

    async def _work(self) -> None:
        await self._wait_for_kinds()
        await self.take_over()
        ready = asyncio.Event()
        tasks = await kopf.spawn_tasks(
            registry=handlers.handlers(self._connection, self.registry, self.desk),
            settings=handlers.settings(),
            standalone=True,
            namespaces=list(self._settings.namespaces),
            stop_flag=self._stopping,
            ready_flag=ready,
        )
        self.sweeper.start(self.desk)
        saying = asyncio.create_task(self._say_when_ready(ready))
        try:
            await kopf.run_tasks(tasks, ignored=_AllTasks())
        except Exception as error:
            raise WatchFailedError(str(error)) from error
        finally:
            saying.cancel()

    async def _say_when_ready(self, ready: asyncio.Event) -> None:
        await ready.wait()
        self.ready.set()

    async def take_over(self) -> None:
        """Learn what is there, and go on with every unfinished session. Only then may anything be removed."""
        await load_pools(self._cluster, self._settings.namespaces, self.registry)
        unfinished = []
        for namespace in self._settings.namespaces:
            unfinished += [raw async for raw in self._cluster.unfinished_sessions(namespace)]
        # All pods that are in use are known before the first session asks for one.
        for raw in unfinished:
            self.desk.take_pod(orders.session(raw))
        for raw in unfinished:
            self.desk.session_seen(None, raw)
        self.registry.start()
        logger.info("taken over", extra=about(unfinished_sessions=len(unfinished), epoch=self.elector.epoch))

    async def _wait_for_kinds(self) -> None:
        told = False
        while True:
            try:
                if await self._cluster.serves_our_kinds():
                    return
            except (ApiError, ApiUnreachableError) as error:
                logger.warning("the API server does not answer", extra=about(cause=str(error)))
            if not told:
                logger.warning("the custom resource definitions are not established yet")
                told = True
            await asyncio.sleep(_KINDS_PAUSE)

    async def _unless_stopped(self, task: asyncio.Task[Any]) -> bool:
        """Wait for the task; False, with the task cancelled, if stop was called first."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            stopping.cancel()
            if not task.done():
                task.cancel()

    async def _end(self, holding: asyncio.Task[None], working: asyncio.Task[None]) -> None:
        """Stop in an order that lets the next leader go on at once: runs first, the Lease last."""
        self.registry.stop()
        if self.elector.leading:
            await self.desk.close(self._settings.drain_seconds)
        else:
            await self.desk.close(0)
        await self._background.stop()
        for task in (working, holding):
            task.cancel()
        done, _ = await asyncio.wait({working, holding}, timeout=_END_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # it has been seen: the first one is why this is the end
        await self.elector.release()

    async def _close(self) -> None:
        await self._sidecars.close()
        await self._results.close()
        await self._cluster.close()
        if self._tools.purger is not None:
            await self._tools.purger.close()

    def _purger(self, storage: Storage | None) -> Purger | None:
        if storage is None:
            return None
        settings = self._settings
        bucket = Bucket(storage, seconds=settings.store_seconds, ca_file=settings.store_ca_file)
        terms = Terms(SEEN_SECONDS, settings.orphan_seconds, settings.orphan_share)
        return Purger(storage, bucket, self._cluster, self.elector.check, terms)

    def _pod_news(self, pod: Member, gone: bool, session_uid: str) -> None:
        self.desk.pod_seen(pod, gone, session_uid)


class _AllTasks(Collection[asyncio.Task[Any]]):
    """Every task there is. When kopf ends, it cancels all tasks of the loop but those it is told to ignore;
    ours have to end in an order of their own."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(asyncio.all_tasks())

    def __len__(self) -> int:
        return len(asyncio.all_tasks())


def _storage(settings: Settings) -> Storage | None:
    if not settings.store_endpoint:
        return None
    address = StoreAddress(
        settings.store_endpoint,
        settings.store_region,
        settings.store_bucket,
        settings.store_virtual_hosts,
        settings.install_id,
        settings.store_uploads,
    )
    return Storage(
        address, settings.store_access_key.get_secret_value(), settings.store_secret_key.get_secret_value()
    )

"""Everything a request needs, made once per process."""

import asyncio
from datetime import timedelta
from typing import Final

from kubecoderun_api import log
from kubecoderun_api.admission import Admission
from kubecoderun_api.answers import Answer
from kubecoderun_api.auth.authenticator import Authenticator
from kubecoderun_api.auth.keys import KeyRing
from kubecoderun_api.auth.token_keys import TokenKeys
from kubecoderun_api.auth.tokens import TokenPolicy
from kubecoderun_api.chores import Chores
from kubecoderun_api.cluster import Cluster, LoadConfiguration
from kubecoderun_api.connection import HangUpPolicy
from kubecoderun_api.erasure import Erasure
from kubecoderun_api.idempotency import Repeats
from kubecoderun_api.inputs import Inputs
from kubecoderun_api.lifetimes import Lifetimes
from kubecoderun_api.limits import Limits
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.pools import PoolBook
from kubecoderun_api.relay import Relay
from kubecoderun_api.removals import Removals
from kubecoderun_api.sessions import Sessions
from kubecoderun_api.settings import Authentication, Settings
from kubecoderun_api.signing import StoreAccess
from kubecoderun_api.storage import Store
from kubecoderun_api.uploads import Uploads
from kubecoderun_api.watchers import Watchers
from kubecoderun_api.watching import PoolSource, Watch
from kubecoderun_api.workspaces import Workspaces
from kubecoderun_crds import names
from kubecoderun_crds.relay import key_of

_LAST_CHORES_SECONDS: Final = 5.0


class Services:
    """The parts of the front end and their lifetimes."""

    def __init__(self, settings: Settings, load_configuration: LoadConfiguration) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.policy = HangUpPolicy(
            heartbeat=settings.heartbeat,
            heartbeat_after=settings.heartbeat_after_seconds,
            heartbeat_every=settings.heartbeat_every_seconds,
            close_connections=settings.close_connections,
        )
        self.authenticator = _authenticator(settings)
        self.cluster = Cluster(load_configuration, settings.namespace, settings.cluster_attempt_seconds)
        self.store = Store(
            _store_access(settings),
            self.metrics,
            install_id=settings.install_id,
            namespace=settings.namespace,
            seconds=settings.store_seconds,
        )
        self.chores = Chores()
        self.sessions = Sessions(
            self.cluster,
            self.metrics,
            self.chores,
            namespace=settings.namespace,
            front_end=settings.replica_uid,
            create_seconds=settings.create_seconds,
            watch_seconds=settings.watch_seconds,
            recheck_seconds=settings.recheck_seconds,
        )
        lifetime = timedelta(seconds=settings.files_ttl_seconds)
        self.lifetimes = Lifetimes(
            self.cluster,
            self.chores,
            lifetime=lifetime,
            longest=timedelta(seconds=settings.files_max_seconds),
        )
        self.inputs = Inputs(self.sessions, self.store, self.lifetimes, self.metrics)
        self.uploads = Uploads(
            self.store,
            self.sessions,
            self.chores,
            self.metrics,
            max_bytes=settings.max_upload_bytes,
            seconds=settings.upload_seconds,
            at_once=settings.uploads_at_once,
            lifetime=lifetime,
        )
        self.relay = Relay(settings.relay_url, _relay_key(settings), self.metrics)
        self.watchers = Watchers(
            self.sessions,
            self.store,
            self.relay,
            self.metrics,
            namespace=settings.namespace,
            retry_after_seconds=settings.retry_after_seconds,
            leaving=lambda: self.draining or self.sessions.stopping,
        )
        self.removals = Removals(self.cluster, self.sessions, self.store)
        self.workspaces = Workspaces(
            self.cluster,
            namespace=settings.namespace,
            key=settings.naming_key(),
            create_seconds=settings.create_seconds,
        )
        self.pools = PoolBook()
        self.pool_watch = Watch(
            self.cluster,
            names.POOL_PLURAL,
            PoolSource(self.cluster, self.pools),
            self.metrics,
            seconds=settings.watch_seconds,
        )
        self.erasure = Erasure(self.cluster, self.store)
        self.repeats = Repeats()
        self.admission = Admission(
            Limits(
                per_minute=settings.tenant_runs_per_minute,
                burst=settings.tenant_burst,
                at_once=settings.tenant_runs_at_once,
                longest_wait=settings.limit_wait_seconds,
            ).share(settings.replicas),
            retry_after_seconds=settings.retry_after_seconds,
        )
        self.draining = False
        """Whether the process has been asked to end: not ready any more, but still serving."""
        self.unseen: set[asyncio.Task[Answer]] = set()
        """Runs that go on although their client has left."""
        self.calls: dict[str, asyncio.Task[Answer]] = {}
        """Calls of /exec/programmatic in progress that can be cancelled, by `toolcalls.request_label`."""
        self._watches: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect and start watching. An API server that does not answer yet only delays readiness."""
        await self.cluster.open()
        await self.store.open()
        await self.relay.open()
        self._watches = [
            asyncio.create_task(self.sessions.watch.run()),
            asyncio.create_task(self.pool_watch.run()),
        ]
        if self.authenticator.lacks_keys():
            log.event("no_api_keys", level=log.ERROR, file=self.settings.api_keys_file)
        log.event("started", replica=self.settings.replica_uid, namespace=self.settings.namespace)

    def stop(self) -> None:
        """Answer all calls that are still open with an error."""
        self.sessions.stop()
        self.uploads.stop()

    async def close(self) -> None:
        """End what is still open; cancellations under way get a few seconds."""
        self.sessions.stop(leave_running=True)  # what is open now is wanted although nobody waits for it
        await self.repeats.close()
        await self.chores.finish(_LAST_CHORES_SECONDS)
        for task in (*self._watches, *self.unseen):
            task.cancel()
        await asyncio.gather(*self._watches, *self.unseen, return_exceptions=True)
        await self.relay.close()
        await self.store.close()
        await self.cluster.close()
        log.event("stopped")

    def unready(self) -> list[str]:
        """Why no request should come here right now; empty if all is well. The store does not count."""
        reasons = {
            "shutting down": self.draining or self.sessions.stopping,
            "session watch not established": not self.sessions.watch.established,
            "pools not known": not self.pools.known,
        }
        return [reason for reason, holds in reasons.items() if holds]


def _relay_key(settings: Settings) -> bytes | None:
    """Raises OSError or RelayError for a file that does not hold a key."""
    return key_of(settings.relay_key_file.read_text()) if settings.relay_key_file else None


def _authenticator(settings: Settings) -> Authenticator:
    keys = settings.api_keys_file
    return Authenticator(
        keys=None if keys is None else KeyRing(keys),
        token_keys=TokenKeys(
            folder=settings.jwt_keys_dir,
            url=settings.jwt_jwks_url,
            fresh_seconds=settings.jwt_key_seconds,
        )
        if settings.takes_tokens
        else None,
        policy=TokenPolicy(
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            algorithms=tuple(settings.jwt_algorithms.split(",")),
            max_seconds=settings.jwt_max_seconds,
            leeway_seconds=settings.jwt_leeway_seconds,
            tenant_claim=settings.jwt_tenant_claim,
            tenant_required=settings.jwt_tenant_required,
            admin_roles=frozenset(filter(None, map(str.strip, settings.jwt_admin_roles.split(",")))),
        ),
        open_networks=settings.networks,
        required=settings.auth is Authentication.KEYS,
    )


def _store_access(settings: Settings) -> StoreAccess | None:
    if (
        settings.store_endpoint is None
        or settings.store_access_key is None
        or settings.store_secret_key is None
    ):
        return None
    return StoreAccess(
        url=settings.store_endpoint,
        bucket=settings.store_bucket,
        region=settings.store_region,
        access_key=settings.store_access_key.get_secret_value(),
        secret_key=settings.store_secret_key.get_secret_value(),
        virtual_hosts=settings.store_virtual_hosts,
        ca_file=settings.store_ca_file,
    )

"""The NetworkPolicy of a Restricted pool: what it says, and bringing it into the cluster.

It only adds to what the policy for all pools allows. So pods without it reach less, never more.
"""

import ipaddress
import logging
from http import HTTPStatus
from typing import Any, Final

from kubecoderun_crds import names
from kubecoderun_crds.egress import EgressRule, IpBlock, Peer
from kubecoderun_crds.pool import PoolSpec
from kubecoderun_operator.cluster import ApiError, ApiUnreachableError, Cluster
from kubecoderun_operator.log import about

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]
NEVER: Final = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)
"""Where clouds serve credentials and user data to machines: taken out of every larger range. A pool that
wants one of them names it as it is."""
_UNKNOWN: Final = object()


def policy_name(pool: str) -> str:
    """Name of a pool's NetworkPolicy."""
    return f"kubecoderun-pool-{pool}"


def policy(namespace: str, pool: str, uid: str, spec: PoolSpec) -> JsonObject | None:
    """The NetworkPolicy of a pool; None for a pool that needs none. It goes when the pool goes."""
    if spec.network != "Restricted":
        return None
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": policy_name(pool),
            "namespace": namespace,
            "labels": {names.LABEL_POOL: pool, names.LABEL_POOL_UID: uid},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.POOL_KIND,
                    "name": pool,
                    "uid": uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_POOL_UID: uid, names.LABEL_NETWORK: "Restricted"}},
            "policyTypes": ["Egress"],
            "egress": [_rule(rule) for rule in spec.egress],
        },
    }


def _rule(rule: EgressRule) -> JsonObject:
    made: JsonObject = {"to": [_peer(peer) for peer in rule.to]}
    if rule.ports:
        made["ports"] = [port.as_dict() for port in rule.ports]
    return made


def _peer(peer: Peer) -> JsonObject:
    if peer.ip_block is not None:
        return {"ipBlock": _block(peer.ip_block)}
    return peer.as_dict()


def _block(block: IpBlock) -> JsonObject:
    whole = ipaddress.ip_network(block.cidr, strict=False)
    inside = {
        str(part)
        for part in NEVER
        if part.version == whole.version and part != whole and part.subnet_of(whole)  # type: ignore[arg-type]
    }
    cut = sorted(inside.union(block.except_))
    return {"cidr": block.cidr, **({"except": cut} if cut else {})}


class PolicyKeeper:
    """Keeps the NetworkPolicy of one pool."""

    def __init__(self, namespace: str, pool: str, uid: str, cluster: Cluster) -> None:
        self._namespace = namespace
        self._pool = pool
        self._uid = uid
        self._cluster = cluster
        self._there: object = _UNKNOWN
        """What the cluster has, as far as this process knows."""

    async def settle(self, spec: PoolSpec) -> str:
        """Make, change or remove the policy. Returns why pods must not be made before that has worked; empty
        when they can be."""
        wanted = policy(self._namespace, self._pool, self._uid, spec)
        if wanted == self._there:
            return ""
        try:
            if wanted is None:
                await self._remove()
            else:
                await self._cluster.apply_network_policy(wanted)
        except (ApiError, ApiUnreachableError) as error:
            where = about(namespace=self._namespace, pool=self._pool, cause=str(error))
            logger.warning("a network policy could not be settled", extra=where)
            return "" if wanted is None else f"its network policy cannot be made: {error}"
        self._there = wanted
        return ""

    def seen(self, found: JsonObject | None) -> bool:
        """A look at the cluster has shown this: whether it is not what it should be, and must be settled."""
        if self._there is _UNKNOWN:
            return False
        wanted = self._there if isinstance(self._there, dict) else None
        same = (found or {}).get("spec") == (wanted or {}).get("spec")
        if not same:
            self._there = _UNKNOWN
        return not same

    async def _remove(self) -> None:
        """A policy that is left of a time when the pool was Restricted. One that somebody else has made under
        this name stays."""
        name = policy_name(self._pool)
        try:
            found = await self._cluster.network_policy(self._namespace, name)
            meta = found["metadata"]
            if (meta.get("labels") or {}).get(names.LABEL_POOL_UID) == self._uid:
                await self._cluster.delete_network_policy(self._namespace, name, meta["uid"])
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

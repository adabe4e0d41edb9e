"""What pods of a Restricted pool may reach: the egress rules of a NetworkPolicy, typed and bounded.

The shapes and names are those of networking.k8s.io/v1, so the operator copies them as they are.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from kubecoderun_crds.fields import ATOMIC_LIST, Model, rule, rules
from kubecoderun_crds.scheduling import LabelSelector

Cidr = Annotated[
    str,
    Field(
        min_length=4,
        max_length=43,
        pattern=r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$",
        json_schema_extra=rules(rule("isCIDR(self)", "must be a range of addresses such as 10.0.0.0/8")),
    ),
]
Port = Annotated[int, Field(ge=1, le=65_535)]


class IpBlock(Model):
    """A range of addresses."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!isCIDR(self.cidr) || !has(self.except) || self.except.all(part, !isCIDR(part) || "
                "cidr(self.cidr).containsCIDR(cidr(part)))",
                "every range in except must lie in cidr",
            )
        )
    )

    cidr: Cidr
    """The range. Link-local addresses, where clouds serve credentials, are taken out of a larger one."""
    except_: Annotated[list[Cidr], Field(alias="except", max_length=16, json_schema_extra=ATOMIC_LIST)] = (
        Field(default_factory=list)
    )
    """Parts of it that cannot be reached all the same."""


class Peer(Model):
    """Whom pods may reach: addresses, or pods by labels."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
                "give either ipBlock, or podSelector or namespaceSelector or both",
            )
        )
    )

    ip_block: IpBlock | None = None
    """Addresses, usually outside the cluster."""
    namespace_selector: LabelSelector | None = None
    """Pods in namespaces with such labels; without it those of the pool's own namespace."""
    pod_selector: LabelSelector | None = None
    """Pods with such labels; without it all of the namespaces."""


class PortRange(Model):
    """One port, or several in a row."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.endPort) || self.endPort >= self.port", "endPort must not be less than port")
        )
    )

    protocol: Literal["TCP", "UDP"] = "TCP"
    """TCP or UDP."""
    port: Port
    """The port, or the first one."""
    end_port: Port | None = None
    """The last one."""


class EgressRule(Model):
    """Connections that pods may open: to any of `to`, on any of `ports`."""

    to: Annotated[list[Peer], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC_LIST)]
    """Whom they may reach."""
    ports: Annotated[list[PortRange], Field(max_length=16, json_schema_extra=ATOMIC_LIST)] = Field(
        default_factory=list
    )
    """On which ports; on all without one."""

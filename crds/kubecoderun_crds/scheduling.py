"""Where the pods of a pool may run: the parts of a core pod spec that a pool passes on, typed and bounded.

The shapes and names are those of core/v1, so the operator copies them into pods as they are.
"""

from typing import Annotated, Literal

from pydantic import Field

from kubecoderun_crds.fields import (
    ATOMIC_MAP,
    LabelKey,
    LabelMap,
    LabelValue,
    Model,
    ResourceName,
)

Weight = Annotated[int, Field(ge=1, le=100)]


class Toleration(Model):
    """Lets the pods run on nodes with a matching taint."""

    key: LabelKey | None = None
    """Key of the taint; without one, operator Exists matches all taints."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists matches any value, Equal the given one."""
    value: LabelValue | None = None
    """Value of the taint, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; all effects without one."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How long a NoExecute taint is tolerated; for ever without it."""


class LabelRequirement(Model):
    """One condition on a label."""

    key: LabelKey
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Annotated[list[LabelValue], Field(max_length=32)] | None = None
    """Values, for In and NotIn."""


class LabelSelector(Model):
    """Selects by labels; all given conditions must hold."""

    match_labels: LabelMap | None = None
    """Labels with exactly these values."""
    match_expressions: Annotated[list[LabelRequirement], Field(max_length=16)] | None = None
    """Further conditions."""


class NodeRequirement(Model):
    """One condition on a node."""

    key: LabelKey
    """Label or field of the node."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared."""
    values: Annotated[list[LabelValue], Field(max_length=32)] | None = None
    """Values: one or more for In and NotIn, one integer for Gt and Lt."""


class NodeSelectorTerm(Model):
    """Conditions on a node that must all hold."""

    match_expressions: Annotated[list[NodeRequirement], Field(max_length=16)] | None = None
    """Conditions on labels."""
    match_fields: Annotated[list[NodeRequirement], Field(max_length=4)] | None = None
    """Conditions on fields; metadata.name is the only one."""


class NodeSelector(Model):
    """Terms of which one must hold."""

    node_selector_terms: Annotated[list[NodeSelectorTerm], Field(min_length=1, max_length=16)]
    """The terms."""


class PreferredNode(Model):
    """A wish for certain nodes."""

    weight: Weight
    """How much it counts, 1 to 100."""
    preference: NodeSelectorTerm
    """The wanted nodes."""


class NodeAffinity(Model):
    """Nodes by their labels."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes that can be used at all."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PreferredNode], Field(max_length=16)] | None
    ) = None
    """Nodes to be preferred."""


class PodAffinityTerm(Model):
    """Nodes by the pods they run."""

    topology_key: LabelKey
    """Node label whose value makes nodes one place, such as kubernetes.io/hostname."""
    label_selector: Annotated[LabelSelector, Field(json_schema_extra=ATOMIC_MAP)] | None = None
    """The pods in question."""
    namespaces: Annotated[list[ResourceName], Field(max_length=16)] | None = None
    """Their namespaces; the pool's own without this and namespaceSelector."""
    namespace_selector: Annotated[LabelSelector, Field(json_schema_extra=ATOMIC_MAP)] | None = None
    """Their namespaces by labels."""


class PreferredPods(Model):
    """A wish about the neighbours."""

    weight: Weight
    """How much it counts, 1 to 100."""
    pod_affinity_term: PodAffinityTerm
    """The pods in question and what counts as near."""


class PodAffinity(Model):
    """Rules about neighbours."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[list[PodAffinityTerm], Field(max_length=8)] | None
    ) = None
    """Rules that must hold."""
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[list[PreferredPods], Field(max_length=8)] | None
    ) = None
    """Rules that should hold."""


class Affinity(Model):
    """Where pods go, by nodes and by neighbours."""

    node_affinity: NodeAffinity | None = None
    """Nodes by their labels."""
    pod_affinity: PodAffinity | None = None
    """Near these pods."""
    pod_anti_affinity: PodAffinity | None = None
    """Away from these pods."""


class TopologySpreadConstraint(Model):
    """Spreads pods evenly over places."""

    topology_key: LabelKey
    """Node label whose value makes nodes one place."""
    max_skew: Annotated[int, Field(ge=1, le=1000)]
    """By how many pods two places may differ."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether the rule must or should hold."""
    label_selector: Annotated[LabelSelector, Field(json_schema_extra=ATOMIC_MAP)] | None = None
    """The pods that are counted; kubecoderun.io/pool with the pool's name selects those of the pool."""
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The least number of places, for DoNotSchedule."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes that the pods cannot use by affinity count; Honor leaves them out."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes with taints that are not tolerated count; Honor leaves them out."""
    match_label_keys: Annotated[list[LabelKey], Field(max_length=8)] | None = None
    """Labels whose values on the new pod are added to labelSelector."""

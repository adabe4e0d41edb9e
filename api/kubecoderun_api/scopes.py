"""What clients say a file belongs to: the user, an agent, or a version of a skill. No I/O.

Ids are secrets and sessions have tenants, so this is no boundary between callers. It keeps what belongs to
one agent or to one version of a skill from being taken for what belongs to another, and finds it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kubecoderun_api import wire
from kubecoderun_crds import names

Json = dict[str, Any]
KINDS: Final = ("skill", "agent", "user")
_RESOURCE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True)
class Scope:
    """What a file belongs to."""

    kind: str
    """One of KINDS."""
    resource: str | None = None
    """Id of the agent or the skill. That of a user is only what somebody said: the credential counts."""
    version: str | None = None
    """That of a skill, in digits without leading zeros."""

    def as_metadata(self) -> Json:
        """Labels by which sessions can be found, and what no label can hold."""
        labels = {names.LABEL_KIND: self.kind}
        if self.version is not None:
            labels[names.LABEL_VERSION] = self.version
        if self.resource is None or self.kind == "user":
            return {"labels": labels}
        labels[names.LABEL_RESOURCE] = names.label_value(self.resource)
        return {"labels": labels, "annotations": {names.ANNOTATION_RESOURCE: self.resource}}

    def as_answer(self) -> Json:
        """The keys that tell of it."""
        made: Json = {"kind": self.kind}
        if self.resource is not None:
            made["resource_id"] = self.resource
        if self.version is not None:
            made["version"] = int(self.version) if self.version.isdigit() else float(self.version)
        return made


def parse(
    kind: Any, resource: Any, version: Any, *, where: str = "", resource_name: str = "id"
) -> Scope | None:
    """What was said, None if nothing; values that are None or empty were not said. Raises wire.BadRequest
    for what cannot be. `where` goes before the names of fields."""
    if version in (None, ""):
        version = None
    if kind in (None, ""):
        return None
    if kind not in KINDS:
        wire.refuse(f"{where}kind must be one of: {', '.join(KINDS)}")
    if kind == "skill" and version is None:
        wire.refuse(f"{where}version is required for kind: 'skill'")
    if kind != "skill" and version is not None:
        wire.refuse(f"{where}version is only valid for kind: 'skill'")
    text = None if version is None else _version(version)
    if version is not None and text is None:
        wire.refuse(f"{where}version must be a number")
    said = resource not in (None, "")
    if said and not (isinstance(resource, str) and _RESOURCE.fullmatch(resource)):
        wire.refuse(f"{where}{resource_name} is invalid")
    if kind != "user" and not said:
        wire.refuse(f"{where}{resource_name} is required for kind: '{kind}'")
    return Scope(kind, resource if said else None, text)


def _version(version: Any) -> str | None:
    """The text that is the same for the same number, however it came; None if it is no version."""
    if isinstance(version, str):
        return str(int(version)) if version.isascii() and version.isdigit() and len(version) <= 18 else None
    if isinstance(version, bool) or not isinstance(version, int | float) or version < 0:
        return None
    if isinstance(version, float):
        if not math.isfinite(version):
            return None
        return str(int(version)) if version.is_integer() else repr(version)
    return str(version)


def kept(metadata: Mapping[str, Any]) -> Scope | None:
    """What the files of a session were uploaded for; None if nobody has said so."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        return parse(
            labels.get(names.LABEL_KIND),
            annotations.get(names.ANNOTATION_RESOURCE),
            labels.get(names.LABEL_VERSION),
        )
    except wire.BadRequest:
        return None  # somebody has changed it


def admits(kept: Scope | None, said: Scope | None) -> bool:
    """Whether a file that was uploaded for `kept` is one that a caller means who says `said`.

    Clients that say nothing, and those that call every file the user's, are believed.
    """
    return kept is None or said is None or said.kind == "user" or kept == said

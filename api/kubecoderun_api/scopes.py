"""What clients say a file belongs to: the user, an agent, or a version of a skill. No I/O.

The official service keeps files of different owners apart by it. Here ids are secrets and sessions have
tenants, so it is only checked: a client that says something impossible has a fault that should be told.
"""

import re
from typing import Any, Final

from kubecoderun_api import wire

KINDS: Final = ("skill", "agent", "user")
_RESOURCE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def check(kind: Any, resource: Any, version: Any, *, where: str = "", resource_name: str = "id") -> None:
    """Raise wire.BadRequest for what cannot be; values that are None or empty were not said. `where` goes
    before the names of fields."""
    if version in (None, ""):
        version = None
    if kind in (None, ""):
        return
    if kind not in KINDS:
        wire.refuse(f"{where}kind must be one of: {', '.join(KINDS)}")
    if kind == "skill" and version is None:
        wire.refuse(f"{where}version is required for kind: 'skill'")
    if kind != "skill" and version is not None:
        wire.refuse(f"{where}version is only valid for kind: 'skill'")
    if version is not None and not _is_version(version):
        wire.refuse(f"{where}version must be a number")
    said = resource not in (None, "")
    if said and not (isinstance(resource, str) and _RESOURCE.fullmatch(resource)):
        wire.refuse(f"{where}{resource_name} is invalid")
    if kind != "user" and not said:
        wire.refuse(f"{where}{resource_name} is required for kind: '{kind}'")


def _is_version(version: Any) -> bool:
    if isinstance(version, str):
        return version.isascii() and version.isdigit() and len(version) <= 18
    return isinstance(version, int | float) and not isinstance(version, bool) and version >= 0

"""What each generation of LibreChat's client sends, and which of them lose connections. Pure.

From the published packages of `@librechat/agents`; which LibreChat release carries which is approximate at
the borders (docs/librechat.md).
"""

import re
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:[-+.].*)?")
Version = tuple[int, int, int]


class UnknownReleaseError(ValueError):
    """A version that is not one; the text says how it has to look."""


@dataclass(frozen=True)
class Release:
    """How one LibreChat behaves."""

    name: str
    """As it was given."""
    key_in_header: bool
    """Whether an API key goes with every call. It does until `@librechat/agents` 3.1.67."""
    key_in_body: bool
    """Whether it goes with runs, in their body, at least."""
    tokens: bool
    """Whether it can send tokens (JWT) with every call: from 3.1.83 on."""
    key_required: bool
    """Whether the tool refuses to work without a key."""
    no_proxy: bool
    """Whether calls of the tool heed NO_PROXY: from 3.4.0 on."""
    collapses_slashes: bool
    """Whether slashes at the end of the address are taken off: from 3.6 on."""
    hang_up: bool | None
    """Whether silent runs are cut off after five seconds; None: perhaps."""


def of_librechat(text: str) -> Release:
    """The release of LibreChat with that version. Raises UnknownReleaseError."""
    version = _parse(text)
    agents = (3, 0, 50)
    for first, carried in (
        ((0, 8, 2), (3, 1, 0)),
        ((0, 8, 5), (3, 1, 77)),
        ((0, 8, 6), (3, 2, 57)),
        ((0, 8, 8), (3, 9, 2)),
    ):
        if version >= first:
            agents = carried
    hang_up = None if version == (0, 8, 4) else version < (0, 8, 4)
    return _release(f"LibreChat {text}", agents, hang_up)


def of_agents(text: str) -> Release:
    """Whatever carries that version of @librechat/agents. Raises UnknownReleaseError."""
    version = _parse(text)
    return _release(f"@librechat/agents {text}", version, None if version >= (3, 1, 60) else True)


def _release(name: str, agents: Version, hang_up: bool | None) -> Release:
    return Release(
        name=name,
        key_in_header=agents <= (3, 1, 67),
        key_in_body=agents < (3, 2, 58),
        tokens=agents >= (3, 1, 83),
        key_required=agents <= (3, 1, 67),
        no_proxy=agents >= (3, 4, 0),
        collapses_slashes=agents >= (3, 6, 0),
        hang_up=hang_up,
    )


def _parse(text: str) -> Version:
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise UnknownReleaseError(f"{text!r} is not a version such as 0.8.4 or v0.8.2-rc3")
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch

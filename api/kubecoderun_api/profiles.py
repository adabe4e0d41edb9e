"""Execution profiles of LibreChat: what a client expects of the endpoint it talks to. Pure.

`default`: each run stands alone. `stateful`: runs with the same runtime_session_hint find the same machine
and the same /mnt/data. One endpoint serves both, so LIBRECHAT_CODE_BASEURL and
LIBRECHAT_CODE_BASEURL_STATEFUL may be the same address. A client that asserts a profile which is not served
is told so, before anything is run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

ASSERTION: Final = b"x-codeapi-expected-profile"
HEADER: Final = b"x-codeapi-execution-profile"


class Profile(StrEnum):
    """How runs relate to each other."""

    DEFAULT = "default"
    STATEFUL = "stateful"


@dataclass(frozen=True)
class Refusal:
    """The answer to an assertion that does not hold."""

    status: int
    body: dict[str, Any]


def expected(headers: Iterable[tuple[bytes, bytes]], *, stateful: bool) -> Profile | Refusal | None:
    """What the request asserts; None if nothing. stateful: whether that profile is served."""
    values = {value.strip().lower() for name, value in headers if name == ASSERTION}
    if not values:
        return None
    texts = {value.decode("latin-1") for value in values}
    if len(texts) > 1 or not texts <= set(Profile):
        known = " or ".join(Profile)
        return Refusal(
            400,
            {"error": "invalid_execution_profile", "message": f"X-CodeAPI-Expected-Profile must be {known}."},
        )
    profile = Profile(texts.pop())
    if profile is Profile.STATEFUL and not stateful:
        return Refusal(
            409,
            {
                "error": "execution_profile_mismatch",
                "message": "This endpoint does not keep state between runs.",
                "expected_profile": str(profile),
                "actual_profile": str(Profile.DEFAULT),
            },
        )
    return profile

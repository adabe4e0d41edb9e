"""Where a request may carry a credential.

It may stand in `X-API-Key`, in `Authorization` (Bearer or ApiKey), or in the JSON body under one of three
names that LibreChat's clients use.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

BODY_NAMES: Final = ("LIBRECHAT_CODE_API_KEY", "api_key", "apiKey")
_SCHEMES: Final = ("bearer", "apikey")
_FOREIGN: Final = "\0"
"""Begins a credential that cannot be one of ours."""
_IN_BODY: Final = re.compile(rb'"(?:LIBRECHAT_CODE_API_KEY|api_key|apiKey)"\s*:\s*("(?:[^"\\]|\\.){1,8192}")')

Headers = Iterable[tuple[bytes, bytes]]


def header_credentials(headers: Headers) -> set[str]:
    """All different credentials in the headers (names in lower case, as ASGI has them).

    An Authorization header of another scheme counts as a credential too (one that nobody knows), so that it
    cannot hide beside a good key.
    """
    found = set()
    for name, raw in headers:
        value = raw.decode("latin-1").strip()
        if name == b"authorization" and value:
            scheme, _, rest = value.partition(" ")
            found.add(rest.strip() if scheme.lower() in _SCHEMES else f"{_FOREIGN}{value}")
        elif name == b"x-api-key" and value:
            found.add(value)
    return found


def body_credentials(body: Mapping[str, Any]) -> set[str]:
    """All different credentials in a JSON body; empty and non-text values are none."""
    values = (body.get(name) for name in BODY_NAMES)
    return {value.strip() for value in values if isinstance(value, str) and value.strip()}


def candidates_in(raw_body: bytes | bytearray) -> Iterator[str]:
    """What may be credentials in a body that has not been parsed."""
    for match in _IN_BODY.finditer(raw_body):
        try:
            value = json.loads(match[1])
        except ValueError:
            continue
        if value.strip():
            yield value.strip()

"""Wall-clock time as the protocol writes it."""

from __future__ import annotations

import time


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC with microseconds, e.g. 2026-01-02T03:04:05.000006Z."""
    micros = round(seconds * 1_000_000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000))
    return f"{whole}.{micros % 1_000_000:06d}Z"

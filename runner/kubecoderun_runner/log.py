"""The container's log, for whoever made the image."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Write one line."""
    print(f"runner: {text}", file=sys.stderr, flush=True)

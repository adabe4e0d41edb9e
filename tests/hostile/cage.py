"""Hostile programs, and the spec of a pool with limits tight enough that each meets its own in seconds."""

from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"


def program(name: str) -> str:
    """The text of a program."""
    return (PROGRAMS / f"{name}.py").read_text()


def cage(image: str) -> dict[str, Any]:
    """Spec fields of such a pool."""
    return {
        "replicas": 2,
        "maxPods": 5,
        "limits": {
            "maxPrintedBytes": 8 << 20,
            "maxProcesses": 64,
            "maxOpenFiles": 128,
            "maxFileBytes": 1 << 20,
        },
        "runtime": {
            "image": image,
            "languages": ["py"],
            "preload": [],
            "scratch": {"size": "48Mi"},
            "resources": {"requests": {"memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        },
    }

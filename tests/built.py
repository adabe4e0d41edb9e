"""Programs that the scripts of the development cluster have built."""

import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


class NotBuiltError(Exception):
    """A program is not there. The text says how it is built."""


def program(name: str) -> Path:
    """One in the cache of cluster/binaries.sh. Builds nothing. Raises NotBuiltError."""
    asked = subprocess.run(
        [ROOT / "cluster" / "binaries.sh"], capture_output=True, text=True, timeout=60, check=True
    )
    path = Path(asked.stdout.splitlines()[-1]) / name
    if not path.is_file():
        raise NotBuiltError(f"{name} is not built: cluster/binaries.sh {name}")
    return path

"""Runs the Node programs beside this file."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
RUN_SECONDS: Final = 240


def run_node(script: str, order: Any, **environment: str) -> Any:
    """Give a program an order (JSON, on standard input); the JSON it prints as its last line.

    Fails with what it wrote to stderr when it ends with an error.
    """
    # a proxy would be asked for the loopback address too
    inherited = {name: value for name, value in os.environ.items() if not name.upper().endswith("PROXY")}
    done = subprocess.run(
        ["node", str(HERE / script)], input=json.dumps(order), capture_output=True, text=True,
        timeout=RUN_SECONDS, check=False, env=inherited | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])

"""Whether this machine's own tools can run a language as the images' do."""

from __future__ import annotations

import functools
import os
import re
import subprocess

from kubecoderun_runner.languages import BY_NAME, find_program

OLDEST = {"js": (20, 19), "ts": (22, 18), "go": (1, 21), "java": (22, 0), "rs": (1, 85), "cpp": (12, 0)}
"""The first version that does what the table of languages asks for."""
_VERSION = {"go": ["version"], "java": ["-version"]}


@functools.cache
def why_not_here(language: str) -> str | None:
    """Why this machine cannot run it, or None."""
    tool = BY_NAME[language].tool
    program = find_program(tool, os.environ["PATH"])
    if program is None:
        return f"{tool} is not installed here"
    oldest = OLDEST.get(language)
    if oldest is None:
        return None
    asked = subprocess.run(
        [program, *_VERSION.get(tool, ["--version"])], capture_output=True, text=True, timeout=60
    )
    found = re.search(r"(\d+)\.(\d+)", asked.stdout + asked.stderr)
    if found is None or (int(found[1]), int(found[2])) < oldest:
        return f"{tool} here is older than {oldest[0]}.{oldest[1]}"
    return None

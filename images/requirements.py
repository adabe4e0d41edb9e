"""Prints the requirements of one extra of pyproject.toml, one per line.

So an image can install them in a layer below the sources.

usage: requirements.py PYPROJECT EXTRA
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

SELF = re.compile(r"^kubecoderun\[(?P<extras>[a-z, ]+)\]$")


def requirements(extras: dict[str, list[str]], name: str) -> Iterator[str]:
    """Requirements of the extra `name`; references to the project's own extras are followed."""
    for line in extras[name]:
        own = SELF.match(line)
        if own is None:
            yield line
        else:
            for other in own["extras"].split(","):
                yield from requirements(extras, other.strip())


if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]
    print("\n".join(dict.fromkeys(requirements(project["optional-dependencies"], sys.argv[2]))))

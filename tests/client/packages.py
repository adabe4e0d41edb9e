"""The npm packages of the client tests, at exact versions, and the folders they are installed into.

Every set of packages has a folder of its own in the user's cache, named after its content: versions of one
client lie side by side, a changed version is a new folder, and all checkouts share them.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 900
LEAST_NODE: Final = 20
"""From 19 on Node keeps connections unless told otherwise; LibreChat's images have 20."""

AXIOS: Final = ("1.8.2", "1.12.1", "1.13.1", "1.13.2", "1.16.1", "1.18.1")
"""What LibreChat calls files with. From 1.13.2 on every call leaves a listener on its connection."""
ALWAYS_TAINTS_FROM: Final = (1, 13, 2)


class ClientMissingError(Exception):
    """Node, npm or a package cannot be had; the text says which and why."""


@dataclass(frozen=True)
class PackageSet:
    """What is installed into one folder."""

    name: str
    dependencies: Mapping[str, str]
    """Version by package name; `npm:axios@1.8.2` under another name for several versions of one package."""

    def manifest(self) -> str:
        """The package.json."""
        document = {
            "name": "kubecoderun-client-tests",
            "private": True,
            "dependencies": dict(self.dependencies),
        }
        return json.dumps(document, indent=2, sort_keys=True) + "\n"

    def folder(self, cache: Path) -> Path:
        """Where it is installed; another content is another folder."""
        return cache / f"{self.name}-{hashlib.sha256(self.manifest().encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Generation:
    """One version of the client package, and what its era does differently."""

    agents: str
    axios: str
    """The axios of the LibreChat releases that carried it."""
    reference: str
    """Name of the key that holds a file's session in a reference: `session_id`, or `storage_session_id`."""
    key: str
    """How an API key gets into the tool: `parameter`, or `header` through `authHeaders`."""
    carrier: str
    """What brings the files of one call into the next of a turn: the `model`, which names the session, or
    `ToolNode`."""
    errors: str
    """What the model reads of an answer that is an error: its `status`, its `body` as well, or `words`."""

    @property
    def style(self) -> dict[str, str]:
        """What librechat.cjs is told of it."""
        return {"reference": self.reference, "key": self.key}

    @property
    def packages(self) -> PackageSet:
        """The package, and the node-fetch that it uses without naming it and LibreChat brings."""
        return PackageSet(f"agents-{self.agents}", {"@librechat/agents": self.agents, "node-fetch": "2.7.0"})


HTTP: Final = PackageSet(
    "http",
    {
        **{f"axios-{version}": f"npm:axios@{version}" for version in AXIOS},
        "form-data": "4.0.6",
        "node-fetch": "2.7.0",
    },
)
"""The libraries whose connections meet in one pool of one process."""

GENERATIONS: Final = (
    Generation("2.4.85", "1.8.2", "session_id", "parameter", "model", "status"),
    Generation("3.0.50", "1.12.1", "session_id", "parameter", "model", "status"),
    Generation("3.1.63", "1.12.1", "session_id", "parameter", "ToolNode", "status"),
    Generation("3.1.77", "1.13.2", "session_id", "parameter", "ToolNode", "status"),
    Generation("3.2.57", "1.16.1", "storage_session_id", "header", "ToolNode", "body"),
    Generation("3.9.2", "1.18.1", "storage_session_id", "header", "ToolNode", "words"),
)
"""One version of each generation of the client, from the oldest to the newest."""

HANGUP_GENERATIONS: Final = tuple(each for each in GENERATIONS if each.agents in ("3.0.50", "3.9.2"))
"""Those the hang-up is played with: what matters for it, axios and node-fetch, are packages of their own."""


def cache_folder() -> Path:
    """Where the folders are: beside the slow builds of the development cluster."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubecoderun" / "npm"


def installed(packages: PackageSet, cache: Path) -> Path:
    """The folder of a set, installed when it is not there yet.

    Raises ClientMissingError without npm or a recent Node, and when the installation fails.
    """
    check_node()
    folder = packages.folder(cache)
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{packages.name}-", dir=cache) as work:
        fill(packages, Path(work))
        try:
            Path(work, "packages").rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was faster
                raise
    return folder


def fill(packages: PackageSet, work: Path) -> None:
    """Install a set into `packages` below a folder, from where it is moved when it is complete."""
    place = work / "packages"
    place.mkdir()
    (place / "package.json").write_text(packages.manifest())
    # The client's install scripts send telemetry, and nothing here needs any package's.
    quiet = ["--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            ["npm", "install", *quiet], cwd=place, capture_output=True, text=True,
            timeout=INSTALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise ClientMissingError(f"npm install of {packages.name} took over {INSTALL_SECONDS} s") from late
    if done.returncode != 0:
        raise ClientMissingError(f"npm install of {packages.name} failed: {done.stderr.strip()[-500:]}")


def check_node() -> None:
    """Raises ClientMissingError unless npm and a Node that keeps connections are there."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ClientMissingError(f"{program} is not installed")
    told = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    if int(told.strip().lstrip("v").split(".")[0]) < LEAST_NODE:
        raise ClientMissingError(f"Node {LEAST_NODE} or newer is needed, this is {told.strip()}")

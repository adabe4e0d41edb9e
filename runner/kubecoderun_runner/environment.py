"""What the runner is told by the pod, and which environment programs see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kubecoderun_runner.confine import AF_INET, AF_INET6, AF_NETLINK, AF_UNIX

PREFIX = "KCR_"
HIDDEN = (PREFIX, "KUBERNETES_")
"""Variables that start so are not for programs: ours, and where the API server is."""
FAMILIES: Final[dict[str, tuple[int, ...] | None]] = {
    "None": (AF_UNIX,),
    "Restricted": (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK),
    "Unmanaged": None,
}
"""By a pool's `network`: the socket families of its programs; None for all there are."""
DEFAULT_PROCESSES = 512
DEFAULT_OPEN_FILES = 4096
DEFAULT_CONNECT_SECONDS = 120.0
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SettingsError(Exception):
    """A variable of the pod has no usable value."""


@dataclass(frozen=True)
class Bounds:
    """What holds for all programs of this container."""

    processes: int
    open_files: int


@dataclass(frozen=True)
class Settings:
    """The runner's environment variables, all with the prefix KCR_."""

    channel: str
    """CHANNEL: path of the sidecar's unix socket."""
    workspace: str
    """WORKSPACE: the folder programs run in."""
    network: str
    """NETWORK: which sockets programs can make; a key of FAMILIES."""
    languages: tuple[str, ...]
    """LANGUAGES: what the pod offers, comma-separated; the first that has a spare interpreter gets one."""
    preload: tuple[str, ...]
    """PRELOAD: Python modules or R packages a spare interpreter loads, comma-separated."""
    processes: int
    """PROCESSES: most processes and threads at a time. Kubernetes has no such limit per pod."""
    open_files: int
    """OPEN_FILES: most files a process can have open at a time."""
    connect_seconds: float
    """CONNECT_SECONDS: how long to wait for the sidecar's socket."""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings; SettingsError says which variable is wrong and what it may be."""
    network = environ.get("KCR_NETWORK", "None")
    if network not in FAMILIES:
        raise SettingsError(f"KCR_NETWORK is {network!r}: give one of {', '.join(FAMILIES)}")
    return Settings(
        channel=environ.get("KCR_CHANNEL", "/run/kubecoderun/runner.sock"),
        workspace=environ.get("KCR_WORKSPACE", "/mnt/data"),
        network=network,
        languages=_names(environ.get("KCR_LANGUAGES", "py")),
        preload=_names(environ.get("KCR_PRELOAD", "")),
        processes=int(_positive(environ, "KCR_PROCESSES", DEFAULT_PROCESSES)),
        open_files=int(_positive(environ, "KCR_OPEN_FILES", DEFAULT_OPEN_FILES)),
        connect_seconds=_positive(environ, "KCR_CONNECT_SECONDS", DEFAULT_CONNECT_SECONDS),
    )


def program_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What every program sees: the container's variables without ours, and a home it can write to."""
    seen = {name: value for name, value in environ.items() if not name.startswith(HIDDEN)}
    seen.setdefault("PATH", DEFAULT_PATH)
    seen["HOME"] = "/tmp"
    for name in ("HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_"):
        seen.pop(name, None)
    return seen


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    if name not in environ:
        return default
    try:
        value = float(environ[name])
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise SettingsError(f"{name} is {environ[name]!r}: give a number over 0")
    return value

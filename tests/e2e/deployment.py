"""Where the deployed system is: read from the environment, or from the file the development cluster
writes."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = "kubecoderun"
SYSTEM_NAMESPACE = "kubecoderun-system"
GROUP = "kubecoderun.io"
POOLS = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/executionpools"
SESSIONS = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/executionsessions"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SYSTEM_PODS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"


class NotDeployedError(Exception):
    """No running system is known; the text says which piece of information is missing."""


@dataclass(frozen=True)
class Deployment:
    """How to reach a deployed system."""

    kubeconfig: Path
    endpoint: str
    api_key: str
    tools: Path
    """Folder that may hold the cluster's own kubectl; it need not exist."""

    @classmethod
    def find(cls, environ: Mapping[str, str], env_file: Path) -> "Deployment":
        """Take each value from `environ`, else from `env_file`. Raises NotDeployedError when one is
        missing."""
        known = {**(parse_env(env_file.read_text()) if env_file.is_file() else {}), **environ}
        missing = [name for name in ("KUBECONFIG", "KCR_ENDPOINT", "KCR_API_KEY") if not known.get(name)]
        if missing:
            raise NotDeployedError(f"{', '.join(missing)} not set and not in build/env")
        root = env_file.parent.parent
        kubeconfig = root / known["KUBECONFIG"]
        if not kubeconfig.is_file():
            raise NotDeployedError(f"KUBECONFIG names a file that does not exist: {kubeconfig}")
        endpoint = known["KCR_ENDPOINT"].rstrip("/")
        return cls(kubeconfig, endpoint, known["KCR_API_KEY"], root / "build" / "bin")


def parse_env(text: str) -> dict[str, str]:
    """Read `NAME=value` lines as a shell would, with or without `export`; comments and other lines are
    ignored."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        for word in shlex.split(line, comments=True):
            name, sign, value = word.partition("=")
            if sign and name.isidentifier():
                values[name] = value
    return values

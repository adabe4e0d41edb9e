"""kubectl in a namespace of its own, for tests that need only the API server and the CRDs.

kubectl and not a client library, because what people see of the resources is part of what is tested.
"""

import json
import os
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT = 60


class Kubectl:
    """Runs kubectl against the cluster of KUBECONFIG, in one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        path = f"{REPOSITORY / 'build' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        self._program = shutil.which("kubectl", path=path) or "kubectl"

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """One call, whatever its exit code."""
        return subprocess.run(
            [self._program, "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def out(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of a call that must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refusal(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl says about a call that must be refused."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} was accepted: {done.stdout}"
        return done.stderr

    def create(self, thing: Json) -> Json:
        """The object as the API server stored it."""
        return dict(json.loads(self.out("create", "-o", "json", "-f", "-", stdin=json.dumps(thing))))

    def create_refused(self, thing: Json) -> str:
        """Why the object cannot be created."""
        return self.refusal("create", "-f", "-", stdin=json.dumps(thing))

    def get(self, kind: str, name: str) -> Json:
        """The object as it is now."""
        return dict(json.loads(self.out("get", kind, name, "-o", "json")))


def patch_arguments(
    kind: str, name: str, patch: Json | list[Json], subresource: str | None = None
) -> list[str]:
    """Arguments of a merge patch, or of a JSON patch if the patch is a list."""
    made = ["patch", kind, name, "--type", "json" if isinstance(patch, list) else "merge"]
    made += ["-p", json.dumps(patch)]
    return [*made, "--subresource", subresource] if subresource else made


def replace_arguments(subresource: str | None = None) -> list[str]:
    """Arguments of a PUT of the object on stdin."""
    made = ["replace", "-f", "-"]
    return [*made, "--subresource", subresource] if subresource else made


def nested(path: str, value: Any) -> Json:
    """A merge patch that sets one field."""
    for name in reversed(path.split("/")):
        value = {name: value}
    return dict(value)


def without(thing: Json, path: str) -> Json:
    """A copy of an object without one field."""
    made = deepcopy(thing)
    *parents, last = path.split("/")
    inner = made
    for name in parents:
        inner = inner[name]
    del inner[last]
    return made


def removals_refused(kubectl: Kubectl, name: str, path: str, subresource: str | None) -> list[str]:
    """Removes one field in all the ways there are; what the API server says to each."""
    json_patch = [{"op": "remove", "path": "/" + path}]
    put = json.dumps(without(kubectl.get("esess", name), path))
    return [
        kubectl.refusal(*patch_arguments("esess", name, json_patch, subresource)),
        kubectl.refusal(*patch_arguments("esess", name, nested(path, None), subresource)),
        kubectl.refusal(*replace_arguments(subresource), stdin=put),
    ]

"""cluster/secrets.sh with a kubectl that keeps secrets in a file: what it makes, and what it leaves alone."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kubecoderun_crds.relay import key_of

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "kubecoderun-signing",
    "kubecoderun-relay",
    "kubecoderun-store",
    "kubecoderun-idempotency",
    "kubecoderun-api-keys",
}
KUBECTL = """#!{python} -SE
import json, pathlib, re, sys
state = pathlib.Path({state!r})
secrets = json.loads(state.read_text())
words = sys.argv[1:]
if words[:2] == ["-n", "kubecoderun-system"]:
    words = words[2:]
if words[:2] == ["get", "secret"]:
    found = secrets.get(words[2])
    if found is None and "--ignore-not-found" not in words:
        sys.exit('Error from server (NotFound): secrets "%s" not found' % words[2])
    if found is not None:
        print(found["api-keys"] if "jsonpath={{.data.api-keys}}" in words else words[2], end="")
elif words == ["create", "-f", "-"]:
    head, _, data = sys.stdin.read().partition("\\ndata:\\n")
    assert re.search("^  namespace: kubecoderun-system$", head, re.M)
    (name,) = re.findall("^  name: (.+)$", head, re.M)
    assert name not in secrets, "AlreadyExists"
    secrets[name] = dict(re.findall("^  (.+): (.+)$", data, re.M))
elif words[:2] == ["patch", "secret"]:
    secrets[words[2]] |= json.load(sys.stdin)["data"]
else:
    sys.exit("not expected: %s" % words)
state.write_text(json.dumps(secrets))
"""


@dataclass
class Checkout:
    """A copy of the scripts, and what is in its cluster."""

    folder: Path

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        found = json.loads((self.folder / "secrets.json").read_text())
        return {
            name: {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
            for name, data in found.items()
        }

    def forget(self, name: str) -> None:
        state = self.folder / "secrets.json"
        left = json.loads(state.read_text())
        del left[name]
        state.write_text(json.dumps(left))

    def deploy(self) -> str:
        """What the script says."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(
            [self.folder / "cluster" / "secrets.sh"], capture_output=True, text=True, timeout=60, check=False,
            env=kept | {"KCR_ENGINE": "podman", "XDG_CACHE_HOME": str(self.folder / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    shutil.copytree(ROOT / "cluster", tmp_path / "cluster")
    (tmp_path / "build" / "bin").mkdir(parents=True)
    state = tmp_path / "secrets.json"
    state.write_text("{}")
    program = tmp_path / "build" / "bin" / "kubectl"
    program.write_text(KUBECTL.format(python=sys.executable, state=str(state)))
    program.chmod(0o755)
    return Checkout(tmp_path)


def test_an_empty_cluster_gets_all(checkout: Checkout) -> None:
    said = checkout.deploy()
    made = checkout.secrets
    assert set(made) == SECRETS
    assert key_of(made["kubecoderun-relay"]["relay.key"])
    assert len(base64.b64decode(made["kubecoderun-signing"]["private.key"], validate=True)) == 32
    values = [value for data in made.values() for value in data.values()]
    assert all(len(value) >= 16 for value in values)
    assert not any(value in said for value in values), "none is printed"
    assert (checkout.folder / "build" / "api-key").read_text() not in said


def test_a_second_deployment_changes_none(checkout: Checkout) -> None:
    checkout.deploy()
    before, key = checkout.secrets, (checkout.folder / "build" / "api-key").read_text()
    assert checkout.deploy() == ""
    assert (checkout.secrets, (checkout.folder / "build" / "api-key").read_text()) == (before, key)


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_an_older_installation_gets_what_it_lacks(checkout: Checkout, missing: str) -> None:
    checkout.deploy()
    before = checkout.secrets
    checkout.forget(missing)
    assert missing in checkout.deploy()
    after = checkout.secrets
    assert set(after) == SECRETS
    assert {name: data for name, data in after.items() if name != missing} == {
        name: data for name, data in before.items() if name != missing
    }


def test_a_checkout_whose_key_the_cluster_does_not_know_adds_it(checkout: Checkout) -> None:
    checkout.deploy()
    (before,) = checkout.secrets["kubecoderun-api-keys"].values()
    (checkout.folder / "build" / "api-key").unlink()
    checkout.deploy()
    (after,) = checkout.secrets["kubecoderun-api-keys"].values()
    assert after.startswith(before + "\n")
    assert after.count("role=admin") == 2


def test_the_manifests_ask_for_no_other_secret_and_the_page_names_all() -> None:
    asked: set[str] = set()
    for path in (ROOT / "manifests").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            text = json.dumps(document)
            asked.update(re.findall(r'"secretName": "([^"]+)"', text))
            asked.update(re.findall(r'"secretKeyRef": \{[^}]*"name": "([^"]+)"', text))
    assert asked <= SECRETS
    assert {"kubecoderun-relay", "kubecoderun-signing", "kubecoderun-api-keys"} <= asked
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    assert {name for name in SECRETS if f"k {name}" in page} == SECRETS

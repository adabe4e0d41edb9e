"""NetworkPolicies that are enforced, in a cluster whose own network ignores them.

The node that is built where no registry answers has a plain bridge. For as long as the tests of policies
last, kube-network-policies runs in it as a unit of systemd: the kernel asks it about the first packet of
every connection of a pod. `cluster/binaries.sh kube-network-policies` builds it; `make test` does so.

The rules that hand packets over are ours, not the program's own: those need `queue` of nftables, which not
every kernel has, and leave out what is sent to the node itself, such as the API server.
"""

from pathlib import Path
from typing import Final

from built import NotBuiltError, program
from e2e.kube import Kube
from e2e.node import Node, NoNodeError

PROGRAM: Final = "kube-network-policies"
UNIT: Final = "kubecoderun-network-policies"
FOLDER: Final = f"/usr/local/lib/{UNIT}"
ACCOUNT_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a program looks that takes itself for a pod."""
ACCOUNTS: Final = "/api/v1/namespaces/kube-system/serviceaccounts"
BINDINGS: Final = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
LIFE_SECONDS: Final = 1200
"""The unit ends by itself after this, if the tests were killed before they could end it."""

# A packet of the node itself passes: a policy must not come between the kubelet and its pods. While nobody
# listens to the queue, packets pass.
RULES: Final = """\
for chain in POSTROUTING INPUT; do
  iptables -w -t mangle "$1" "$chain" -s {pods} -m addrtype ! --src-type LOCAL \\
    -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100 --queue-bypass || exit 1
done
[ "$1" = -A ] || nft delete table inet kube-network-policies 2>/dev/null || true
"""
SERVICE: Final = """\
[Unit]
Description=NetworkPolicies, while they are tested
[Service]
Environment=KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT=6443
ExecStartPre=/bin/sh {folder}/rules -A
ExecStart={folder}/{program} --hostname-override {node} --nfqueue-id 100 --metrics-bind-address 127.0.0.1:9080
ExecStopPost=/bin/sh {folder}/rules -D
KillSignal=SIGKILL
SuccessExitStatus=SIGKILL
RuntimeMaxSec={seconds}
"""


class CannotEnforceError(Exception):
    """Nothing can be made to enforce policies here. The text says why."""


class Enforcer:
    """kube-network-policies in the node of a development cluster."""

    def __init__(self, kube: Kube, node: Node) -> None:
        self._kube, self._node = kube, node

    def start(self) -> None:
        """Start it. Policies hold a moment later. Raises CannotEnforceError."""
        try:
            self.stop()
            self._give_account()
            self._install(program(PROGRAM))
            self._node.inside("systemctl", "start", UNIT)
        except (NoNodeError, NotBuiltError) as refused:
            raise CannotEnforceError(str(refused)) from refused

    def stop(self) -> None:
        """End it, if it runs, and take away all that it was given. Raises NoNodeError."""
        self._node.inside("sh", "-c", f"! systemctl cat {UNIT} >/dev/null 2>&1 || systemctl stop {UNIT}")
        self._node.inside("rm", "-rf", FOLDER, ACCOUNT_FOLDER, f"/run/systemd/system/{UNIT}.service")
        self._node.inside("systemctl", "daemon-reload")
        self._kube.delete(f"{BINDINGS}/{UNIT}")
        self._kube.delete(f"{ACCOUNTS}/{UNIT}")

    def _give_account(self) -> None:
        """It may see pods, namespaces and policies of the whole cluster."""
        self._kube.request("POST", ACCOUNTS, {"metadata": {"name": UNIT}})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
        subject = {"kind": "ServiceAccount", "name": UNIT, "namespace": "kube-system"}
        binding = {"metadata": {"name": UNIT}, "roleRef": role, "subjects": [subject]}
        self._kube.request("POST", BINDINGS, binding)
        token = self._kube.request("POST", f"{ACCOUNTS}/{UNIT}/token", {"spec": {}})["status"]["token"]
        self._node.write(f"{ACCOUNT_FOLDER}/token", str(token))
        self._node.inside("cp", "/etc/kubernetes/pki/ca.crt", f"{ACCOUNT_FOLDER}/ca.crt")

    def _install(self, built: Path) -> None:
        host = self._kube.items("/api/v1/nodes")[0]
        values = {
            "folder": FOLDER,
            "node": host["metadata"]["name"],
            "pods": host["spec"]["podCIDR"],
            "program": PROGRAM,
            "seconds": LIFE_SECONDS,
        }
        self._node.write(f"{FOLDER}/rules", RULES.format(**values))
        self._node.copy(built, f"{FOLDER}/{PROGRAM}")
        self._node.write(f"/run/systemd/system/{UNIT}.service", SERVICE.format(**values))
        self._node.inside("systemctl", "daemon-reload")

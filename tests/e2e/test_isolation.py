"""What a program can reach: its own folder and nothing else. And what no log may hold."""

import base64
import hashlib
import json
import textwrap
from typing import Any

import pytest

from e2e.deployment import NAMESPACE, PODS, SYSTEM_NAMESPACE, SYSTEM_PODS, Deployment
from e2e.frontend import FrontEnd
from e2e.kube import Kube, KubeError, Object
from e2e.pools import ended, fresh_name, running, session_manifest

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("pool")]


def secrets_of(kube: Kube, deployment: Deployment) -> dict[str, str]:
    """Every secret value of the system by its name, as text; keys that are lists are taken line by line."""
    found = {"key of these tests": deployment.api_key}
    for name in ("kubecoderun-signing", "kubecoderun-store", "kubecoderun-api-keys"):
        secret = kube.request("GET", f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{name}")
        for field, encoded in secret["data"].items():
            for number, line in enumerate(base64.b64decode(encoded).decode().split()):
                found[f"{name}/{field}/{number}"] = line
    return found


def test_pods_meet_the_restricted_level(kube: Kube, full_pool: str) -> None:
    namespace = kube.request("GET", f"/api/v1/namespaces/{NAMESPACE}")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in kube.pods(full_pool):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["restartPolicy"] == "Never"
        assert {"emptyDir"} == {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
        for container in spec["containers"]:
            check_container(container, spec.get("securityContext", {}))


def check_container(container: Object, pod_context: Object) -> None:
    """One container of a pool's pod: no privilege, no writable root, no secret reference."""
    own: dict[str, Any] = {**pod_context, **container["securityContext"]}
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] > 0
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"]["drop"] == ["ALL"]
    assert own["seccompProfile"]["type"] == "RuntimeDefault"
    assert not [entry for entry in container.get("env", []) if "secretKeyRef" in entry.get("valueFrom", {})]
    assert "envFrom" not in container


def test_the_sidecar_does_not_mount_the_users_files(kube: Kube, full_pool: str) -> None:
    for pod in kube.pods(full_pool):
        containers = {container["name"]: container for container in pod["spec"]["containers"]}
        mounts = {name: {m["mountPath"] for m in c.get("volumeMounts", [])} for name, c in containers.items()}
        assert mounts["sidecar"] == {"/run/kubecoderun"}
        assert mounts["runtime"] == {"/run/kubecoderun", "/mnt/data", "/tmp"}
        users = {c.get("securityContext", {}).get("runAsUser") for c in containers.values()}
        assert len(users) == 2


SOCKETS = """
import errno, socket
for name in ('AF_INET', 'AF_INET6', 'AF_NETLINK', 'AF_PACKET', 'AF_VSOCK'):
    try:
        socket.socket(getattr(socket, name), socket.SOCK_RAW if name == 'AF_PACKET' else socket.SOCK_STREAM)
        print(name, 'open')
    except OSError as refused:
        print(name, errno.errorcode[refused.errno])
a, b = socket.socketpair()
a.send(b'x')
print('pair', b.recv(1))
"""


def test_no_network_socket_can_be_made(front_end: FrontEnd) -> None:
    lines = front_end.exec(SOCKETS)["stdout"].splitlines()
    assert lines == [
        "AF_INET EAFNOSUPPORT", "AF_INET6 EAFNOSUPPORT", "AF_NETLINK EAFNOSUPPORT", "AF_PACKET EAFNOSUPPORT",
        "AF_VSOCK EAFNOSUPPORT", "pair b'x'",
    ]  # fmt: skip


def test_children_have_no_network_either(front_end: FrontEnd) -> None:
    code = (
        "import subprocess, sys\nchild = [sys.executable, '-c', 'import socket; socket.socket()']\n"
        "print(subprocess.run(child, capture_output=True, text=True).stderr.splitlines()[-1])"
    )
    answer = front_end.exec(code)
    assert "Errno 97" in answer["stdout"]


SEARCH = """
import hashlib, json, os, re
wanted = set(json.loads({wanted!r}))
hits, looked = [], 0
def look(where, text):
    for word in set(re.findall(rb'[A-Za-z0-9+/=_.-]+', text)):
        for piece in {{word, word.strip(b'='), word.rsplit(b'=', 1)[-1]}}:
            if hashlib.sha256(piece).hexdigest() in wanted:
                hits.append(where)
for process in [p for p in os.listdir('/proc') if p.isdigit()]:
    for part in ('environ', 'cmdline'):
        try:
            look('/proc/' + process + '/' + part, open('/proc/' + process + '/' + part, 'rb').read())
        except OSError:
            pass
for folder in ('/etc', '/run', '/var/run', '/tmp', '/mnt', '/opt', '/home', '/root', '/dev/shm', '/srv'):
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            try:
                if os.path.isfile(path) and os.path.getsize(path) < 1 << 16:
                    look(path, open(path, 'rb').read())
                    looked += 1
            except OSError:
                pass
print(json.dumps({{'hits': hits, 'looked': looked, 'env': sorted(os.environ),
                   'token': os.path.exists('/var/run/secrets/kubernetes.io')}}))
"""


def test_no_credential_is_visible_to_a_program(
    front_end: FrontEnd, kube: Kube, deployment: Deployment
) -> None:
    """The program gets hashes of the system's secrets and looks for their values in every environment and
    small file."""
    values = [value for value in secrets_of(kube, deployment).values() if len(value) >= 8]
    assert len(values) >= 4
    planted = "planted-" + fresh_name("value")
    digests = [hashlib.sha256(value.encode()).hexdigest() for value in [*values, planted]]
    search = textwrap.dedent(SEARCH.format(wanted=json.dumps(digests)))
    answer = front_end.exec(f"open('/mnt/data/planted', 'w').write('x {planted}')\n{search}", timeout=60000)
    assert answer["stderr"] == ""
    found = json.loads(answer["stdout"])
    own = {"/mnt/data/planted", "/mnt/data/main.py"}
    assert set(found["hits"]) == own, "the search finds what is there, and only that"
    assert found["looked"] > 5
    assert found["token"] is False
    assert not [name for name in found["env"] if name.startswith(("KCR_", "AWS_", "KUBECODERUN_"))]


def logs_of(kube: Kube, path: str) -> dict[str, str]:
    """The log of every container of a namespace that has one, by pod and container."""
    logs: dict[str, str] = {}
    for pod in kube.items(path):
        for container in pod["spec"]["containers"]:
            name = pod["metadata"]["name"]
            try:
                logs[f"{name}/{container['name']}"] = kube.text(
                    f"{path}/{name}/log", container=container["name"]
                )
            except KubeError as refused:
                if refused.status not in (400, 404):  # not started yet, or deleted in between
                    raise
    return logs


def test_no_log_holds_a_secret(
    front_end: FrontEnd, kube: Kube, full_pool: str, deployment: Deployment
) -> None:
    """Code, output, keys and presigned addresses are in nobody's log; a run with stored code and result is
    under way."""
    marker = fresh_name("markerincode").replace("-", "")
    front_end.exec(f"print('{marker}')")
    front_end.call("POST", "/v1/exec", b'{"lang": "py", "code": "' + marker.encode())
    front_end.call("POST", "/v1/exec?api_key=" + marker, b"{}", front_end.headers(X_API_Key=marker))
    name = fresh_name("logs")
    code = f"import time\nprint('{marker}', flush=True)\ntime.sleep(8)  # {marker}"
    kube.apply(session_manifest(name, full_pool, code, args=[marker], stdin=marker))
    running(kube, name)
    logs = {**logs_of(kube, PODS), **logs_of(kube, SYSTEM_PODS)}
    ended(kube, name)
    logs |= {f"{where} later": text for where, text in logs_of(kube, SYSTEM_PODS).items()}
    kube.kubectl("delete", f"executionsession/{name}")
    forbidden = {**secrets_of(kube, deployment), "code": marker, "presigned address": "X-Amz-Signature"}
    found = [
        (where, what)
        for where, text in logs.items()
        for what, value in forbidden.items()
        if len(value) >= 8 and value in text
    ]
    assert found == []
    assert [where for where in logs if "/sidecar" in where]

"""The cluster as the tests see it: kubectl for what a person does, the REST API with plain dictionaries for
the rest."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config

from e2e.deployment import NAMESPACE, PODS, POOLS, SESSIONS, Deployment

Object = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


class KubeError(Exception):
    """The API server refused; `status` is the HTTP status, `message` its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Kube:
    """One cluster. Safe to use from several threads."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._client: Any = config.new_client_from_config(config_file=str(deployment.kubeconfig))
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager
        self._pool.connection_pool_kw["maxsize"] = 16
        self._kubectl = (
            shutil.which("kubectl", path=str(deployment.tools)) or shutil.which("kubectl") or "kubectl"
        )

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the execution namespace. With `check`, a failure is an AssertionError with
        kubectl's own text."""
        done = subprocess.run(
            [self._kubectl, "--namespace", NAMESPACE, *arguments],
            input=stdin, capture_output=True, text=True, timeout=180, check=False,
            env={**os.environ, "KUBECONFIG": str(self._deployment.kubeconfig)},
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done

    def forward(self, namespace: str, target: str, ports: str) -> subprocess.Popen[bytes]:
        """`kubectl port-forward`, until the process is ended."""
        where = ["--namespace", namespace, "port-forward", "--address", "127.0.0.1", target, ports]
        return subprocess.Popen(
            [self._kubectl, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self._deployment.kubeconfig)},
        )  # fmt: skip

    @contextmanager
    def open_kubectl(self, *arguments: str) -> Iterator[None]:
        """kubectl with an input that stays open until the end, and then closes."""
        process = subprocess.Popen(
            [self._kubectl, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "KUBECONFIG": str(self._deployment.kubeconfig)},
        )  # fmt: skip
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of the given objects."""
        self.kubectl(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        )

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: Any
    ) -> Object:
        """One API call. Raises KubeError for any status but 2xx."""
        response = self._send(method, path, body, kind, query, timeout=60.0)
        document: Object = json.loads(response.data or b"{}")
        if not 200 <= response.status < 300:
            raise KubeError(response.status, str(document.get("message", response.data[:200])))
        return document

    def text(self, path: str, **query: Any) -> str:
        """A plain text resource such as a log."""
        response = self._send("GET", path, None, "", query, timeout=60.0)
        if response.status != 200:
            raise KubeError(response.status, response.data[:300].decode(errors="replace"))
        return response.data.decode(errors="replace")

    def find(self, path: str, **query: Any) -> Object | None:
        """One object, or None when it does not exist."""
        try:
            return self.request("GET", path, **query)
        except KubeError as refused:
            if refused.status == 404:
                return None
            raise

    def delete(self, path: str, **query: Any) -> None:
        """Delete an object that may be gone already."""
        try:
            self.request("DELETE", path, **query)
        except KubeError as refused:
            if refused.status != 404:
                raise

    def items(self, path: str, **query: Any) -> list[Object]:
        """The items of a collection."""
        return list(self.request("GET", path, **query)["items"])

    def watch(self, path: str, version: str, seconds: int, **query: Any) -> Iterator[tuple[str, Object]]:
        """Events after `version` as (type, object) for about `seconds` seconds. Raises KubeError when the
        version is too old."""
        asked = {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": seconds,
            "allowWatchBookmarks": "true",
            **query,
        }
        response = self._send("GET", path, None, "", asked, timeout=seconds + 15.0, preload=False)
        try:
            if response.status != 200:
                raise KubeError(response.status, response.read(300).decode(errors="replace"))
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise KubeError(int(event["object"].get("code", 0)), str(event["object"].get("message")))
                yield event["type"], event["object"]
        finally:
            response.close()

    def session(self, name: str) -> Object:
        """One ExecutionSession."""
        return self.request("GET", f"{SESSIONS}/{name}")

    def pool(self, name: str) -> Object:
        """One ExecutionPool."""
        return self.request("GET", f"{POOLS}/{name}")

    def pods(self, pool: str | None = None) -> list[Object]:
        """Pods of one pool, or of the whole execution namespace."""
        return self.items(PODS, **({"labelSelector": f"kubecoderun.io/pool={pool}"} if pool else {}))

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        kind: str,
        query: Object,
        timeout: float,
        preload: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        headers: dict[str, Any] = {"Accept": "*/*"}
        if body is not None:
            headers["Content-Type"] = kind
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        url = self._client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        encoded = json.dumps(body).encode() if body is not None else None
        return self._pool.request(
            method, url, body=encoded, headers=headers, preload_content=preload, retries=False,
            timeout=urllib3.Timeout(connect=10.0, read=timeout),
        )  # fmt: skip


def condition(pool: Object, kind: str) -> Object:
    """One condition of a pool by its type; empty when it is not there. Asserts that it speaks of the current
    generation."""
    found = next((c for c in pool.get("status", {}).get("conditions", []) if c["type"] == kind), None)
    return dict(found) if found else {}


def is_ready(pod: Object) -> bool:
    """Whether the kubelet says the pod is ready."""
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", [])
    )


def is_going(pod: Object) -> bool:
    """Whether somebody has deleted the pod."""
    return "deletionTimestamp" in pod["metadata"]


def label(thing: Object, name: str) -> str | None:
    """A label under our prefix."""
    value = thing["metadata"].get("labels", {}).get(f"kubecoderun.io/{name}")
    return None if value is None else str(value)

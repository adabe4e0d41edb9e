"""A real API server: etcd and kube-apiserver as processes of this machine, on loopback, for as long as a test
run lasts. There is no controller, no scheduler and no kubelet: `node.py` plays the last one.
"""

import asyncio
import base64
import json
import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from kubecoderun_crds import names

Json = dict[str, Any]
REPOSITORY: Final = Path(__file__).resolve().parents[2]
BINARIES: Final = ("etcd", "kube-apiserver")
NAMESPACE: Final = "kubecoderun"
SYSTEM_NAMESPACE: Final = "kubecoderun-system"
START_SECONDS: Final = 60.0
MERGE_PATCH: Final = "application/merge-patch+json"
PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
POOLS: Final = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.POOL_PLURAL}"
SESSIONS: Final = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.SESSION_PLURAL}"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"


class MissingBinariesError(Exception):
    """The programs have not been built; the text says how they are."""


class RefusedError(Exception):
    """The API server's answer to a request it does not carry out."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


def binaries() -> Path:
    """The folder with the programs: KCR_BINARIES, or the one whose name stands in build/binaries."""
    note = REPOSITORY / "build" / "binaries"
    folder = os.environ.get("KCR_BINARIES") or (note.read_text().strip() if note.is_file() else "")
    if not folder or not all((Path(folder) / name).is_file() for name in BINARIES):
        raise MissingBinariesError("no etcd and kube-apiserver: make binaries builds them")
    return Path(folder)


class Api:
    """Requests to the API server as its administrator, past every proxy."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext) -> None:
        self.url, self.token, self.tls = url, token, tls
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls),
            headers={"Authorization": f"Bearer {token}"},
            read_bufsize=8 << 20,
        )

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str
    ) -> Json:
        """One request. Raises RefusedError for any status but 2xx."""
        async with self._session.request(
            method,
            self.url + path,
            data=None if body is None else json.dumps(body),
            params=query,
            headers={"Content-Type": kind},
            timeout=aiohttp.ClientTimeout(total=20),
        ) as response:
            document: Json = json.loads(await response.read() or b"{}")
        if response.status >= 300:
            raise RefusedError(response.status, str(document.get("message", document)))
        return document

    async def find(self, path: str) -> Json | None:
        """One object, or None if there is none."""
        try:
            return await self.request("GET", path)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    async def items(self, path: str, **query: str) -> list[Json]:
        """All objects of a collection."""
        return list((await self.request("GET", path, **query))["items"])

    async def delete(self, path: str, body: Json | None = None) -> None:
        """Delete an object that may be gone already, or be another one by now."""
        try:
            await self.request("DELETE", path, body)
        except RefusedError as refused:
            if refused.status not in (404, 409):
                raise

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        """Events after that version, for ever; a connection that ends is opened again."""
        while True:
            query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
            async with self._session.get(self.url + path, params=query, timeout=None) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RefusedError(event["object"]["code"], event["object"]["message"])
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


class ControlPlane:
    """The two processes, and how to reach them."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.url = ""
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE
        self._programs = programs
        self._processes: list[subprocess.Popen[bytes]] = []

    def api(self) -> Api:
        """A client; close it."""
        return Api(self.url, self.token, self.tls)

    async def start(self) -> None:
        """Start both, and wait until our kinds are served in both namespaces."""
        ports = [free_port() for _ in range(3)]
        etcd = f"http://127.0.0.1:{ports[0]}"
        self._spawn(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{ports[1]}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        key = self.folder / "service-accounts.pem"
        key.write_text(_private_key())
        self.url = f"https://127.0.0.1:{ports[2]}"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={ports[2]}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=AlwaysAllow",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--profiling=false",
        )
        api = self.api()
        try:
            await self._until_ready(api)
            await _install(api)
        finally:
            await api.close()

    def stop(self) -> None:
        """End both."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def kubeconfig(self, name: str, server: str = "") -> Path:
        """A file for clients: of the API server itself, or of a proxy in front of it at that address."""
        cluster: Json = {"server": server or self.url}
        if not server:
            cluster["insecure-skip-tls-verify"] = True
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {} if server else {"token": self.token}}],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(document))
        return path

    def _spawn(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen([str(self._programs / program), *arguments], stdout=log, stderr=log)
            )

    async def _until_ready(self, api: Api) -> None:
        give_up = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                await api.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
                await api.request("GET", "/api/v1/namespaces/default")
                return
            except (RefusedError, aiohttp.ClientError, TimeoutError) as error:
                ended = any(process.poll() is not None for process in self._processes)
                if ended or asyncio.get_running_loop().time() > give_up:
                    log = (self.folder / "kube-apiserver.log").read_text()[-2000:]
                    raise AssertionError(f"no API server ({error}): {log}") from error
            await asyncio.sleep(0.1)


async def _install(api: Api) -> None:
    """Our kinds and namespaces, from the files that an administrator applies."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for plural in (names.POOL_PLURAL, names.SESSION_PLURAL):
        await api.request(
            "POST", definitions, yaml.safe_load((REPOSITORY / "crds" / f"{plural}.yaml").read_text())
        )
    manifests = (REPOSITORY / "manifests" / "base" / "namespaces.yaml").read_text()
    for manifest in yaml.safe_load_all(manifests):
        await api.request("POST", "/api/v1/namespaces", manifest)
    for path in (POOLS, SESSIONS):
        await _until_served(api, path)


async def _until_served(api: Api, path: str) -> None:
    for _ in range(300):
        try:
            await api.request("GET", path)
            return
        except RefusedError as refused:
            # 404: not known yet. 429: its storage is being set up.
            if refused.status not in (404, 429):
                raise
        await asyncio.sleep(0.1)
    raise AssertionError(f"{path} is not served")


def free_port() -> int:
    """A port of the loopback interface that nobody uses right now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _private_key() -> str:
    """A new P-256 key in PEM: the API server wants one for service accounts, although nobody has one here."""
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    der = bytes.fromhex("3031020101") + b"\x04\x20" + secrets.token_bytes(32) + curve
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}-----END EC PRIVATE KEY-----\n"

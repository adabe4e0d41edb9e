"""Every setting does something; the ones with longer stories are tested beside the behaviour they change."""

import asyncio
import json
import logging
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from contract.fakes_api.apiserver import succeeded
from contract.fakes_api.store import object_store
from contract.fakes_api.system import running
from kubecoderun_api.__main__ import make_server
from kubecoderun_api.auth.keys import KeyRing
from kubecoderun_api.log import configure
from kubecoderun_api.settings import Settings
from kubecoderun_api.signing import Bucket, StoreAccess
from kubecoderun_crds import names

TESTED_ELSEWHERE = {
    "body_seconds": "test_api_requests: 408",
    "max_body_bytes": "test_api_requests: 413",
    "drain_seconds": "test_api_process",
    "shutdown_seconds": "test_api_process",
    "auth": "test_api_auth",
    "api_keys_file": "test_api_auth",
    "open_networks": "test_api_auth",
    "jwt_jwks_url": "test_api_tokens",
    "jwt_keys_dir": "test_api_tokens",
    "jwt_key_seconds": "test_api_tokens: rotation",
    "jwt_issuer": "test_api_tokens",
    "jwt_audience": "test_api_tokens",
    "jwt_algorithms": "test_api_tokens",
    "jwt_max_seconds": "test_api_tokens",
    "jwt_leeway_seconds": "test_api_tokens",
    "jwt_tenant_claim": "test_api_tokens",
    "jwt_tenant_required": "test_api_tokens",
    "jwt_admin_roles": "test_api_owners",
    "heartbeat": "test_api_hangup",
    "heartbeat_after_seconds": "test_api_hangup",
    "heartbeat_every_seconds": "test_api_hangup",
    "close_connections": "test_api_hangup",
    "on_disconnect": "test_api_hangup",
    "replica_uid": "test_api_exec, test_api_watch",
    "cluster_attempt_seconds": "test_api_watch: POST that timed out",
    "create_seconds": "test_api_watch",
    "watch_seconds": "test_api_watch",
    "recheck_seconds": "test_api_watch",
    "wait_slack_seconds": "test_api_exec: 504",
    "pod_refill_seconds": "test_api_exec: full queue",
    "retry_after_seconds": "test_api_exec: 429",
    "tool_waits_seconds": "test_api_programmatic",
    "watchers_at_once": "test_api_events: bounded",
    "relay_url": "test_api_events",
    "relay_key_file": "test_api_events: another key",
    "tenant_runs_per_minute": "test_api_limits",
    "tenant_burst": "test_api_limits",
    "tenant_runs_at_once": "test_api_limits",
    "limit_wait_seconds": "test_api_limits",
    "replicas": "test_api_limits",
    "idempotency_secret": "test_api_idempotency",
    "stateful": "test_api_workspaces: assertions that do not hold",
    "name_key": "test_api_workspaces: replicas with the same key",
    "max_upload_bytes": "test_api_uploads: 413",
    "upload_seconds": "test_api_uploads: 504",
    "uploads_at_once": "test_api_uploads: wait for their turn",
    "download_stall_seconds": "test_api_files: a slow client",
    "files_max_seconds": "test_api_files: longest life",
    "files_ttl_seconds": "test_api_uploads, test_api_files: lives on",
    "store_endpoint": "test_api_exec",
    "store_bucket": "test_api_exec: key",
    "install_id": "test_api_exec: key",
    "store_seconds": "test_api_exec: 503",
}
TESTED_HERE = {
    "host",
    "port",
    "keep_alive_seconds",
    "log_level",
    "namespace",
    "store_region",
    "store_access_key",
    "store_secret_key",
    "store_ca_file",
    "store_virtual_hosts",
}


def test_no_setting_is_forgotten() -> None:
    assert set(Settings.model_fields) == TESTED_HERE | set(TESTED_ELSEWHERE)


def test_where_it_listens_and_how_long_connections_live() -> None:
    made = make_server(Settings(auth="none", host="127.0.0.9", port=1234, keep_alive_seconds=33)).config
    assert not made.proxy_headers, "headers would say which network a caller is in"
    assert (made.host, made.port, made.timeout_keep_alive) == ("127.0.0.9", 1234, 33)
    assert (made.loop, made.http, made.access_log) == ("uvloop", "httptools", False)


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_the_level_of_log_lines(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root_level = root.handlers[:], root.level
    try:
        configure(level)
        logging.getLogger("kubecoderun_api").info("hello")
        written = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
        assert written == (["hello"] if level == "INFO" else [])
    finally:
        root.handlers[:] = before
        root.setLevel(root_level)
        logging.getLogger("kubecoderun_api").setLevel(logging.NOTSET)


async def test_the_namespace_is_the_only_one_that_is_used() -> None:
    async with running(ready=False, namespace="elsewhere") as system:
        await asyncio.sleep(0.2)
        assert system.services.unready()  # the fake has nothing there
    async with running(namespace="kubecoderun") as system:
        system.api.answer = lambda session: succeeded()
        await system.exec()
        assert system.api.sessions()[0]["metadata"]["namespace"] == "kubecoderun"


async def test_what_the_store_is_asked_with() -> None:
    async with running(store_region="eu-9", store_access_key="me", store_secret_key="first") as system:
        system.api.answer = lambda session: succeeded()
        await system.exec("#" * 20_000)
        query = system.store.queries[0]
        assert query["X-Amz-Credential"].startswith("me/")
        assert "/eu-9/s3/" in query["X-Amz-Credential"]


async def test_the_stores_secret_key_makes_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "session_name", lambda: "a" * 21)
    signatures = set()
    for secret in ("first", "second"):
        async with running(store_secret_key=secret) as system:
            system.api.answer = lambda session: succeeded()
            await system.exec("#" * 20_000)
            signatures.add(system.store.queries[0]["X-Amz-Signature"])
    assert len(signatures) == 2


def _certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 in folder/ca.pem, and a server's side of TLS with it."""
    key, certificate = folder / "key.pem", folder / "ca.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=store"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_an_https_store_is_checked_against_the_ca_file(tmp_path: Path) -> None:
    async with object_store(_certificate(tmp_path)) as store:
        for ca_file, status in ((tmp_path / "ca.pem", 200), (None, 503)):
            async with running(store_endpoint=store.url, store_ca_file=ca_file, store_seconds=0.5) as system:
                system.api.answer = lambda session: succeeded()
                assert (await system.exec("#" * 20_000)).status == status


def test_where_the_buckets_name_stands() -> None:
    minute = timedelta(minutes=1)
    for virtual, of_an_object, of_the_bucket in (
        (False, "http://store:1/things/key?", "http://store:1/things?"),
        (True, "http://things.store:1/key?", "http://things.store:1/?"),
    ):
        bucket = Bucket(StoreAccess("http://store:1", "things", "us-east-1", "key", "secret", virtual))
        assert str(bucket.sign("GET", "key", minute)).startswith(of_an_object)
        listing = str(bucket.sign_bucket("GET", minute, {"prefix": "a/b"}))
        assert listing.startswith(f"{of_the_bucket}prefix=a%2Fb&")


def test_a_missing_keys_file_is_reported_at_the_start(tmp_path: Path) -> None:
    assert not KeyRing(tmp_path / "missing").knows_any()

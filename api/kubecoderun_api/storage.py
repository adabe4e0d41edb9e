"""Code and results that are too big for a resource: in the object store, through presigned URLs.

The MinIO SDK only signs (no request leaves it); bytes flow through aiohttp. Signed URLs are never logged:
failures are told by status or type alone.
"""

import asyncio
import hashlib
import io
import json
import ssl
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from minio import Minio
from yarl import URL

from kubecoderun_api import log
from kubecoderun_api.metrics import Metrics
from kubecoderun_api.watching import backoff
from kubecoderun_crds import names

Json = dict[str, Any]
_MAX_RESULT_BYTES: Final = 16 * 1024 * 1024
"""The sidecar keeps at most 1 MiB of each stream; the rest is room for JSON escapes."""
_THREAD_BYTES: Final = 1024 * 1024


class StoreError(Exception):
    """The object store could not do it within the time limit, or there is none."""


@dataclass(frozen=True)
class StoreAccess:
    """Where the store is and how to sign for it."""

    url: str
    bucket: str
    region: str
    access_key: str
    secret_key: str
    virtual_hosts: bool = False
    ca_file: Path | None = None


class Store:
    """Objects of sessions of one namespace."""

    def __init__(
        self, access: StoreAccess | None, metrics: Metrics, *, install_id: str, namespace: str, seconds: float
    ) -> None:
        self._ca_file = access.ca_file if access else None
        self._metrics = metrics
        self._install_id = install_id
        self._namespace = namespace
        self._seconds = seconds
        self._bucket = Bucket(access) if access else None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool. Needs a running event loop."""
        tls = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
        connector = aiohttp.TCPConnector(ssl=tls)
        self._session = aiohttp.ClientSession(connector=connector)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def put_code(self, session: str, code: bytes) -> Json:
        """Store a program; returns the session's codeRef. Raises StoreError."""
        digest = await _sha256(code)
        await self._transfer("PUT", session, names.CODE_OBJECT, code)
        return {"bytes": len(code), "sha256": digest}

    async def get_result(self, session: str) -> Json:
        """The full result the sidecar has kept. Raises StoreError."""
        raw = await self._transfer("GET", session, names.RESULT_OBJECT, None)
        try:
            result = json.loads(raw)
        except ValueError:
            result = None
        if not isinstance(result, dict):
            raise StoreError("the stored result is not a JSON object")
        return result

    async def _transfer(self, method: str, session: str, object_name: str, body: bytes | None) -> bytes:
        """One object, tried again until the time limit as long as that may help."""
        if self._bucket is None or self._session is None:
            raise StoreError("no object store is configured")
        key = names.object_key(self._install_id, self._namespace, session, object_name)
        deadline = time.monotonic() + self._seconds
        failures = 0
        while True:
            left = deadline - time.monotonic()
            try:
                url = self._bucket.sign(method, key, timedelta(seconds=max(60.0, left + 30.0)))
                return await _attempt(self._session, method, url, body, left)
            except _Retry as error:
                failures += 1
                cause, final = str(error), time.monotonic() + backoff(failures) >= deadline
            except StoreError as error:
                cause, final = str(error), True
            log.event(
                "store_failed",
                level=log.WARNING,
                session=session,
                method=method,
                object=object_name,
                cause=cause,
            )
            if final:
                self._metrics.store_failures.labels("to" if method == "PUT" else "from").inc()
                raise StoreError(cause)
            await asyncio.sleep(backoff(failures))


async def _attempt(
    http: aiohttp.ClientSession, method: str, url: URL, body: bytes | None, seconds: float
) -> bytes:
    limit = aiohttp.ClientTimeout(total=max(seconds, 0.001))
    try:
        data = None if body is None else io.BytesIO(body)  # a file is sent piece by piece
        async with http.request(method, url, data=data, timeout=limit, allow_redirects=False) as response:
            if response.status >= 500 or response.status == 429:
                raise _Retry(f"status {response.status}")
            if response.status >= 300:
                raise StoreError(f"status {response.status}")
            return await _read_bounded(response)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _Retry(type(error).__name__) from None


class _Retry(Exception):  # noqa: N818
    """This attempt failed, the next may not. Holds a status or a type, no URL."""


class Bucket:
    """Signs requests for one bucket; given the region, the SDK does so without asking the store."""

    def __init__(self, access: StoreAccess) -> None:
        parts = urlsplit(access.url)
        self._name = access.bucket
        self._signer = Minio(
            endpoint=parts.netloc,
            access_key=access.access_key,
            secret_key=access.secret_key,
            secure=parts.scheme == "https",
            region=access.region,
        )
        if access.virtual_hosts:
            self._signer.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    def sign(self, method: str, key: str, lifetime: timedelta) -> URL:
        """A URL for one PUT or GET."""
        return URL(self._signer.get_presigned_url(method, self._name, key, expires=lifetime), encoded=True)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, total = [], 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > _MAX_RESULT_BYTES:
            raise StoreError("the object is bigger than any result")
        parts.append(chunk)
    return b"".join(parts)


async def _sha256(data: bytes) -> str:
    """Hash in a thread if it would hold up the others (hashing releases the interpreter lock)."""
    if len(data) <= _THREAD_BYTES:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()

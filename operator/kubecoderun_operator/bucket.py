"""The operator's own requests to the store: which objects there are, and remove them. It moves no bytes of
users."""

import asyncio
import random
import ssl
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

from kubecoderun_operator import metrics
from kubecoderun_operator.storage import Storage

PAGE_SIZE: Final = 1000
"""Most keys of one list, and of one removal."""
_ATTEMPTS: Final = 3
_FIRST_PAUSE: Final = 0.2
_MOST_BYTES: Final = 4 << 20
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.NO_CONTENT})
_SPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


class StoreError(Exception):
    """The store did not do it. Holds a status or the type of an error, never a key or a URL."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: its key, and when it was last written by the store's clock, in seconds since 1970."""

    key: str
    modified: float


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. Where a delimiter was given, keys that go on after it are told as prefixes."""

    objects: tuple[Stored, ...]
    prefixes: tuple[str, ...]
    token: str
    """Ask for the next page with it; empty on the last one."""
    now: float
    """The store's clock when it answered."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload in parts that was neither completed nor given up; when it was begun by the store's clock."""

    key: str
    id: str = field(repr=False)
    begun: float


@dataclass(frozen=True, slots=True)
class Unfinisheds:
    """A part of a list of them."""

    uploads: tuple[Unfinished, ...]
    marker: tuple[str, str] | None
    """Ask for the next page with it; None on the last one."""
    now: float
    """The store's clock when it answered."""


class Bucket:
    """One bucket, over connections that are kept alive."""

    def __init__(self, storage: Storage, *, seconds: float, ca_file: Path | None = None) -> None:
        """seconds: for one attempt of a request."""
        tls = ssl.create_default_context(cafile=ca_file) if ca_file is not None else True
        self._storage = storage
        self._timeout = aiohttp.ClientTimeout(total=seconds)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))

    async def close(self) -> None:
        await self._session.close()

    async def page(self, prefix: str, *, delimiter: str = "", token: str = "", most: int = PAGE_SIZE) -> Page:
        """Objects whose keys begin with prefix, in the order of their keys. Raises StoreError."""
        query = {"list-type": "2", "prefix": prefix, "max-keys": str(most)}
        if delimiter:
            query["delimiter"] = delimiter
        if token:
            query["continuation-token"] = token
        root, now = await self._send("list", "GET", query)
        truncated = _text(root, "IsTruncated") == "true"
        following = _text(root, "NextContinuationToken") if truncated else ""
        if truncated and not following:
            raise StoreError("list: there is more, but no token to ask for it")
        return Page(
            tuple(Stored(_text(found, "Key"), _moment(found)) for found in _all(root, "Contents")),
            tuple(_text(found, "Prefix") for found in _all(root, "CommonPrefixes")),
            following,
            now,
        )

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove up to PAGE_SIZE objects; those that are not there are no error. Raises StoreError, also if
        only some of them stay."""
        objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        body = f'<Delete xmlns="{_SPACE}">{objects}<Quiet>true</Quiet></Delete>'.encode()
        root, _ = await self._send("remove", "POST", {"delete": ""}, body)
        errors = _all(root, "Error")
        if errors or root.tag.rpartition("}")[2] == "Error":
            code = _text(errors[0] if errors else root, "Code")
            raise StoreError(f"remove: {len(errors) or len(keys)} objects stay: {code[:64]}")

    async def unfinished(self, prefix: str, marker: tuple[str, str] | None = None) -> Unfinisheds:
        """Uploads in parts of objects whose keys begin with prefix. Raises StoreError."""
        query = {"uploads": "", "prefix": prefix, "max-uploads": str(PAGE_SIZE)}
        if marker is not None:
            query |= {"key-marker": marker[0], "upload-id-marker": marker[1]}
        root, now = await self._send("uploads", "GET", query)
        more = _text(root, "IsTruncated") == "true"
        following = (_text(root, "NextKeyMarker"), _text(root, "NextUploadIdMarker"))
        if more and not following[0]:
            raise StoreError("uploads: there are more, but no marker to ask for them")
        return Unfinisheds(
            tuple(
                Unfinished(_text(found, "Key"), _text(found, "UploadId"), _moment(found, "Initiated"))
                for found in _all(root, "Upload")
            ),
            following if more else None,
            now,
        )

    async def abort(self, upload: Unfinished) -> None:
        """Remove the parts of an upload; fine if it is not there any more. Raises StoreError."""
        await self._send("abort", "DELETE", {"uploadId": upload.id}, key=upload.key)

    async def _send(
        self, call: str, method: str, query: dict[str, str], body: bytes = b"", *, key: str = ""
    ) -> tuple[ElementTree.Element, float]:
        """The answer's XML, and the store's clock."""
        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            url, headers = self._storage.request(method, query, body, key=key)
            try:
                async with self._session.request(
                    method,
                    URL(url, encoded=True),
                    data=body or None,
                    headers=headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                ) as response:
                    raw = await _bounded(response)
                    status, date = response.status, response.headers.get("Date", "")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                status, cause = 0, type(error).__name__
            else:
                cause = f"status {status}"
            metrics.STORE_REQUESTS.labels(call, str(status)).inc()
            if status in _DONE or (method == "DELETE" and status == HTTPStatus.NOT_FOUND):
                return _parsed(call, raw), _clock(date)
            if attempt == _ATTEMPTS or (status and status not in _RETRIED):
                break
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause *= 2
        raise StoreError(f"{call}: {cause}")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > _MOST_BYTES:
            raise StoreError("the answer is too long")
        parts.append(chunk)
    return b"".join(parts)


def _parsed(call: str, raw: bytes) -> ElementTree.Element:
    if not raw:
        return ElementTree.Element("Empty")
    try:
        return ElementTree.fromstring(raw)
    except ElementTree.ParseError:
        raise StoreError(f"{call}: the answer is not XML") from None


def _all(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Children by name. Stores differ in the namespace they give them."""
    return [child for child in root if child.tag.rpartition("}")[2] == name]


def _text(root: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in _all(root, name)), "")


def _moment(found: ElementTree.Element, name: str = "LastModified") -> float:
    try:
        moment = datetime.fromisoformat(_text(found, name))
    except ValueError:
        raise StoreError(f"list: {name} is not a time") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _clock(date: str) -> float:
    """The store's clock from the header Date; our own if it has none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return time.time()

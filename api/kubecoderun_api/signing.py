"""Presigned URLs for one bucket. The MinIO SDK only signs: no request leaves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.signer import presign_v4, sign_v4_s3
from minio.time import to_amz_date
from yarl import URL

_ANY_OBJECT: Final = "x"
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"


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


@dataclass(frozen=True)
class Signed:
    """A request that is signed by its headers."""

    url: URL
    headers: Mapping[str, str] = field(repr=False)


class Bucket:
    """Signs requests for one bucket; given the region, the SDK does so without asking the store.

    A signed URL is a secret. The query is part of what is signed.
    """

    def __init__(self, access: StoreAccess) -> None:
        parts = urlsplit(access.url)
        self._name = access.bucket
        self._region = access.region
        self._credentials = Credentials(access.access_key, access.secret_key)
        self._signer = Minio(
            endpoint=parts.netloc,
            access_key=access.access_key,
            secret_key=access.secret_key,
            secure=parts.scheme == "https",
            region=access.region,
        )
        if access.virtual_hosts:
            self._signer.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]

    def sign(self, method: str, key: str, lifetime: timedelta, query: Mapping[str, str] | None = None) -> URL:
        """A URL for one request about the object with that key."""
        signed = self._signer.get_presigned_url(
            method, self._name, key, expires=lifetime, extra_query_params=dict(query or {})
        )
        return URL(signed, encoded=True)

    def sign_with(
        self, method: str, key: str, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Signed:
        """The same with headers that are signed too, which the store would refuse otherwise; valid for some
        minutes."""
        object_url = urlsplit(self._signer.get_presigned_url(method, self._name, key))
        wanted = "&".join(
            f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted((query or {}).items())
        )
        url = object_url._replace(query=wanted)
        now = datetime.now(UTC)
        signed: dict[str, str | list[str] | tuple[str]] = {
            "Host": url.netloc,
            "x-amz-content-sha256": _UNSIGNED,
            "x-amz-date": to_amz_date(now),
            **headers,
        }
        made = sign_v4_s3(
            method=method,
            url=url,
            region=self._region,
            headers=signed,
            credentials=self._credentials,
            content_sha256=_UNSIGNED,
            date=now,
        )
        return Signed(URL(urlunsplit(url), encoded=True), {name: str(value) for name, value in made.items()})

    def sign_bucket(self, method: str, lifetime: timedelta, query: Mapping[str, str]) -> URL:
        """A URL for one request about the bucket itself, such as a list."""
        # The SDK signs objects only; the bucket's address is an object's without its end, in either style.
        address = urlsplit(self._signer.get_presigned_url(method, self._name, _ANY_OBJECT))
        wanted = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
        signed = presign_v4(
            method=method,
            url=address._replace(path=address.path.removesuffix(f"/{_ANY_OBJECT}") or "/", query=wanted),
            region=self._region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=int(lifetime.total_seconds()),
        )
        return URL(urlunsplit(signed), encoded=True)

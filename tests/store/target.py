"""Which store is tested, and requests signed for it.

The MinIO SDK signs, as it does in the operator and the front end; no request leaves it.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from minio import Minio
from minio.credentials import Credentials
from minio.datatypes import PostPolicy
from minio.helpers import queryencode
from minio.signer import presign_v4, sign_v4_s3
from minio.time import to_amz_date
from yarl import URL

REQUIRED = ("KCR_STORE_ENDPOINT", "KCR_STORE_ACCESS_KEY", "KCR_STORE_SECRET_KEY")
LIFE_SECONDS = 300.0
_YES, _NO = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


@dataclass(frozen=True)
class Target:
    """Where a store is and who signs; the fields are KubeCodeRun's own KCR_STORE_* settings."""

    name: str
    """How reports call it."""
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str = "kubecoderun"
    region: str = "us-east-1"
    virtual_hosts: bool = False
    ca_file: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Target | None":
        """The store that KCR_STORE_* describe; None if they name none. Raises ValueError, naming it."""
        if not environ.get("KCR_STORE_ENDPOINT"):
            return None
        missing = [name for name in REQUIRED if not environ.get(name)]
        if missing:
            raise ValueError(f"KCR_STORE_ENDPOINT needs {' and '.join(missing)}")
        endpoint = environ["KCR_STORE_ENDPOINT"].rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.username:
            raise ValueError("KCR_STORE_ENDPOINT must be http(s)://host[:port]")
        ca_file = environ.get("KCR_STORE_CA_FILE")
        if ca_file and not Path(ca_file).is_file():
            raise ValueError(f"KCR_STORE_CA_FILE names a file that does not exist: {ca_file}")
        return cls(
            name=parts.netloc,
            endpoint=endpoint,
            access_key=environ["KCR_STORE_ACCESS_KEY"],
            secret_key=environ["KCR_STORE_SECRET_KEY"],
            bucket=environ.get("KCR_STORE_BUCKET") or "kubecoderun",
            region=environ.get("KCR_STORE_REGION") or "us-east-1",
            virtual_hosts=_flag("KCR_STORE_VIRTUAL_HOSTS", environ),
            ca_file=Path(ca_file) if ca_file else None,
        )


def _flag(name: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(name, "").lower()
    if value not in _YES | _NO:
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return value in _YES


@dataclass(frozen=True)
class Form:
    """A POST policy: where to send the form, and the fields it must have."""

    url: URL
    fields: dict[str, str]


class Signer:
    """Signs for one bucket. Remembers the keys it signed uploads for, so that they can be removed."""

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.endpoint)
        self._target = target
        self._credentials = Credentials(target.access_key, target.secret_key)
        self._client = Minio(
            parts.netloc,
            access_key=target.access_key,
            secret_key=target.secret_key,
            secure=parts.scheme == "https",
            region=target.region,
        )
        if target.virtual_hosts:
            self._client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        else:
            self._client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        # the SDK signs objects only, and knows other hosts for Amazon's endpoints
        of_object = urlsplit(self._client.get_presigned_url("GET", target.bucket, "x"))
        self._bucket = of_object._replace(path=of_object.path.removesuffix("/x") or "/", query="")
        self.uploads: set[str] = set()

    def url(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        *,
        seconds: float = LIFE_SECONDS,
        ago: float = 0.0,
    ) -> URL:
        """A presigned URL for one object, signed so many seconds ago."""
        if method in ("PUT", "POST"):
            self.uploads.add(key)
        signed = self._client.get_presigned_url(
            method,
            self._target.bucket,
            key,
            expires=timedelta(seconds=seconds),
            request_date=datetime.now(UTC) - timedelta(seconds=ago),
            extra_query_params=dict(query or {}),
        )
        return URL(signed, encoded=True)

    def bucket_url(self, method: str, query: Mapping[str, str]) -> URL:
        """A presigned URL for the bucket itself: LIST."""
        signed = presign_v4(
            method=method,
            url=self._of_bucket(query),
            region=self._target.region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=int(LIFE_SECONDS),
        )
        return URL(signed.geturl(), encoded=True)

    def bucket_request(
        self, method: str, query: Mapping[str, str], body: bytes = b""
    ) -> tuple[URL, dict[str, str]]:
        """A request for the bucket itself with the signature in its headers, as an S3 SDK sends it."""
        return self._in_headers(method, self._of_bucket(query), body, {})

    def object_request(
        self, method: str, key: str, body: bytes, headers: Mapping[str, str], query: str = ""
    ) -> tuple[URL, dict[str, str]]:
        """The same for an object, with headers (metadata) that the signature covers."""
        self.uploads.add(key)
        plain = urlsplit(str(self.url(method, key)))
        return self._in_headers(method, plain._replace(query=query), body, headers)

    def unsigned(self, key: str) -> URL:
        """An object's address without any signature."""
        return self.url("GET", key).with_query(None)

    def form(
        self,
        prefix: str,
        max_bytes: int,
        *,
        seconds: float = LIFE_SECONDS,
        keys: tuple[str, ...] = (),
    ) -> Form:
        """A POST policy as the operator signs it for the outputs of one session: any key under a prefix,
        a greatest size, and the path as metadata. `keys`: those it will be tried with, for the removal."""
        self.uploads.update(keys)
        policy = PostPolicy(self._target.bucket, datetime.now(UTC) + timedelta(seconds=seconds))
        policy.add_starts_with_condition("key", prefix)
        policy.add_starts_with_condition("x-amz-meta-path", "")
        policy.add_content_length_range_condition(0, max_bytes)
        fields = self._client.presigned_post_policy(policy)
        return Form(URL(self._bucket.geturl(), encoded=True), dict(fields))

    def _in_headers(
        self, method: str, url: SplitResult, body: bytes, headers: Mapping[str, str]
    ) -> tuple[URL, dict[str, str]]:
        digest = hashlib.sha256(body).hexdigest()
        now = datetime.now(UTC)
        own = {"Host": url.netloc, "x-amz-content-sha256": digest, "x-amz-date": to_amz_date(now)}
        if body:
            own["Content-MD5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self._target.region,
            headers={**headers, **own},
            credentials=self._credentials,
            content_sha256=digest,
            date=now,
        )
        return URL(url.geturl(), encoded=True), {name: str(value) for name, value in signed.items()}

    def _of_bucket(self, query: Mapping[str, str]) -> SplitResult:
        pairs = sorted(f"{queryencode(name)}={queryencode(value)}" for name, value in query.items())
        return self._bucket._replace(query="&".join(pairs))

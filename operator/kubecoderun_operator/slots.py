"""Presigned PUTs for many objects at little more than the price of one. Pure.

A run is given a URL for every file that it may leave, and most runs leave none. So the SDK signs the first,
and the others, which differ in their path alone, are signed like it: AWS Signature Version 4 in the query,
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. A test compares each with the
SDK's own.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import SplitResult, parse_qs

from minio.credentials.credentials import Credentials
from minio.signer import presign_v4

_SIGNATURE = "&X-Amz-Signature="


def presigned(
    bucket: SplitResult, keys: Sequence[str], region: str, credentials: Credentials, expires: int
) -> Iterator[str]:
    """URLs for one PUT of each key, valid for `expires` seconds. Keys need no escapes in a URL."""
    if not keys:
        return
    folder = bucket.path.rstrip("/")
    first: SplitResult = presign_v4(
        method="PUT",
        url=bucket._replace(path=f"{folder}/{keys[0]}"),
        region=region,
        credentials=credentials,
        date=datetime.now(UTC),
        expires=expires,
    )
    yield first.geturl()
    query = first.query.partition(_SIGNATURE)[0]
    fields = parse_qs(query)
    moment, scope = fields["X-Amz-Date"][0], fields["X-Amz-Credential"][0].partition("/")[2]
    key = _signing_key(credentials.secret_key, scope)
    for name in keys[1:]:
        path = f"{folder}/{name}"
        request = f"PUT\n{path}\n{query}\nhost:{bucket.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = hmac.digest(
            key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256"
        ).hex()
        yield f"{bucket.scheme}://{bucket.netloc}{path}?{query}{_SIGNATURE}{signature}"


def _signing_key(secret_key: str, scope: str) -> bytes:
    """scope: day, region, service and the word that ends it, with slashes in between."""
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key

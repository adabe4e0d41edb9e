"""The few S3 calls that KubeCodeRun makes, each checked for the answer it must get."""

import asyncio
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from store.exchange import Answer, Exchange, UnfitError, expect
from store.target import Signer

STORED = (200, 201, 204)
_MAX_PAGES = 100


@dataclass
class Listing:
    """What LIST said, over all pages."""

    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes by key, in the order of the answer."""
    prefixes: list[str] = field(default_factory=list)
    pages: int = 0


class Bucket:
    """One bucket through presigned URLs."""

    def __init__(self, exchange: Exchange, signer: Signer) -> None:
        self.exchange = exchange
        self.signer = signer

    async def put(self, key: str, data: bytes) -> Answer:
        """Store an object."""
        answer = await self.exchange.send("PUT", self.signer.url("PUT", key), data)
        return expect(answer, *STORED, doing=f"PUT of {len(data)} bytes")

    async def get(self, key: str, byte_range: str = "") -> Answer:
        """An object, or the part of it that a Range header names; any answer."""
        headers = {"Range": byte_range} if byte_range else None
        return await self.exchange.send("GET", self.signer.url("GET", key), headers=headers)

    async def read(self, key: str) -> bytes:
        """A whole object that must be there."""
        return expect(await self.get(key), 200, doing="GET").body

    async def head(self, key: str) -> Answer:
        """What is known about an object; any answer."""
        return await self.exchange.send("HEAD", self.signer.url("HEAD", key))

    async def delete(self, key: str) -> Answer:
        """Remove an object, whether or not it is there."""
        answer = await self.exchange.send("DELETE", self.signer.url("DELETE", key))
        # S3 says 204 for both; some stores say 404 for the second
        return expect(answer, 200, 204, 404, doing="DELETE")

    async def listing(
        self, prefix: str, *, delimiter: str = "", page: int = 1000, in_headers: bool = False
    ) -> Listing:
        """All keys with a prefix; with a delimiter, those up to it are told as prefixes.

        `in_headers`: signed as an S3 SDK does, instead of in the URL. Raises UnfitError.
        """
        listing, token = Listing(), ""
        while listing.pages < _MAX_PAGES:
            query = {"list-type": "2", "prefix": prefix, "max-keys": str(page)}
            if delimiter:
                query["delimiter"] = delimiter
            if token:
                query["continuation-token"] = token
            if in_headers:
                url, headers = self.signer.bucket_request("GET", query)
            else:
                url, headers = self.signer.bucket_url("GET", query), {}
            answer = expect(await self.exchange.send("GET", url, headers=headers), 200, doing="LIST")
            root = answer.xml()
            listing.pages += 1
            for found in root.iter("Contents"):
                listing.sizes[found.findtext("Key") or ""] = int(found.findtext("Size") or -1)
            listing.prefixes += [found.findtext("Prefix") or "" for found in root.iter("CommonPrefixes")]
            if root.findtext("IsTruncated") != "true":
                return listing
            token = root.findtext("NextContinuationToken") or ""
            if not token:
                raise UnfitError("LIST says that there is more, but gives no NextContinuationToken")
        raise UnfitError(f"LIST does not come to an end within {_MAX_PAGES} pages")

    async def delete_all(self, keys: list[str]) -> ElementTree.Element:
        """Remove many objects with one request, signed in its headers as an S3 SDK does."""
        objects = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{objects}</Delete>'.encode()
        url, headers = self.signer.bucket_request("POST", {"delete": ""}, body)
        answer = await self.exchange.send("POST", url, body, headers)
        return expect(answer, 200, doing="removal of many objects at once").xml()

    async def begin(self, key: str) -> str:
        """Begin an upload in parts; returns its id."""
        url = self.signer.url("POST", key, {"uploads": ""})
        root = expect(await self.exchange.send("POST", url), 200, doing="start of an upload in parts").xml()
        upload = root.findtext("UploadId")
        if not upload:
            raise UnfitError("the start of an upload in parts is answered without UploadId")
        return upload

    async def put_part(
        self,
        key: str,
        upload: str,
        number: int,
        data: bytes | AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Store one part, counted from 1; returns its ETag."""
        url = self.signer.url("PUT", key, {"partNumber": str(number), "uploadId": upload})
        answer = expect(await self.exchange.send("PUT", url, data, headers), 200, doing=f"part {number}")
        etag = answer.headers.get("ETag")
        if not etag:
            raise UnfitError(f"part {number} is answered without an ETag")
        return etag

    async def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> Answer:
        """Make an object of the parts. An error may come with status 200: then its body says so."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in sorted(etags.items())
        )
        space = "http://s3.amazonaws.com/doc/2006-03-01/"
        body = f'<CompleteMultipartUpload xmlns="{space}">{parts}</CompleteMultipartUpload>'.encode()
        url = self.signer.url("POST", key, {"uploadId": upload})
        return await self.exchange.send("POST", url, body, {"Content-Type": "application/xml"})

    async def completed(self, key: str, upload: str, etags: Mapping[int, str]) -> None:
        """The same, with success. Raises UnfitError."""
        answer = expect(await self.complete(key, upload, etags), 200, doing="end of an upload in parts")
        if answer.xml().tag != "CompleteMultipartUploadResult":
            raise UnfitError(f"the end of an upload in parts failed: {answer.reason()}")

    async def abort(self, key: str, upload: str) -> Answer:
        """Give up an upload in parts."""
        url = self.signer.url("DELETE", key, {"uploadId": upload})
        return expect(await self.exchange.send("DELETE", url), 200, 204, doing="abort of an upload in parts")

    async def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Key and id of uploads in parts that were begun and neither completed nor given up."""
        url, headers = self.signer.bucket_request("GET", {"prefix": prefix, "uploads": ""})
        answer = expect(await self.exchange.send("GET", url, headers=headers), 200, doing="list of uploads")
        found = answer.xml().iter("Upload")
        return [(upload.findtext("Key") or "", upload.findtext("UploadId") or "") for upload in found]


async def tidy(bucket: Bucket, prefix: str) -> None:
    """Remove all that is below a prefix. Raises UnfitError if something stays."""
    keys = set(bucket.signer.uploads)
    problems: list[str] = []
    try:
        keys.update((await bucket.listing(prefix)).sizes)
        for key, upload in await bucket.uploads(prefix):
            await bucket.abort(key, upload)
    except UnfitError as error:
        # without a list, the keys that uploads were signed for are all that is known
        problems.append(str(error))
    limit = asyncio.Semaphore(8)

    async def remove(key: str) -> None:
        async with limit:
            try:
                await bucket.delete(key)
            except UnfitError as error:
                problems.append(f"{key}: {error}")

    ours = {key for key in keys if key.startswith(prefix)}
    dotted = {key for key in ours if {".", ".."} & set(key.split("/"))}
    await asyncio.gather(*(remove(key) for key in ours - dotted))
    if dotted:
        # no URL can name them
        await bucket.delete_all(sorted(dotted))
    if not problems:
        left = list((await bucket.listing(prefix)).sizes)
        problems += [f"{key} is still there" for key in left]
    if problems:
        raise UnfitError("what the suite wrote could not be removed:\n" + "\n".join(problems[:20]))

"""Requests to the store under test, and what is said when an answer is not the one that is needed."""

import ssl
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from store.target import Form, Target

TIMEOUT = aiohttp.ClientTimeout(total=180, sock_connect=10, sock_read=60)
_SHOWN = 300
"""Characters of a store's own message that a report repeats."""
BOUNDARY = "kubecoderun-store-suite"


class UnfitError(AssertionError):
    """The store did something else than KubeCodeRun needs; the text says what."""


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names as sent; look-ups ignore case."""
    body: bytes

    def xml(self) -> ElementTree.Element:
        """The body's root element, without namespaces. Raises UnfitError."""
        try:
            root = ElementTree.fromstring(self.body)
        except ElementTree.ParseError as error:
            raise UnfitError(f"the answer is not XML ({error}): {self.body[:80]!r}") from None
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    def reason(self) -> str:
        """Status, with the code and message of an S3 error where there are any."""
        text = f"status {self.status}"
        if b"<Error>" in self.body or b"<Error " in self.body:
            try:
                root = self.xml()
            except UnfitError:
                return text
            text += f" ({root.findtext('Code')}: {root.findtext('Message')})"
        return text[:_SHOWN]


def expect(answer: Answer, *statuses: int, doing: str) -> Answer:
    """The answer, if it has one of these statuses. Raises UnfitError."""
    if answer.status not in statuses:
        wanted = " or ".join(map(str, statuses))
        raise UnfitError(f"{doing}: {answer.reason()} instead of {wanted}")
    return answer


def refused(answer: Answer, *, doing: str) -> Answer:
    """The answer, if the store said no (and not that it is broken). Raises UnfitError."""
    if answer.status not in (400, 401, 403, 404, 405, 411, 413):
        raise UnfitError(f"{doing}: {answer.reason()} instead of a refusal")
    return answer


def same(found: object, wanted: object, *, what: str) -> None:
    """Raises UnfitError unless both are equal."""
    if found != wanted:
        raise UnfitError(f"{what}: {str(found)[:_SHOWN]!r} instead of {str(wanted)[:_SHOWN]!r}")


class Exchange:
    """Sends requests; follows no redirect, since a signature is for one host."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def send(
        self,
        method: str,
        url: URL,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, its answer read to the end. Raises UnfitError when there is none.

        A body that is no bytes needs a Content-Length in `headers`.
        """
        async with self.open(method, url, body, headers) as response:
            return Answer(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The same, with an answer that is still to be read."""
        try:
            async with self._http.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            # the URL is a secret: only host and port
            raise UnfitError(f"{method} to {url.host}:{url.port}: {type(error).__name__}: {error}") from None

    async def post(
        self, form: Form, key: str, data: bytes, path: str, others: Mapping[str, str] | None = None
    ) -> Answer:
        """Upload by form as a pod does: the policy's fields, key, path as metadata, the file last."""
        fields = {**form.fields, "key": key, "x-amz-meta-path": path, **(others or {})}
        parts = [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        parts.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = "".join(parts).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
        return await self.send("POST", form.url, body, {"Content-Type": content_type})


@asynccontextmanager
async def exchange_with(target: Target) -> AsyncIterator[Exchange]:
    """Connections to a store, trusted by the target's CA file."""
    tls = ssl.create_default_context(cafile=target.ca_file) if target.ca_file else True
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=TIMEOUT) as http:
        yield Exchange(http)

"""A small client of the front end's HTTP API: one connection per call, nothing retried, everything
returned."""

import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ANSWER_WITHIN = 170.0
"""Seconds a socket may stay silent. The front end sends a space every two seconds, so this is far beyond a
slow answer."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `seconds` runs from the first byte sent to the last byte received."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    parsed: dict[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.parsed[name]

    @property
    def session(self) -> str:
        """Name of the session this call created."""
        return str(self.parsed["session_id"])


class FrontEnd:
    """Calls one front end with one key."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        parts = urlsplit(endpoint)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._address, self._prefix = parts.netloc, parts.path.rstrip("/")
        self._api_key = api_key

    def connection(self, timeout: float = ANSWER_WITHIN) -> http.client.HTTPConnection:
        """A connection of its own, for callers that keep one open or hang up in the middle."""
        return self._kind(self._address, timeout=timeout)

    def headers(self, **changed: str | None) -> dict[str, str]:
        """Headers of an ordinary call; a name set to None is left out, `_` stands for `-`."""
        wanted: dict[str, str | None] = {"Content-Type": "application/json", "X-API-Key": self._api_key}
        wanted.update({name.replace("_", "-"): value for name, value in changed.items()})
        return {name: value for name, value in wanted.items() if value is not None}

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = ANSWER_WITHIN,
    ) -> Answer:
        """One request on a fresh connection. Raises OSError or HTTPException when no answer comes."""
        connection = self.connection(timeout)
        try:
            return exchange(
                connection, method, self._prefix + path, body, self.headers() if headers is None else headers
            )
        finally:
            connection.close()

    def exec(self, code: str, path: str = "/v1/exec", **fields: Any) -> Answer:
        """POST a program; `fields` are added to the body. The language is Python unless `lang` says
        otherwise."""
        return self.call("POST", path, exec_body(code, **fields))


def exec_body(code: str, **fields: Any) -> bytes:
    """The JSON body of an `/exec` call."""
    return json.dumps({"lang": "py", "code": code, **fields}).encode()


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None,
    headers: dict[str, str],
) -> Answer:
    """One request and its whole answer on an open connection. A body in pieces needs a Content-Length."""
    began = time.perf_counter()
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    seconds = time.perf_counter() - began
    received = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, received, content, seconds, parse(content))


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in a body; empty when it is none. White space before the document is part of the
    protocol."""
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

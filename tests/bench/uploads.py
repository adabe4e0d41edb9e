"""Sends files to the front end as LibreChat does, made while they are sent."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from e2e.frontend import Answer, FrontEnd, exchange

PIECE = 1 << 20
PATH = "/v1/upload"


class Upload:
    """A multipart/form-data body with one file of `size` bytes. It can be sent once or more."""

    def __init__(self, name: str, size: int) -> None:
        self._size, self._block = size, secrets.token_bytes(PIECE)
        boundary = secrets.token_hex(16)
        disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
        head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
        self._head, self._tail = head.encode(), f"\r\n--{boundary}--\r\n".encode()
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for begin in range(0, self._size, PIECE):
            yield self._block[: self._size - begin]
        yield self._tail


@dataclass(frozen=True)
class Stored:
    """A file that the front end has taken."""

    name: str
    session: str
    id: str
    seconds: float
    """From the first byte sent to the last byte of the answer."""

    def reference(self) -> dict[str, Any]:
        """An element of `files` in a call of /exec."""
        return {"id": self.id, "session_id": self.session, "name": self.name}


class UploadError(Exception):
    """The front end did not take a file; the text holds its answer."""


def send(front_end: FrontEnd, name: str, size: int) -> Stored:
    """Upload a file over a connection of its own. Raises UploadError."""
    body = Upload(name, size)
    connection = front_end.connection()
    try:
        answer = exchange(connection, "POST", PATH, body, front_end.headers(**body.headers))
    finally:
        connection.close()
    return taken(answer, name)


def taken(answer: Answer, name: str) -> Stored:
    """The file in an answer to an upload. Raises UploadError if there is none."""
    try:
        return Stored(name, answer.session, str(answer["files"][0]["fileId"]), answer.seconds)
    except (KeyError, IndexError) as wrong:
        raise UploadError(f"status {answer.status}: {answer.body[:200]!r}") from wrong


def remove(front_end: FrontEnd, file: Stored) -> None:
    """Delete a file, so that the store does not fill up."""
    answer = front_end.call("DELETE", f"/v1/files/{file.session}/{file.id}")
    if answer.status != 200:
        raise UploadError(f"deleting a file: status {answer.status}: {answer.body[:200]!r}")

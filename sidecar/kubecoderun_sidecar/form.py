"""The form that uploads one file by a POST policy (multipart/form-data). Pure.

The store reads the fields up to `file`, which therefore comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Form:
    """What stands before and after the file's bytes."""

    content_type: str
    before: bytes
    after: bytes


def percent_encoded(path: str) -> str:
    """A path as object metadata carries it: ASCII, slashes as they are."""
    return quote(path, safe="/")


def build_form(fields: Mapping[str, str], key: str, path: str, boundary: str) -> Form:
    """`fields` are the policy's; `boundary` must not occur in any of them (or in the file)."""
    every = {**fields, "key": key, "x-amz-meta-path": percent_encoded(path)}
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_escaped(name)}"\r\n\r\n{value}\r\n'
        for name, value in every.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        f"Content-Type: {CONTENT_TYPE}\r\n\r\n"
    )
    return Form(
        f"multipart/form-data; boundary={boundary}",
        "".join(parts).encode("utf-8"),
        f"\r\n--{boundary}--\r\n".encode(),
    )


def _escaped(name: str) -> str:
    """A field's name, as browsers write it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")

"""Names of files: which ones a session takes, and how HTTP is told about them. No I/O.

A name is a path relative to the working directory of a program. It is never changed: a name that cannot be
used as it is gets refused.
"""

import mimetypes
import posixpath
import string
from typing import Final
from urllib.parse import quote

from kubecoderun_crds.files import MAX_PATH_LENGTH, MAX_PATH_SEGMENTS, is_file_path
from kubecoderun_crds.printable import is_printable

_MAX_SEGMENT_BYTES: Final = 255
"""No file system of Linux takes longer names."""
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + " !#$&()+,-.=@[]^_{}~")
"""Characters that mean themselves in the quoted file name of a header, for every client."""
_DEFAULT_TYPE: Final = "application/octet-stream"
_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_MORE_TYPES: Final = {
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".pptx": f"{_OFFICE}.presentationml.presentation",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
    ".gz": "application/gzip",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".toml": "application/toml",
    ".ts": "text/x-typescript",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_TYPES: Final = mimetypes.MimeTypes(filenames=())
for _extension, _type in _MORE_TYPES.items():
    _TYPES.add_type(_type, _extension)


def problem(name: str) -> str | None:
    """What keeps a session from holding a file of that name, as a clause without subject; None if nothing."""
    segments = name.split("/")
    checks = (
        (not name, "is empty"),
        (len(name) > MAX_PATH_LENGTH, f"is longer than {MAX_PATH_LENGTH} characters"),
        ("\\" in name, "has a backslash"),
        (not is_printable(name) or "\n" in name or "\t" in name, "has control or invisible characters"),
        (name.startswith("/"), "is not relative"),
        (name.endswith("/"), "ends with a slash"),
        ("" in segments, "has an empty part"),
        ("." in segments or ".." in segments, "has a part that is . or .."),
        (len(segments) > MAX_PATH_SEGMENTS, f"has more than {MAX_PATH_SEGMENTS} parts"),
        (not is_file_path(name), "cannot be used"),
    )
    for found, clause in checks:
        if found:
            return clause
    if any(len(segment.encode()) > _MAX_SEGMENT_BYTES for segment in segments):
        return f"has a part of more than {_MAX_SEGMENT_BYTES} bytes"
    return None


def extension(name: str) -> str:
    """The last extension with its dot; empty if there is none."""
    return posixpath.splitext(name)[1]


def content_type(name: str) -> str:
    """The media type that the extension stands for."""
    return _TYPES.types_map[True].get(extension(name).lower(), _DEFAULT_TYPE)


def disposition(name: str) -> str:
    """Value of a Content-Disposition that makes a browser save the content under that name."""
    fallback = "".join(char if char in _PLAIN else "_" for char in name)
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{quote(name, safe='')}"

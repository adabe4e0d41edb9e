"""Reads multipart/form-data as it arrives: text fields are collected, files are passed on piece by piece.

No I/O, no buffer: whoever feeds bytes gets events back. Everything that a client may send without end is
bounded: headers, fields, files, and what comes after the last part. The content of files is not.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Never
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from kubecoderun_crds.pool import MAX_FILES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS: Final = 64
MAX_FILE_PARTS: Final = 1000
"""Files of one form, whoever counts them."""
MAX_FIELD_BYTES: Final = 4096
MAX_HEADERS: Final = 16
MAX_HEADER_BYTES: Final = 8192
MAX_EPILOGUE_BYTES: Final = 65_536

_FILE_FIELDS: Final = frozenset({"file", "files"})
_IDENTITY_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.|"(?!\s*(?:;|\Z)))*)"\s*(?:;|\Z)', re.DOTALL)
_TOKEN: Final = re.compile(r"([^;]*)(?:;|\Z)")
_NAME: Final = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*")
_EXTENDED: Final = re.compile(r"(UTF-8|ISO-8859-1)'[^']*'(.*)", re.IGNORECASE)


class FormError(Exception):
    """What was sent is no form that can be accepted; the text says why and is meant for the client."""

    def __init__(self, text: str, code: str = "invalid_request") -> None:
        super().__init__(text)
        self.code = code
        """The same for programs."""


@dataclass(frozen=True)
class FileBegins:
    """A file part; its content follows."""

    name: str


@dataclass(frozen=True)
class FileContent:
    """The next bytes of the file that began last."""

    data: bytes


@dataclass(frozen=True)
class FileEnds:
    """The file is complete."""


Event = FileBegins | FileContent | FileEnds


class Form:
    """One form. `feed` it, then `finish` it."""

    def __init__(self, content_type: str, *, max_files: int = MAX_FILES) -> None:
        """Takes the header of the request. Raises FormError without a boundary that makes sense; later also
        for more than `max_files` files."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data":
            text = "Invalid content type. Must be multipart/form-data."
            _refuse(text, text)
        if not boundary:
            _refuse("The content type has no boundary.")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary, callbacks, max_header_count=MAX_HEADERS, max_header_size=MAX_HEADER_BYTES
            )
        except FormParserError:
            raise FormError("The boundary is too long.") from None
        self.fields: dict[str, str] = {}
        """Text fields so far; of equal names the last."""
        self._events: list[Event] = []
        self._files = 0
        self._max_files = max_files
        self._texts = 0
        self._ended = False
        self._after_end = 0
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        """Name of the text field that is being read."""
        self._text = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        """The next bytes; returns what they have completed. Raises FormError."""
        if self._ended:
            self._after_end += len(data)
            if self._after_end > MAX_EPILOGUE_BYTES:
                _refuse("There is too much after the last part.")
            return []
        try:
            self._parser.write(data)
        except FormParserError as error:
            oversized = "header" in str(error) and "exceeded" in str(error)
            raise FormError(
                "A part has too many or too long headers." if oversized else "The form is malformed."
            ) from None
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """All bytes have been fed. Raises FormError if the form is not complete or has no file."""
        if not self._ended:
            _refuse("The form ends in the middle.")
        if not self._files:
            text = "There is no part with a file: it must be called file or files and have a file name."
            _refuse(text, "No files provided")

    # --- what the parser tells ----------------------------------------------------------------------

    def _part_begins(self) -> None:
        self._headers = {}
        self._header.clear()
        self._value.clear()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        encoding = self._headers.get(b"content-transfer-encoding", b"").strip().lower()
        if encoding.decode("latin-1") not in _IDENTITY_ENCODINGS:
            _refuse("Parts with a Content-Transfer-Encoding are not supported.")
        name, file_name = _read_disposition(self._headers.get(b"content-disposition", b""))
        if file_name is None:
            self._begin_text(name)
        else:
            self._begin_file(name, file_name)

    def _begin_text(self, name: str) -> None:
        self._texts += 1
        if self._texts > MAX_FIELDS:
            _refuse(f"The form has more than {MAX_FIELDS} fields.")
        self._field = name
        self._text.clear()

    def _begin_file(self, name: str, file_name: str) -> None:
        if name not in _FILE_FIELDS:
            _refuse("A part with a file must be called file or files.")
        self._files += 1
        if self._files > self._max_files:
            _refuse(f"The form has more than {self._max_files} files.")
        self._field = None
        self._events.append(FileBegins(file_name))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._events.append(FileContent(data[start:end]))
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            _refuse(f"A field is longer than {MAX_FIELD_BYTES} bytes.")

    def _part_ends(self) -> None:
        if self._field is None:
            self._events.append(FileEnds())
            return
        self.fields[self._field] = _utf8(self._text, "A field")

    def _end(self) -> None:
        self._ended = True


def _read_disposition(header: bytes) -> tuple[str, str | None]:
    """Name of a part, and the name of its file if it is one.

    Text in quotes is raw UTF-8, as browsers and LibreChat send it; a quote or a backslash may be escaped, and
    a bare quote ends it only before a semicolon or the end. A file name as in RFC 5987 comes first.
    """
    kind, separator, rest = _utf8(header, "A header").partition(";")
    options = _options(rest) if separator else {}
    if kind.strip().lower() != "form-data" or "name" not in options:
        _refuse("A part has no Content-Disposition of form-data with a name.")
    extended = options.get("filename*")
    name = options.get("filename")
    return options["name"], name if extended is None else _extended(extended)


def _options(text: str) -> dict[str, str]:
    """The parameters of a header; of equal names the first."""
    options: dict[str, str] = {}
    place = 0
    while text[place:].strip():
        name = _NAME.match(text, place)
        if name is None:
            _refuse("A part has a malformed Content-Disposition.")
        quoted = _QUOTED.match(text, name.end())
        value = quoted or _TOKEN.match(text, name.end())
        if value is None:
            _refuse("A part has a malformed Content-Disposition.")
        content = re.sub(r'\\(["\\])', r"\1", value[1]) if quoted else value[1].strip()
        options.setdefault(name[1].lower(), content)
        place = value.end()
    return options


def _extended(value: str) -> str:
    """Text in the form of RFC 5987."""
    parts = _EXTENDED.fullmatch(value)
    if parts is None:
        _refuse("The filename* of a part is not as in RFC 5987.")
    raw = unquote_to_bytes(parts[2])
    return raw.decode("latin-1") if parts[1].upper() != "UTF-8" else _utf8(raw, "The name of a file")


def _utf8(raw: bytes | bytearray, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        _refuse(f"{what} is not UTF-8.")


def _refuse(text: str, code: str = "invalid_request") -> Never:
    raise FormError(text, code)

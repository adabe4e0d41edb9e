"""Reads typed fields out of decoded JSON, with errors that name the field and never repeat its value."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


class ProtocolError(ValueError):
    """A message is not what the protocol says. The text names the field, never its content."""


def _no_constant(_name: str) -> NoReturn:
    raise ProtocolError("message holds NaN or Infinity")


def decode_object(data: bytes, what: str) -> Fields:
    """Decode one UTF-8 JSON object called `what` in errors; raises ProtocolError for anything else."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except ProtocolError:
        raise
    except (ValueError, RecursionError):
        # Neither the decoder's message nor its context may travel on: they quote the document.
        raise ProtocolError(f"{what} is not a JSON object in UTF-8") from None
    return Fields(value, what)


def encode_object(value: dict[str, Any]) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


class Fields:
    """One JSON object being read. Unknown fields are ignored, so that either side can be newer."""

    __slots__ = ("_values", "_what")

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{what} must be an object")
        self._values: dict[str, Any] = value
        self._what = what

    def fail(self, name: str, expected: str) -> NoReturn:
        raise ProtocolError(f"{self._what}.{name} must be {expected}")

    def has(self, name: str) -> bool:
        """Present and not null."""
        return self._values.get(name) is not None

    def object(self, name: str) -> Fields:
        return Fields(self._values.get(name), f"{self._what}.{name}")

    def optional_object(self, name: str) -> Fields | None:
        return self.object(name) if self.has(name) else None

    def objects(self, name: str, *, max_items: int) -> list[Fields]:
        """A list (absent = empty) of objects."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or len(value) > max_items:
            self.fail(name, f"a list of at most {max_items} objects")
        return [Fields(item, f"{self._what}.{name}[{place}]") for place, item in enumerate(value)]

    def all_texts(self, *, max_items: int) -> dict[str, str]:
        """This whole object as names and strings."""
        if len(self._values) > max_items or not all(map(_passable, self._values.values())):
            raise ProtocolError(f"{self._what} must be an object of at most {max_items} strings")
        return dict(self._values)

    def text(self, name: str, *, max_bytes: int = 4096, min_bytes: int = 0) -> str:
        """A string that is valid Unicode and whose UTF-8 form has min_bytes..max_bytes bytes."""
        value = self._values.get(name)
        if not isinstance(value, str) or not min_bytes <= _utf8_length(value) <= max_bytes:
            self.fail(name, f"a string of {min_bytes} to {max_bytes} bytes")
        return value

    def optional_text(self, name: str, *, max_bytes: int = 4096, min_bytes: int = 0) -> str | None:
        return self.text(name, max_bytes=max_bytes, min_bytes=min_bytes) if self.has(name) else None

    def choice(self, name: str, allowed: frozenset[str]) -> str:
        value = self._values.get(name)
        if not isinstance(value, str) or value not in allowed:
            self.fail(name, "one of " + ", ".join(sorted(allowed)))
        return value

    def integer(self, name: str, minimum: int, maximum: int) -> int:
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            self.fail(name, f"an integer from {minimum} to {maximum}")
        return value

    def optional_integer(self, name: str, minimum: int, maximum: int) -> int | None:
        return self.integer(name, minimum, maximum) if self.has(name) else None

    def number(self, name: str, minimum: float, maximum: float) -> float:
        """A finite number, as float."""
        value = self._values.get(name)
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        # The range test comes before float(): a huge integer would overflow it.
        if not valid or not minimum <= value <= maximum or not math.isfinite(value):  # type: ignore[operator,arg-type]
            self.fail(name, f"a number from {minimum:g} to {maximum:g}")
        return float(value)  # type: ignore[arg-type]

    def optional_number(self, name: str, minimum: float, maximum: float) -> float | None:
        return self.number(name, minimum, maximum) if self.has(name) else None

    def boolean(self, name: str, *, default: bool | None = None) -> bool:
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            self.fail(name, "true or false")
        return value

    def texts(self, name: str, *, max_items: int) -> tuple[str, ...]:
        """A list (absent = empty) of strings without NUL, as a process can take them."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or len(value) > max_items or not all(map(_passable, value)):
            self.fail(name, f"a list of at most {max_items} strings without NUL")
        return tuple(value)

    def text_map(self, name: str, *, max_items: int) -> dict[str, str]:
        """An object (absent = empty) of strings without NUL; names also non-empty and without '='."""
        value = self._values.get(name, {})
        if not isinstance(value, dict) or len(value) > max_items or not all(map(_passable, value.values())):
            self.fail(name, f"an object of at most {max_items} strings without NUL")
        if not all(key and "=" not in key and _passable(key) for key in value):
            self.fail(name, "an object whose names are not empty and hold neither '=' nor NUL")
        return value


def _utf8_length(value: str) -> int:
    """UTF-8 length, or -1 for a string with lone surrogates (JSON allows them, UTF-8 does not)."""
    try:
        return len(value.encode("utf-8"))
    except UnicodeEncodeError:
        return -1


def _passable(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and _utf8_length(value) >= 0

"""What LibreChat sends to /exec, and the shape of every error that goes back.

Reading is tolerant: unknown keys are ignored, arguments are turned into text, languages have aliases. What
cannot be understood raises `BadRequest`, which is an answer in itself.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Never

from kubecoderun_crds.fields import LANGUAGES
from kubecoderun_crds.pool import MAX_TIMEOUT_SECONDS
from kubecoderun_crds.printable import is_plain
from kubecoderun_crds.session import CODE_OBJECT_BYTES, MAX_ARGS, MAX_ARGS_LENGTH, fits_inline

UNSUPPORTED: Final = "unsupported_capability"
"""A code that LibreChat's client takes as "this will never work", so that the model does not try again."""

_MAX_ARG_LENGTH: Final = 4096
_ALIASES: Final = {
    "python": "py",
    "python3": "py",
    "javascript": "js",
    "bun": "js",
    "bun-js": "js",
    "node": "js",
    "nodejs": "js",
    "node-js": "js",
    "node-javascript": "js",
    "typescript": "ts",
    "bun-ts": "ts",
    "bun-typescript": "ts",
    "sh": "bash",
    "shell": "bash",
    "c++": "cpp",
    "rust": "rs",
    "golang": "go",
    "fortran": "f90",
}

LANGUAGE_NAMES: Final = (*LANGUAGES, *_ALIASES)
"""All that `lang` can be, in lower case."""


class BadRequest(Exception):  # noqa: N818 - the name of the HTTP status
    """A request that cannot be served as it is: the status and the JSON body to answer with."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def refuse(message: str, *, error: str = "invalid_request", status: int = 400) -> Never:
    """Raise the BadRequest with that text."""
    raise BadRequest(status, {"error": error, "message": message})


@dataclass
class ExecRequest:
    """A /exec call that has been understood."""

    language: str
    """One that the resources know, without aliases."""
    code: bytes
    """The program in UTF-8, not empty."""
    inline: str | None
    """The program as text if it can stand in a session, else None."""
    args: tuple[str, ...]
    timeout_seconds: int | None
    """Time limit that the client asked for, whole seconds, at least 1; None: the pool's default."""
    tools: tuple[str, ...] = ()
    """Tools that the program may call."""

    hint: str | None = None
    """runtime_session_hint: which runs find each other's files; None: the run stands alone."""

    def take_code(self) -> bytes:
        """The program's bytes, once: a big program shall not stay in memory as long as it runs."""
        code, self.code = self.code, b""
        return code


def parse_json(raw: bytes | bytearray) -> dict[str, Any]:
    """Read a request body. Raises BadRequest unless it is one JSON object in UTF-8."""
    try:
        body = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        refuse("the body is not UTF-8", error="invalid_json")
    except (ValueError, RecursionError):
        refuse("the body is not valid JSON", error="invalid_json")
    if not isinstance(body, dict):
        refuse("the body must be a JSON object")
    return body


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def parse_exec(body: Mapping[str, Any]) -> ExecRequest:
    """Read the fields of a /exec call. Raises BadRequest for those that make no sense."""
    language = _language(body.get("lang"))
    code, encoded = _code(body.get("code"))
    return ExecRequest(
        language=language,
        code=encoded,
        inline=code if fits_inline(code) else None,
        args=_args(body.get("args")),
        timeout_seconds=_timeout(body.get("timeout")),
    )


def _language(value: Any) -> str:
    if value is None:
        refuse("Missing required field: lang")
    if not isinstance(value, str):
        refuse("lang must be a string")
    key = value.strip().lower()
    language = _ALIASES.get(key, key)
    if language not in LANGUAGES:
        raise BadRequest(
            400,
            {
                "error": f"Unsupported language: {_printable(value)}",
                "code": UNSUPPORTED,
                "message": f"Known languages: {', '.join(LANGUAGES)}.",
            },
        )
    return language


def _printable(value: str) -> str:
    """At most 40 harmless characters of what a client sent."""
    return "".join(char if char.isprintable() else "?" for char in value[:40])


def _code(value: Any) -> tuple[str, bytes]:
    """The program as text and in UTF-8."""
    if value is None or value == "":
        refuse("Missing required field: code")
    if not isinstance(value, str):
        refuse("code must be a string")
    try:
        code = value.encode()
    except UnicodeEncodeError:  # JSON can spell lone surrogates
        refuse("code is not valid Unicode")
    if len(code) > CODE_OBJECT_BYTES:
        refuse(f"code is over {CODE_OBJECT_BYTES} bytes", error="code_too_large", status=413)
    return value, code


def _args(value: Any) -> tuple[str, ...]:
    """Program arguments as text. Models send bare strings, numbers, objects; all of these have a meaning."""
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_ARGS:
        refuse(f"args has more than {MAX_ARGS} elements")
    args = tuple(_arg(item) for item in items)
    if sum(map(len, args)) > MAX_ARGS_LENGTH or any(len(arg) > _MAX_ARG_LENGTH for arg in args):
        refuse(f"args is over {MAX_ARGS_LENGTH} characters, or one of them over {_MAX_ARG_LENGTH}")
    if not all(map(is_plain, args)):
        refuse("args must not contain control characters but tabs and line breaks, or invalid Unicode")
    return args


def _arg(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        refuse("args is nested too deeply")


def _timeout(value: Any) -> int | None:
    """Milliseconds to whole seconds, upwards: the unit of a session's time limit is the second."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse("timeout must be a number of milliseconds")
    if not value > 0:
        refuse("timeout must be positive")
    return math.ceil(value / 1000) if value < MAX_TIMEOUT_SECONDS * 1000 else MAX_TIMEOUT_SECONDS

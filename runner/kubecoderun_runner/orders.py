"""What the sidecar asks for, read and checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubecoderun_runner.frames import FrameError

MAX_CODE_BYTES = 64 << 20
MAX_STDIN_BYTES = 1 << 20


@dataclass(frozen=True)
class Order:
    """Frame R: one program to prepare."""

    language: str
    args: list[str]
    env: dict[str, str]
    timeout_seconds: float
    code_bytes: int
    stdin_bytes: int


def parse_order(fields: Mapping[str, Any]) -> Order:
    """Check frame R; FrameError names the field that is wrong."""
    args, env = fields.get("args", []), fields.get("env", {})
    if not (isinstance(args, list) and all(_is_text(arg) for arg in args)):
        raise FrameError("args is not a list of texts")
    if not (isinstance(env, dict) and all(map(_is_name, env)) and all(map(_is_text, env.values()))):
        raise FrameError("env is not a map of names to texts")
    language, timeout = fields.get("language"), fields.get("timeoutSeconds")
    if not isinstance(language, str):
        raise FrameError("language is not a text")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 1e6:
        raise FrameError("timeoutSeconds is not a number over 0")
    return Order(
        language,
        args,
        env,
        float(timeout),
        _size(fields, "codeBytes", MAX_CODE_BYTES),
        _size(fields, "stdinBytes", MAX_STDIN_BYTES),
    )


def _is_text(value: object) -> bool:
    """Whether a process can take it: UTF-8 (JSON allows lone surrogates) without NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_name(value: object) -> bool:
    return _is_text(value) and value != "" and "=" not in str(value)


def _size(fields: Mapping[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise FrameError(f"{name} is not a size up to {most}")
    return value

"""What the sidecar asks for, read and checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubecoderun_runner.frames import FrameError

MAX_CODE_BYTES = 64 << 20
MAX_STDIN_BYTES = 1 << 20
MAX_FILES = 256
"""Most input files, and most output files, of one run."""
MAX_FILE_BYTES = 1 << 40
MAX_OUTPUT_BYTES = 1 << 50
_MAX_PATH_BYTES = 1024
MAX_TOOLS = 100
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


@dataclass(frozen=True)
class FileLimits:
    """What may be handed back: how many files, how long each, and together. None is looked for with a count
    of 0."""

    count: int = 0
    bytes: int = 0
    total_bytes: int = 0


@dataclass(frozen=True)
class InputFile:
    """Frame N: one file to put into the working directory."""

    path: str
    bytes: int
    read_only: bool


@dataclass(frozen=True)
class Tool:
    """A tool that the program may call, and the function that stands for it there."""

    name: str
    function: str


@dataclass(frozen=True)
class Order:
    """Frame R: one program to prepare."""

    language: str
    args: list[str]
    env: dict[str, str]
    timeout_seconds: float
    code_bytes: int
    stdin_bytes: int
    inputs: int = 0
    """How many input files come before the code."""
    input_bytes: int = 0
    """How long they are together."""
    files: FileLimits = FileLimits()
    again: bool = False
    """Whether other programs may follow in this container."""
    output_bytes: int = 0
    """How much it may print before it is ended; 0 for no bound."""
    tools: tuple[Tool, ...] = ()


def parse_order(fields: Mapping[str, Any]) -> Order:
    """Check frame R; FrameError names the field that is wrong."""
    args, env = fields.get("args", []), fields.get("env", {})
    if not (isinstance(args, list) and all(_is_text(arg) for arg in args)):
        raise FrameError("args is not a list of texts")
    if not (isinstance(env, dict) and all(map(_is_name, env)) and all(map(_is_text, env.values()))):
        raise FrameError("env is not a map of names to texts")
    language, timeout = fields.get("language"), fields.get("timeoutSeconds")
    again = fields.get("again", False)
    if not isinstance(language, str):
        raise FrameError("language is not a text")
    if not isinstance(again, bool):
        raise FrameError("again is not true or false")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 1e6:
        raise FrameError("timeoutSeconds is not a number over 0")
    return Order(
        language,
        args,
        env,
        float(timeout),
        _size(fields, "codeBytes", MAX_CODE_BYTES),
        _size(fields, "stdinBytes", MAX_STDIN_BYTES),
        _size(fields, "inputs", MAX_FILES, 0),
        _size(fields, "inputBytes", MAX_FILES * MAX_FILE_BYTES, 0),
        _limits(fields.get("files", {})),
        again,
        _size(fields, "outputBytes", MAX_OUTPUT_BYTES, 0),
        _tools(fields.get("tools", [])),
    )


def parse_input(fields: Mapping[str, Any]) -> InputFile:
    """Check frame N; FrameError names the field that is wrong."""
    path, read_only = fields.get("path"), fields.get("readOnly", False)
    if not _is_text(path) or not 0 < len(str(path).encode()) <= _MAX_PATH_BYTES:
        raise FrameError("path is not a path")
    if any(segment in ("", ".", "..") for segment in str(path).split("/")):
        raise FrameError("path leads elsewhere")
    if not isinstance(read_only, bool):
        raise FrameError("readOnly is not true or false")
    return InputFile(str(path), _size(fields, "bytes", MAX_FILE_BYTES), read_only)


def parse_index(fields: Mapping[str, Any]) -> int:
    """Check frame T: the place of a file in the listing."""
    return _size(fields, "index", MAX_FILES)


def _limits(value: object) -> FileLimits:
    if not isinstance(value, dict):
        raise FrameError("files is not an object")
    return FileLimits(
        _size(value, "count", MAX_FILES, 0),
        _size(value, "bytes", MAX_FILE_BYTES, 0),
        _size(value, "totalBytes", MAX_FILE_BYTES, 0),
    )


def _tools(value: object) -> tuple[Tool, ...]:
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise FrameError("tools is not a short list")
    return tuple(map(_tool, value))


def _tool(value: object) -> Tool:
    if not isinstance(value, dict):
        raise FrameError("a tool is not an object")
    name, function = value.get("name"), value.get("function")
    if not _is_text(name) or not isinstance(function, str) or not _FUNCTION.fullmatch(function):
        raise FrameError("a tool has no name or no function")
    return Tool(str(name), function)


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


def _size(fields: Mapping[str, Any], name: str, most: int, default: int | None = None) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise FrameError(f"{name} is not a size up to {most}")
    return value

"""Log lines: one JSON object each, on standard output.

Callers pass only facts that may be logged. No line holds a request or response body, code, output, a key or
a signed URL; because the text of an exception may contain any of these, only its type and frames are written.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any

LOGGER = logging.getLogger("kubecoderun_api")
_FACTS = "facts"


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON: ts, level, event, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
        }
        if record.name == LOGGER.name:
            line["event"] = record.getMessage()
            line.update(getattr(record, _FACTS, {}))
        else:
            line["event"] = "library"
            line["logger"] = record.name
            line["message"] = record.getMessage().partition("\n")[0][:300]  # further lines tell of exceptions
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = error_name(record.exc_info[1])
            line["frames"] = frames(record.exc_info[1])
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Send everything that this process logs to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    LOGGER.setLevel(level)
    logging.getLogger("uvicorn.error").setLevel("WARNING")
    logging.getLogger("python_multipart").setLevel("CRITICAL")  # it tells of what clients send


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Write one line. `error` adds the type and the frames of an exception, never its text."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, name, exc_info=error, extra={_FACTS: facts})


def error_name(error: BaseException) -> str:
    """An exception's type with its module, such as `aiohttp.client_exceptions.ServerTimeoutError`."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def frames(error: BaseException) -> list[str]:
    """Where an exception came from, innermost last: at most 20 times `file:line function`."""
    stack = traceback.extract_tb(error.__traceback__)[-20:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack]


__all__ = ["DEBUG", "ERROR", "INFO", "WARNING", "configure", "error_name", "event", "frames"]

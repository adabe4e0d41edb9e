"""Log lines as JSON, one object each, with the session, pool and pod they are about.

What a user sent or a program wrote, keys and presigned URLs never go into a log line.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

_FIELDS: Final = "kcr_fields"


def about(**fields: object) -> dict[str, Any]:
    """The `extra` of a log call: `logger.info("session ended", extra=about(session=name, reason=reason))`."""
    return {_FIELDS: {name: value for name, value in fields.items() if value not in (None, "")}}


class JsonLines(logging.Formatter):
    """time, level, logger and message, then the fields of the call."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, _FIELDS, None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send all log lines to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    quiet_libraries()


def quiet_libraries() -> None:
    """kopf writes a line for each handled event; that is one per pod and second under load."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf._core").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

# SPDX-License-Identifier: Apache-2.0
"""The server's own log: text for people, or one JSON object a line for a collector."""

import datetime as dt
import json
import logging
import sys
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["FORMATS", "JsonLines", "configure"]

FORMATS: Final = ("text", "json")


class JsonLines(logging.Formatter):
    """Formats a record as ``{"time": …, "level": …, "logger": …, "message": …}``, with the traceback where it has one.

    Example:
        >>> record = logging.LogRecord("strop.fleet", logging.ERROR, "f.py", 1, "disk %s", ("full",), None)
        >>> record.created = 0.0
        >>> print(JsonLines().format(record))
        {"time": "1970-01-01T00:00:00.000Z", "level": "error", "logger": "strop.fleet", "message": "disk full"}
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(form: str) -> None:
    """Let the process log to stderr; raises UsageError for another form than text or json."""
    if form not in FORMATS:
        raise UsageError(f"unknown form {form!r}", where="--log-format", fix="use text or json")
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])

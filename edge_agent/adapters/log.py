# SPDX-License-Identifier: Apache-2.0
"""A log file of bounded size: two generations of half a megabyte. The library's handler would cost 1 MB of memory."""

import datetime as dt
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["LogFile"]

MAX_BYTES: Final = 500_000


class LogFile:
    """Appends lines to a file and to stderr; the file moves to ``.1`` when it is full.

    Args:
        path: The file; its folder is made.
        is_quiet: Write to the file only.
    """

    def __init__(self, path: Path, *, is_quiet: bool = False) -> None:
        self.path, self._is_quiet = path, is_quiet
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, level: str, text: str) -> None:
        """Append one line; a disk that refuses costs the line, never the agent."""
        stamp = dt.datetime.fromtimestamp(time.time(), dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = f"{stamp} {level} {text}".replace("\n", " ")[:2000] + "\n"
        if not self._is_quiet:
            sys.stderr.write(line)
        try:
            if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
            with self.path.open("a") as file:
                file.write(line)
        except OSError:
            return

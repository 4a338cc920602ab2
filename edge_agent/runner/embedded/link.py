# SPDX-License-Identifier: Apache-2.0
"""The application's end of the line to the control process; without one nothing is told, only counted."""

import contextlib
import json
import select
import socket
from collections import deque
from pathlib import Path
from typing import Any, Final

from edge_agent.embedding import meet
from edge_agent.runner.commands import MAX_LINE_BYTES

__all__ = ["Link"]

RETRY_S: Final = 1.0
_WAITING: Final = 1000
"""Events that wait for a connection; of more the oldest are forgotten: the counters know their number."""


class Link:
    """Events out, command lines in. ``tell`` may be called from any thread, the rest from one.

    Args:
        path: The control process's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_WAITING)
        self._out, self._in = b"", b""
        self._retry_at = 0.0

    @property
    def is_up(self) -> bool:
        """Whether a control process listens."""
        return self._socket is not None

    def connect(self, now: float) -> bool:
        """Try to connect if it is time; return whether the connection is new: then everything must be said again."""
        if self._socket is not None or now < self._retry_at:
            return False
        self._retry_at = now + RETRY_S
        try:
            self._socket = meet(self._path, listening=False)
        except OSError:
            return False
        self._socket.setblocking(False)
        self._waiting.clear()  # of a time that this control process does not know
        return True

    def tell(self, event: dict[str, Any]) -> None:
        """Put an event at the end of what is sent next."""
        self._waiting.append(event)

    def lines(self, wait_s: float) -> list[bytes]:
        """Send what waits, and return the command lines that came within the time."""
        if self._socket is None:
            return []
        try:
            self._send(self._socket)
            ready, _, _ = select.select([self._socket], [], [], wait_s)
            return self._receive(self._socket) if ready else []
        except OSError:
            self._lose()
            return []

    def _send(self, sock: socket.socket) -> None:
        while self._waiting and len(self._out) < MAX_LINE_BYTES:
            event = self._waiting.popleft()
            self._out += json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with contextlib.suppress(BlockingIOError):  # the control process is busy: the rest goes next time
            while self._out:
                self._out = self._out[sock.send(self._out) :]

    def _receive(self, sock: socket.socket) -> list[bytes]:
        chunk = sock.recv(MAX_LINE_BYTES)
        if not chunk:
            self._lose()
            return []
        *whole, self._in = (self._in + chunk).split(b"\n")
        if len(self._in) > MAX_LINE_BYTES:
            self._lose()
        return [line for line in whole if line.strip()]

    def _lose(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._out, self._in = None, b"", b""

    def close(self) -> None:
        """Say good-bye and let go."""
        if self._socket is not None:
            self.tell({"event": "bye"})
            with contextlib.suppress(OSError):
                self._socket.settimeout(RETRY_S)
                self._send(self._socket)
        self._lose()

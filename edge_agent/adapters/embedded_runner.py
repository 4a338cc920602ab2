# SPDX-License-Identifier: Apache-2.0
"""The runner as a guest in an application: the same lines as ``RunnerProcess``, over a Unix socket instead of pipes.

The control process starts nothing: it listens, and an application that opens the model by its name connects. One
connection is one life of a runner. It ends in order when the application says ``bye``; a connection that breaks
without it is a crash, and counts against a model on trial as a crash of a runner process does.
"""

import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.embedding import meet, run_folder

__all__ = ["EmbeddedRunner"]

MAX_LINE: Final = 1_000_000
_CREDENTIALS: Final = struct.Struct("3i")
_SEND_S: Final = 2.0
"""A command is a few hundred bytes; an application that does not take them for so long is left."""


def _no_nan(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


class EmbeddedRunner:
    """Waits for one application at a time and reads it in one thread; used like ``RunnerProcess``.

    Args:
        path: The socket.
        said: Called from the reader thread with each decoded line.
        exited: Called from the reader thread at the end of each connection: 0 after ``bye``, else -1.
    """

    def __init__(self, path: Path, said: Callable[[dict[str, Any]], None], exited: Callable[[int], None]) -> None:
        self._path, self._said, self._exited = path, said, exited
        self._listener: socket.socket | None = None
        self._guest: socket.socket | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = os.pipe()

    @property
    def pid(self) -> int | None:
        """Process id of the application while it is connected."""
        with self._lock, contextlib.suppress(OSError):
            if self._guest is not None:
                facts = self._guest.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                return int(_CREDENTIALS.unpack(facts)[0]) or None
        return None

    def start(self) -> None:
        """Begin to wait for an application; a folder that cannot be used counts as one that left at once."""
        try:
            if self._listener is None:
                run_folder(self._path.parent.parent)
                self._listener = meet(self._path, listening=True)
        except OSError as error:
            self._said({"event": "log", "reason": f"cannot listen at {self._path}: {error}"})
            self._exited(127)
            return
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), name="embedded", daemon=True)
        self._thread.start()

    def _serve(self, listener: socket.socket) -> None:
        waited: list[Any] = [listener, self._wake[0]]
        ready, _, _ = select.select(waited, [], [])
        if self._wake[0] in ready:
            os.read(self._wake[0], 1)
            self._exited(0)
            return
        guest, _ = listener.accept()
        guest.settimeout(None)
        with self._lock:
            self._guest = guest
        code = self._read(guest)
        with self._lock:
            self._guest = None
        guest.close()
        self._exited(code)

    def _read(self, guest: socket.socket) -> int:
        """Hand over what the application says until it leaves; return 0 if it said good-bye."""
        with guest.makefile("rb") as stream, contextlib.suppress(OSError):
            while line := stream.readline(MAX_LINE):
                try:
                    words = json.loads(line, parse_constant=_no_nan)
                except (ValueError, RecursionError):
                    words = {"event": "log", "reason": f"not JSON: {line[:200]!r}"}
                if not isinstance(words, dict):
                    continue
                if words.get("event") == "bye":
                    return 0
                self._said(words)
        return -1

    def send(self, words: Mapping[str, Any]) -> None:
        """Send one command; an application that is gone says so by the end of its connection."""
        with self._lock:
            guest = self._guest
        if guest is None:
            return
        line = json.dumps(dict(words)).encode() + b"\n"
        try:
            _, writable, _ = select.select([], [guest], [], _SEND_S)
            if writable:
                guest.sendall(line)
        except (OSError, ValueError):  # closed between two lines
            return

    def stop(self, mono: float) -> None:
        """Leave the application, or stop to wait for one; it goes on to infer, and connects to the next agent."""
        del mono  # nothing is ended by force here: the process is not ours
        with self._lock:
            guest = self._guest
        if guest is not None:
            with contextlib.suppress(OSError):
                guest.shutdown(socket.SHUT_RDWR)
        elif self._thread is not None and self._thread.is_alive():
            os.write(self._wake[1], b"x")

    def watch(self, mono: float) -> None:
        """Nothing to watch: the application is its own master."""

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the connection, and stop to listen: for a clean stop of the agent."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

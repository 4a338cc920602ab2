# SPDX-License-Identifier: Apache-2.0
"""What systemd is told of us: ready, alive, stopping, and a line for ``systemctl status``.

The watchdog is fed from the control process's loop and nowhere else: a loop that hangs is a process that systemd
ends and starts again. Where no service manager listens (no ``NOTIFY_SOCKET``), nothing is sent.

Standard: sd_notify(3), the protocol over ``AF_UNIX`` datagrams.
"""

import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Tells the service manager how the process is.

    Args:
        environ: Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked up.

    Attributes:
        every_s: Pause between two signs of life, seconds: half of what the manager allows; 0 without a watchdog.

    Example:
        >>> Notifier({}).every_s, Notifier({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "30000000"}).every_s
        (0.0, 15.0)
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # "@": the abstract name space
        allowed, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        is_ours = bool(path) and allowed.isdigit() and pid in ("", str(os.getpid()))
        self.every_s = int(allowed) / 2e6 if is_ours else 0.0
        self._due, self._text = 0.0, ""

    def ready(self, text: str) -> None:
        """Say that the start is over."""
        self._text = text
        self._send(f"READY=1\nSTATUS={text}")

    def alive(self, mono: float) -> None:
        """Feed the watchdog if it is time; ``mono`` is now, in monotonic seconds."""
        if self.every_s and mono >= self._due:
            self._due = mono + self.every_s
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say what a person who asks ``systemctl status`` reads, if it is something new."""
        if text != self._text:
            self._text = text
            self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        """A manager that does not listen costs the message, never the agent."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.replace("\r", " ").encode(), self._address)
        except OSError:
            return

# SPDX-License-Identifier: Apache-2.0
"""A bad network cable: a TCP relay on loopback that cuts, delays, and swallows."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable

__all__ = ["Cable"]


class Cable:
    """Relays connections to an address that may move (a restarted server has new ports).

    ``good``: as it comes. ``cut``: connections are reset, new ones closed. ``hole``: connections stand and nothing
    passes in either way, new ones are taken and never answered. ``slow``: each piece waits ``delay_s`` first.

    Args:
        target: Gives host and port.
    """

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.state, self.delay_s = "good", 0.0
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True, name="cable").start()

    def be(self, state: str, delay_s: float = 0.0) -> None:
        """Be in this state from now on; what fell into a hole comes out when it is good again, as TCP has it."""
        self.state, self.delay_s = state, delay_s
        if state == "cut":
            with self._lock:
                ends, self._ends = self._ends, set()
            _close(*ends)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self.be("cut")
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.state == "cut":
                _close(near)
            else:
                threading.Thread(target=self._relay, args=(near,), daemon=True, name="cable-relay").start()

    def _relay(self, near: socket.socket) -> None:
        with self._lock:
            self._ends.add(near)
        try:
            self._wait()
            far = socket.create_connection(self._target(), timeout=5)
        except OSError:
            _close(near)
            return
        far.settimeout(None)
        with self._lock:
            self._ends.add(far)
        try:
            self._pump({near: far, far: near})
        finally:
            with self._lock:
                self._ends -= {near, far}
            _close(near, far)

    def _wait(self) -> None:
        time.sleep(self.delay_s if self.state == "slow" else 0.0)
        while self.state == "hole":
            time.sleep(0.05)

    def _pump(self, other: dict[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                readable, _, _ = select.select(list(other), [], [])
                self._wait()
                for end in readable:
                    data = end.recv(65536)
                    if not data:
                        return
                    other[end].sendall(data)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

# SPDX-License-Identifier: Apache-2.0
"""A network cable that can be pulled: a TCP relay on loopback between one device and the server."""

import contextlib
import select
import socket
import threading

__all__ = ["Wire"]


class Wire:
    """Relays connections to one address until it is cut; while cut, every connection is closed at once.

    The device is told to use ``host:port`` of the wire in place of the server's. TLS runs end to end
    through it, so nothing is weakened: the certificate names 127.0.0.1 either way.

    Example:
        >>> with contextlib.closing(Wire("127.0.0.1", 1)) as wire:
        ...     wire.cut()
        ...     wire.is_cut
        True
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1", int(self._listener.getsockname()[1])
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True, name="wire").start()

    @property
    def is_cut(self) -> bool:
        """True while nothing passes."""
        return self._cut.is_set()

    def cut(self) -> None:
        """Pull the cable: open connections are reset, new ones are closed."""
        self._cut.set()
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _close(*pair)

    def mend(self) -> None:
        """Put the cable back."""
        self._cut.clear()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        self.cut()
        with contextlib.suppress(OSError):  # wakes the accepting thread, then frees the port
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.is_cut:
                _close(near)
                continue
            threading.Thread(target=self._relay, args=(near,), daemon=True, name="wire-relay").start()

    def _relay(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            _close(near)
            return
        far.settimeout(None)
        with self._lock:
            self._pairs.add((near, far))
        try:
            _pump(near, far)
        finally:
            with self._lock:
                self._pairs.discard((near, far))
            _close(near, far)


def _pump(near: socket.socket, far: socket.socket) -> None:
    other = {near: far, far: near}
    with contextlib.suppress(OSError, ValueError):
        while True:
            readable, _, _ = select.select([near, far], [], [])
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

# SPDX-License-Identifier: Apache-2.0
"""Brokers as others run them: a mosquitto of a stranger's settings, and a gate before it that offers less."""

import contextlib
import socket
import subprocess
import threading
import time
from pathlib import Path

from fleet.adapters.broker import find_mosquitto, free_port

UNSPOKEN = b"\x20\x02\x00\x01"
"""CONNACK of MQTT 3.1.1: unacceptable protocol version."""


class Stranger:
    """A mosquitto that the fleet server does not own.

    Args:
        folder: Empty; for its settings and log.
        lines: Its settings.
        port: Where it is waited for.
    """

    def __init__(self, folder: Path, lines: list[str], port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, port
        head = ["per_listener_settings true", "user root", "log_dest stderr", "persistence false"]
        (folder / "mosquitto.conf").write_text("\n".join([*head, *lines]) + "\n")
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", find_mosquitto(), "-c", str(self.folder / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def passwords(folder: Path, **users: str) -> Path:
    """Write a password file of mosquitto's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "passwords"
    path.touch(mode=0o600)
    for user, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", str(path), user, password], check=True, capture_output=True)
    return path


def _first_packet(source: socket.socket) -> bytes:
    data = b""
    while len(data) < 2 or len(data) < 2 + data[1]:  # CONNECT and CONNACK of the tests are short
        more = source.recv(4096)
        if not more:
            return b""
        data += more
    return data


class Gate:
    """A TCP gate before a broker on loopback.

    Args:
        port: The broker's.
        only_old: Refuse MQTT 5 as a broker of 3.1.1 does.
        hangs_up: Refuse it without a word, as some do.
        says: Properties of CONNACK in place of the broker's own (MQTT 5, section 3.2.2.3).
    """

    def __init__(self, port: int, *, only_old: bool = False, hangs_up: bool = False, says: bytes = b"") -> None:
        self._to, self._only_old, self._hangs_up, self._says = port, only_old, hangs_up, says
        self.port = free_port("127.0.0.1")
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=[self._listener.accept()[0]], daemon=True).start()

    def _serve(self, guest: socket.socket) -> None:
        with guest, contextlib.suppress(OSError):
            first = _first_packet(guest)
            if not first or (first[8] == 5 and (self._only_old or self._hangs_up)):
                guest.sendall(UNSPOKEN if first and self._only_old else b"")
                return
            with socket.create_connection(("127.0.0.1", self._to)) as broker:
                broker.sendall(first)
                if self._says and first[8] == 5:
                    _first_packet(broker)
                    body = b"\x00\x00" + bytes([len(self._says)]) + self._says
                    guest.sendall(bytes([0x20, len(body)]) + body)
                back = threading.Thread(target=_pump, args=[broker, guest], daemon=True)
                back.start()
                _pump(guest, broker)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)

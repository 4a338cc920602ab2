# SPDX-License-Identifier: Apache-2.0
"""Telemetry from the broker, in large bites: one thread reads what is there, and sends what is due in one write.

A general client costs some 100 µs a message: several reads from the socket, a lock or two, one write for each answer.
At thousands of batches a second that is all the time there is. This one knows four packets. It subscribes with QoS 1
so that the broker sends no more than it may have in flight, and answers PUBACK at once: a PUBACK acknowledges nothing,
devices wait for ``tm/ack``. When too much waits for the database it reads no further, and the broker's queue grows.
"""

import contextlib
import logging
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from edge_contract.errors import BrokerError
from fleet.adapters import mqtt_frames as frames
from fleet.adapters.broker_answers import refusal
from fleet.adapters.link import Hears, LinkFiles

__all__ = ["SWITCH_S", "Feed"]

_log = logging.getLogger("strop.fleet.feed")

SWITCH_S: Final = 0.0005
"""For ``sys.setswitchinterval``: a thread back from the socket waits that long for one that computes, ten times less
than usual. Reading and storing would otherwise spend most of their time waiting for each other."""

_BITE: Final = 1 << 16
_ANSWERS: Final = 100
"""PUBACKs are sent by so many, far fewer than the broker has in flight, or when there is nothing to read."""
_GATHER_S: Final = 0.002
"""After a wait for the first message: some more come in that time, and one read for many costs less than many."""
_KEEPALIVE_S: Final = 30
_CONNECT_S: Final = 10.0
_LONGEST_WAIT_S: Final = 5.0
_STABLE_S: Final = 10.0


class Feed:
    """A subscription to telemetry that connects again by itself.

    Args:
        tenant: Whose devices.
        files: mTLS identity.
        hears: Which subscription; a group to share it with other workers.
        on_message: Called with (topic, payload, retained) in the feed's thread.
        on_pause: Called when nothing more is there to read at this moment.
    """

    def __init__(
        self,
        tenant: str,
        files: LinkFiles,
        hears: Hears,
        on_message: Callable[[str, bytes, bool], object],
        on_pause: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_pause = on_pause
        self._filters, self._member, self._on_message = hears.filters(tenant), hears.member, on_message
        self._files, self._context, self._level = files, files.context(), files.level
        self._address: tuple[str, int] = ("", 0)
        self._out: list[bytes] = []
        self._lock, self._is_woken = threading.Lock(), False
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._socket: socket.socket | None = None
        self._cutter, self._stopped = frames.Cutter(), threading.Event()
        self._early: list[tuple[int, bytes]] = []
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    @property
    def is_connected(self) -> bool:
        """True while the subscription stands."""
        return self._socket is not None

    def start(self, host: str, port: int) -> None:
        """Connect and subscribe.

        Raises:
            BrokerError: The broker does not answer, or refuses our certificate or the subscription.
        """
        self._address = host, port
        self._connect()
        self._thread.start()

    def stop(self) -> None:
        """Send what is due, disconnect and end the thread."""
        self._stopped.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(_CONNECT_S)
        self._close()
        self._woken.close()
        self._waker.close()

    def acknowledge(self, topic: str, payload: bytes) -> None:
        """Send a message, QoS 0: where it is lost the device sends its batch again, and is told again."""
        frame = frames.publish(topic, payload, level=self._level)
        with self._lock:
            self._out.append(frame)
            if self._is_woken:
                return
            self._is_woken = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # it is full of wake-ups, or closed
            self._waker.send(b".")

    def _run(self) -> None:
        wait_s, since = 0.5, time.monotonic()
        while not self._stopped.is_set():
            try:
                if self._socket is None:
                    self._connect()
                    since = time.monotonic()
                self._pump()
            except (OSError, BrokerError) as error:  # ssl.SSLError is an OSError
                if self._stopped.is_set():
                    return
                _log.warning("lost the broker: %s", error)
                self._close()
                wait_s = 0.5 if time.monotonic() - since > _STABLE_S else min(2 * wait_s, _LONGEST_WAIT_S)
                self._stopped.wait(random.uniform(0.1, wait_s))

    def _connect(self) -> None:
        """Connect to the first node that answers and subscribe."""
        nodes = (self._address, *self._files.others)
        for last, address in enumerate(nodes, 1 - len(nodes)):
            try:
                opened = self._opened(address)
                break
            except BrokerError:
                if not last:
                    raise
            except OSError as error:
                if not last:
                    raise BrokerError(f"no connection to {address[0]}:{address[1]}: {error}") from error
        with self._lock:
            self._out.clear()  # said to a broker that is gone
        self._socket, self._heard, self._sent = opened, time.monotonic(), time.monotonic()

    def _opened(self, address: tuple[str, int]) -> socket.socket:
        files, level = self._files, self._level
        opened = socket.create_connection(address, _CONNECT_S)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                opened = self._context.wrap_socket(opened, server_hostname=address[0])
            self._cutter, self._early = frames.Cutter(), []
            who = frames.connect(self._member, _KEEPALIVE_S, level=level, user=files.user, password=files.password)
            opened.sendall(who)
            self._agreed(opened, frames.CONNACK)
            opened.sendall(frames.subscribe(1, self._filters, 1, level=level))
            self._agreed(opened, frames.SUBACK)
        except BaseException:
            opened.close()
            raise
        return opened

    def _agreed(self, opened: socket.socket, kind: int) -> None:
        """Wait for an answer and look at its reason codes; messages that come with it wait for their turn."""
        has_answered = False
        while not has_answered:
            data = opened.recv(_BITE)
            if not data:
                raise BrokerError("the broker closed the connection", where=self._member, fix="see its log")
            for first, body in self._cutter.feed(data):
                if first & 0xF0 != kind:
                    self._early.append((first, body))
                elif words := refusal(kind, body, self._level):
                    raise BrokerError(f"the broker refuses: {words}", where=self._member, fix="see its log")
                else:
                    has_answered = True

    def _pump(self) -> None:
        opened = self._socket
        assert opened is not None
        opened.settimeout(_CONNECT_S)
        early, self._early, answered = self._early, [], list[bytes]()
        for packet in early:
            self._packet(*packet, answered)
        while not self._stopped.is_set():
            if not _pending(opened) and not self._is_more(opened, answered):
                continue
            for first, body in self._cutter.feed(self._bite(opened)):
                self._packet(first, body, answered)
            if len(answered) >= _ANSWERS or self._is_woken:
                self._flush(opened, answered)
        self._flush(opened, [*answered, frames.disconnect()])

    def _is_more(self, opened: socket.socket, answered: list[bytes]) -> bool:
        """Return at once if there is more to read; else let the listener work, send, and wait for something to do."""
        if select.select([opened], [], [], 0)[0]:
            return True
        self._on_pause()
        self._flush(opened, answered)
        ready = select.select([opened, self._woken], [], [], _KEEPALIVE_S / 3)[0]
        if self._woken in ready:
            self._flush(opened, [])
        self._keep_alive(opened)
        if opened in ready:
            time.sleep(_GATHER_S)
        return opened in ready

    def _bite(self, opened: socket.socket) -> bytes:
        data = opened.recv(_BITE)
        if not data:
            raise BrokerError("the broker closed the connection")
        while len(data) < _BITE and _pending(opened):  # a TLS record holds 16 KB at most
            data += opened.recv(_BITE)
        self._heard = time.monotonic()
        return data

    def _packet(self, first: int, body: bytes, answers: list[bytes]) -> None:
        kind = first & 0xF0
        if kind == frames.DISCONNECT:
            raise BrokerError(f"the broker ends the connection ({body.hex()})")
        if kind != frames.PUBLISH:
            return
        message = frames.read_publish(first, body, level=self._level)
        if message.mid:
            answers.append(frames.puback(message.mid))
        try:
            self._on_message(message.topic, message.payload, message.retain)
        except Exception:  # one message must never end the thread that reads all others
            _log.exception("a message on %s was not taken", message.topic)

    def _flush(self, opened: socket.socket, answers: list[bytes]) -> None:
        with self._lock:
            out, self._out = self._out, []
            if self._is_woken:
                self._is_woken = False
                with contextlib.suppress(OSError):
                    self._woken.recv(64, socket.MSG_DONTWAIT)
        if out or answers:
            opened.sendall(b"".join([*answers, *out]))
            answers.clear()
            self._sent = time.monotonic()

    def _keep_alive(self, opened: socket.socket) -> None:
        now = time.monotonic()
        if now - self._heard > 1.5 * _KEEPALIVE_S:
            raise BrokerError("the broker is silent")
        if now - min(self._sent, self._heard) > _KEEPALIVE_S / 3:
            opened.sendall(frames.PINGREQ)
            self._sent = now

    def _close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.close()


def _pending(opened: socket.socket) -> bool:
    """True if TLS has read more from the socket than it has handed out."""
    return isinstance(opened, ssl.SSLSocket) and bool(opened.pending())

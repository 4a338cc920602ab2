# SPDX-License-Identifier: Apache-2.0
"""Connections of a swarm: many paho clients in one thread over epoll, with the real agent's back-off.

paho's own loop takes a thread for each client; ten thousand of them would measure the machine's scheduler.
"""

import contextlib
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.fleet.swarm.device import Saying, SimDevice
from edge_agent.adapters.mqtt import reconnect_pause

__all__ = ["Seen", "Swarm", "Where"]

_TICK_S: Final = 0.05
_MISC_S: Final = 5.0
_KEEPALIVE_S: Final = 60
_OPENERS: Final = 8
_LOOKS: Final = 8000
"""Looks after devices a second, at most four of each: more would take the processor from what is measured."""


@dataclass(frozen=True)
class Where:
    """A broker's listener; ``tls`` gives a device's TLS context, None for the plain one."""

    host: str
    port: int
    tls: Callable[[str], ssl.SSLContext] | None = None


@dataclass
class _Line:
    device: SimDevice
    where: Where
    client: mqtt.Client | None = None
    fd: int = -1
    is_up: bool = False
    up_since: float = 0.0
    attempt: int = 0
    connect_at: float = 0.0
    leave_at: float = float("inf")
    misc_at: float = 0.0
    interest: int = 0


@dataclass
class Seen:
    """What happened to the connections.

    Attributes:
        attempts, connects: When one was tried, and when one stood; seconds since 1970.
        late_s: How long after its due time the latest attempt of all was made: what the swarm itself could not do.
        tries: Most attempts in a row that failed for any device.
    """

    attempts: list[float] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)
    failures: int = 0
    losses: int = 0
    late_s: float = 0.0
    tries: int = 0


class Swarm:
    """Devices and their connections in one thread.

    Args:
        devices: With where each connects.
        ramp_s: The first connections are spread over so many seconds.
    """

    def __init__(self, devices: list[tuple[SimDevice, Where]], *, ramp_s: float = 10.0) -> None:
        now = time.time()
        self._lines = [_Line(device, where) for device, where in devices]
        for i, line in enumerate(self._lines):
            line.connect_at = now + ramp_s * i / max(len(self._lines), 1)
        self._by_fd: dict[int, _Line] = {}
        self._poll = select.epoll()
        self._stop, self.calm = threading.Event(), threading.Event()
        self._cursor = 0
        # A handshake waits for the broker: done in the loop, each would hold up the words of all other devices.
        self._openers = ThreadPoolExecutor(_OPENERS, "swarm-connect")
        self._opened: queue.SimpleQueue[tuple[_Line, mqtt.Client, bool]] = queue.SimpleQueue()
        self.seen = Seen()
        self._thread = threading.Thread(target=self._run, name="swarm", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Let every device leave without a word, and end the thread."""
        self._stop.set()
        self._thread.join()
        self._openers.shutdown(wait=True, cancel_futures=True)
        for line in self._lines:
            if line.client is not None:
                _vanish(line.client)
        self._poll.close()

    @property
    def online(self) -> int:
        """How many are connected now."""
        return sum(line.is_up for line in self._lines)

    @property
    def unacknowledged(self) -> int:
        """Rows that no ``tm/ack`` has covered yet."""
        return sum(len(line.device.unsent) for line in self._lines)

    def settle(self) -> None:
        """From now on nobody makes telemetry or goes away: what is left is delivered."""
        self.calm.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            deadline = time.time() + _TICK_S
            while (left := deadline - time.time()) > 0:
                for fd, event in self._poll.poll(left, 256):
                    self._ready(self._by_fd.get(fd), event)
            while not self._opened.empty():
                self._take_over(*self._opened.get())
            self._walk(time.time())

    def _ready(self, line: _Line | None, event: int) -> None:
        if line is None or line.client is None:
            return
        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            line.client.loop_read(64)
        self._flush(line)

    def _flush(self, line: _Line) -> None:
        """Write what waits; what the socket does not take yet is asked for when it does."""
        client = line.client
        if client is None:
            return
        while client.want_write():
            if client.loop_write() != mqtt.MQTT_ERR_SUCCESS or client is not line.client:
                break
        wanted = select.EPOLLIN | (select.EPOLLOUT if client.want_write() else 0)
        if line.client is client and line.fd >= 0 and wanted != line.interest:
            line.interest = wanted
            with contextlib.suppress(OSError):
                self._poll.modify(line.fd, wanted)

    def _walk(self, now: float) -> None:
        """Look after a share of the devices: each is seen four times a second, of many each a little less often."""
        share = max(1, int(_TICK_S * min(4 * len(self._lines), _LOOKS)))
        for _ in range(min(share, len(self._lines))):
            self._cursor = (self._cursor + 1) % len(self._lines)
            self._look_after(self._lines[self._cursor], now)

    def _look_after(self, line: _Line, now: float) -> None:
        if line.client is None:
            if not self.calm.is_set():
                line.device.tick(now, is_online=False)
            if now >= line.connect_at:
                self._connect(line, now)
            return
        if line.fd < 0:  # its connection is being opened
            return
        if now >= line.leave_at and not self.calm.is_set():
            self._leave(line, now)
            return
        if line.is_up:
            if self.calm.is_set():
                line.device.next_batch = float("inf")
            self._say(line, line.device.tick(now, is_online=True))
        if now >= line.misc_at:
            line.misc_at = now + _MISC_S
            line.client.loop_misc()
        self._flush(line)

    def _connect(self, line: _Line, now: float) -> None:
        device = line.device
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.name, protocol=mqtt.MQTTv311, userdata=line)
        if line.where.tls is not None:
            client.tls_set_context(line.where.tls(device.name))
        else:
            client.username_pw_set(device.name)
        will = device.will()
        client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect, client.on_subscribe = self._connected, self._subscribed
        client.on_message, client.on_disconnect = self._heard, self._disconnected
        client.on_socket_close = self._closing
        line.client = client
        self.seen.attempts.append(now)
        self.seen.late_s = max(self.seen.late_s, now - line.connect_at)
        self._openers.submit(self._open, line, client)

    def _open(self, line: _Line, client: mqtt.Client) -> None:
        try:
            client.connect(line.where.host, line.where.port, keepalive=_KEEPALIVE_S)
        except OSError:
            self._opened.put((line, client, False))
        else:
            self._opened.put((line, client, True))

    def _take_over(self, line: _Line, client: mqtt.Client, is_open: bool) -> None:  # noqa: FBT001 - of the queue
        now, sock = time.time(), client.socket() if is_open else None
        if sock is None:
            self.seen.failures += 1
            self._gone(line, now)
            return
        line.fd, line.misc_at = sock.fileno(), now + _MISC_S
        self._by_fd[line.fd] = line
        line.interest = select.EPOLLIN
        self._poll.register(line.fd, select.EPOLLIN)
        client.loop_read(64)  # what TLS has read already, no poll will tell
        self._flush(line)

    def _leave(self, line: _Line, now: float) -> None:
        """Half say good-bye, half vanish and leave the word to the broker."""
        client = line.client
        assert client is not None
        if line.device.random.random() < 0.5:
            client.disconnect()
            self._flush(line)
        else:
            _vanish(client)
        self._gone(line, now)
        spell = line.device.temper.offline_s
        line.attempt, line.connect_at = 0, now + line.device.random.expovariate(1 / spell)

    def _gone(self, line: _Line, now: float) -> None:
        if line.is_up:
            line.device.lost()
            self.seen.losses += 1
        else:
            self.seen.tries = max(self.seen.tries, line.attempt + 1)
        self._by_fd.pop(line.fd, None)
        lasted = now - line.up_since if line.is_up else 0.0
        line.client, line.fd, line.is_up, line.leave_at = None, -1, False, float("inf")
        line.attempt, pause = reconnect_pause(line.attempt, lasted, line.device.random.random())
        line.connect_at = now + pause

    def _closing(self, client: mqtt.Client, line: _Line, _sock: Any) -> None:
        if line.client is client and line.fd >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._poll.unregister(line.fd)
            self._by_fd.pop(line.fd, None)
            line.fd = -1

    def _connected(self, client: mqtt.Client, line: _Line, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self.seen.failures += 1
            return
        client.subscribe([(name, 1) for name in line.device.channels()])

    def _subscribed(self, _client: mqtt.Client, line: _Line, _mid: int, _reasons: Any, _properties: Any) -> None:
        now = time.time()
        line.is_up, line.up_since = True, now
        self.seen.connects.append(now)
        temper = line.device.temper
        if temper.online_s:
            line.leave_at = now + line.device.random.expovariate(1 / temper.online_s)
        self._say(line, line.device.connected(now))

    def _heard(self, _client: mqtt.Client, line: _Line, message: mqtt.MQTTMessage) -> None:
        self._say(line, line.device.hear(message.topic, bytes(message.payload), time.time()))

    def _disconnected(self, client: mqtt.Client, line: _Line, _flags: Any, _reason: Any, _properties: Any) -> None:
        if line.client is client:
            self._gone(line, time.time())

    def _say(self, line: _Line, sayings: list[Saying]) -> None:
        for said in sayings:
            if line.client is None:  # it may end while it speaks
                return
            line.client.publish(said.topic, said.payload, qos=1, retain=said.retain)


def _vanish(client: mqtt.Client) -> None:
    """Close the socket without a word, as a power cut does."""
    sock: Any = client.socket()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

# SPDX-License-Identifier: Apache-2.0
"""The link to the broker: one connection at a time, full-jitter back-off, and nothing kept in memory.

paho has a back-off without jitter, a queue that a restart loses, and a client that after some errors never
connects again. So each connection gets a new client; what must not be lost waits in our outbox; and the pause
before the next attempt is ours: uniform between 0 and the cap, which doubles with each failure and falls back
only after a connection that was stable.
"""

import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_contract.errors import BrokerError, StropError
from edge_contract.messages import Death
from edge_contract.topics import DOWN, NOT_EVERYWHERE, topic

__all__ = ["Link", "Listener", "Whose", "full_jitter", "parse_address", "reconnect_pause"]

STABLE_S: Final = 60.0
SPREAD_S: Final = 10.0
"""Ten thousand devices are then a thousand connections a second, about what a broker takes over TLS."""
KEEPALIVE_S: Final = 30
CONNECT_S: Final = 10.0
MAX_PAYLOAD: Final = 1_000_000


def full_jitter(attempt: int, share: float, *, base_s: float = 1.0, cap_s: float = 300.0) -> float:
    """Return the pause before an attempt: share × min(cap, base × 2^attempt), in seconds.

    Args:
        attempt: Failures since the last stable connection, from 0.
        share: A uniform random number in [0, 1).
        base_s: Longest pause after the first failure.
        cap_s: Longest pause ever.

    Example:
        >>> [full_jitter(n, 0.5) for n in (0, 1, 2, 20)]
        [0.5, 1.0, 2.0, 150.0]

    Reference:
        M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return share * min(cap_s, base_s * 2.0 ** min(attempt, 30))


def reconnect_pause(attempt: int, lasted_s: float, share: float, *, cap_s: float = 300.0) -> tuple[int, float]:
    """Return the number of failures in a row, and the pause before the next attempt in seconds.

    A connection that stood for a minute and broke is most likely everybody's: the broker was restarted. The fleet
    then comes back spread over ``SPREAD_S``, and not within a second.

    Args:
        attempt: Failures in a row before this end.
        lasted_s: How long the connection that ended was good; 0 if it never was.
        share: A uniform random number in [0, 1).
        cap_s: Longest pause ever.

    Example:
        >>> reconnect_pause(0, 3600.0, 0.5), reconnect_pause(0, 0.0, 0.5), reconnect_pause(3, 5.0, 0.5)
        ((0, 5.0), (1, 0.5), (4, 4.0))
    """
    if lasted_s >= STABLE_S:
        return 0, full_jitter(0, share, base_s=SPREAD_S, cap_s=cap_s)
    return attempt + 1, full_jitter(attempt, share, cap_s=cap_s)


@dataclass(frozen=True)
class Listener:
    """Who hears of the link; each is called from the link's threads."""

    connected: Callable[[int], None]
    disconnected: Callable[[str], None]
    message: Callable[[str, bytes], None]
    published: Callable[[str], None]


@dataclass(frozen=True)
class Whose:
    """The link's owner: tenant, device, and this process start."""

    tenant: str
    device: str
    boot: str


class _Receipts:
    """Which PUBACK belongs to which token.

    paho calls ``on_publish`` with a lock held that ``publish`` needs, so no lock of ours may be held around
    ``publish``: the PUBACK can be there before its token. Message numbers without a token are remembered for a while.
    """

    def __init__(self, published: Callable[[str], None]) -> None:
        self._published = published
        self._tokens: dict[int, str] = {}
        self._early: deque[int] = deque(maxlen=256)
        self._lock = threading.Lock()

    def clear(self) -> None:
        with self._lock:
            self._tokens.clear()
            self._early.clear()

    def expect(self, mid: int, token: str) -> None:
        with self._lock:
            is_there = mid in self._early
            if not is_there:
                self._tokens[mid] = token
        if is_there:
            self._published(token)

    def confirmed(self, mid: int) -> None:
        with self._lock:
            token = self._tokens.pop(mid, "")
            if not token:
                self._early.append(mid)
        if token:
            self._published(token)


class Link:
    """Keeps a connection to one broker for one device.

    Args:
        whose: Whose link; the boot id goes into the will.
        address: The broker's host and port.
        open_context: Gives TLS, anew for each attempt because a certificate may have been renewed; None is plain.
        listener: Who hears of it.
        cap_s: Longest pause between attempts, in seconds.
    """

    def __init__(
        self,
        whose: Whose,
        address: tuple[str, int],
        open_context: Callable[[], ssl.SSLContext | None],
        listener: Listener,
        *,
        cap_s: float = 300.0,
    ) -> None:
        self._tenant, self._device, self._boot = whose.tenant, whose.device, whose.boot
        self._host, self._port = address
        self._open_context = open_context
        self._listener, self._cap_s = listener, cap_s
        self._random = random.SystemRandom()
        self._prefix = topic(whose.tenant, whose.device, "job/next").removesuffix("job/next")
        self._session = 0
        self._client: paho.Client | None = None
        self._ended = threading.Event()
        self._stop = threading.Event()
        self._receipts = _Receipts(listener.published)
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self) -> None:
        """Begin to connect, for ever, beside the caller."""
        self._thread.start()

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            lasted = self._connect_once()
            attempt, pause = reconnect_pause(attempt, lasted, self._random.random(), cap_s=self._cap_s)
            self._stop.wait(pause)

    def _connect_once(self) -> float:
        """Hold one connection from beginning to end; return how long it was good, in seconds."""
        self._ended.clear()
        self._receipts.clear()  # a new client counts its messages from 1
        self._reason = ""
        self._session += 1
        began: list[float] = []
        client: paho.Client | None = None
        try:
            client = self._new_client(self._session, began)
            client.connect(self._host, self._port, keepalive=KEEPALIVE_S)
        except (OSError, ssl.SSLError, StropError, ValueError) as error:
            self._listener.disconnected(f"no way to {self._host}:{self._port}: {error}")
            _let_go(client)
            return 0.0
        client.loop_start()
        self._ended.wait()
        client.disconnect()
        client.loop_stop()
        _let_go(client)
        self._client = None
        self._listener.disconnected(self._reason)
        return time.monotonic() - began[0] if began else 0.0

    def _new_client(self, session: int, began: list[float]) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, self._device, clean_session=True, reconnect_on_failure=False)
        context = self._open_context()
        if context is not None:
            client.tls_set_context(context)
        client.connect_timeout = CONNECT_S
        will = Death(self._device, self._boot, session).to_bytes()
        client.will_set(self._topic("state/death"), will, qos=1, retain=True)

        def on_connect(_c: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            if reason.is_failure:
                self._end(f"the broker refuses us: {reason}")
                return
            client.subscribe([(self._prefix + channel, 1) for channel in DOWN])

        def on_subscribe(_c: paho.Client, _u: Any, _mid: int, reasons: Any, _p: Any) -> None:
            asked = zip(DOWN, reasons, strict=False)
            refused = [str(r) for channel, r in asked if r.is_failure and channel not in NOT_EVERYWHERE]
            if refused:
                self._end(f"the broker refuses our subscriptions: {refused[0]}")
                return
            began.append(time.monotonic())
            self._client = client
            self._listener.connected(session)

        def on_message(_c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
            if len(message.payload) <= MAX_PAYLOAD and message.topic.startswith(self._prefix):
                self._listener.message(message.topic.removeprefix(self._prefix), bytes(message.payload))

        def on_publish(_c: paho.Client, _u: Any, mid: int, reason: Any, _p: Any) -> None:
            if not reason.is_failure:
                self._receipts.confirmed(mid)

        def on_disconnect(_c: paho.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            # With TLS 1.3 a refused certificate shows only as a connection that ends before it begins.
            unheard = f"{self._host}:{self._port} hung up at once: perhaps it does not know this device's certificate"
            fix = "if it stays so, enrol this device again: strop agent enrol --replace"
            self._end(str(reason) if began or context is None else f"{unheard}; {fix}")

        client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
        client.on_publish, client.on_disconnect = on_publish, on_disconnect
        return client

    def _topic(self, channel: str) -> str:
        return topic(self._tenant, self._device, channel)

    def _end(self, reason: str) -> None:
        self._client = None
        self._reason = self._reason or reason
        self._ended.set()

    def publish(self, channel: str, payload: bytes, *, retain: bool = False, token: str = "") -> bool:
        """Send at QoS 1; False if there is no connection, and then nothing is kept.

        Raises:
            TopicError: A channel that nobody speaks.
        """
        name, client = self._topic(channel), self._client
        if client is None:
            return False
        info = client.publish(name, payload, qos=1, retain=retain)
        if token and info.rc == paho.MQTT_ERR_SUCCESS:
            self._receipts.expect(info.mid, token)
        return info.rc == paho.MQTT_ERR_SUCCESS

    def renew(self, reason: str) -> None:
        """End the present connection, if there is one, and build a new one after the usual pause."""
        if self._client is not None:
            self._end(reason)

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the link; what was published just now has ``timeout_s`` to leave."""
        client = self._client
        self._stop.set()
        if client is not None:
            client.disconnect()  # paho sends what is queued first
        self._ended.set() if client is None else self._ended.wait(timeout_s)
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)


def _let_go(client: paho.Client | None) -> None:
    """Take our callbacks out of a client that ended.

    They hold it as it holds them, and with it two sockets of its own, until the garbage collector comes round: on a bad
    link an agent had dozens of them.
    """
    if client is not None:
        client.on_connect = client.on_subscribe = client.on_message = None
        client.on_publish = client.on_disconnect = None


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        BrokerError: Not of that form.

    Example:
        >>> parse_address("fleet.local:8883"), parse_address("[::1]:1883")
        (('fleet.local', 8883), ('::1', 1883))
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BrokerError(f"'{text}' is no address", where="[network] broker", fix='write "HOST:PORT"')
    return host.strip("[]"), int(port)

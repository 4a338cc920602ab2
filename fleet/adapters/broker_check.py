# SPDX-License-Identifier: Apache-2.0
"""What a broker that others run offers, tried out and not only asked: QoS 1, retained, wildcards, size, shared.

A broker of MQTT 5 says in CONNACK what it lacks (section 3.2.2.3 of the standard); one of 3.1.1 cannot, and either may
forbid by its access list what it offers. So two guests talk to each other below ``strop/v1/<tenant>/.check``, which no
device may be named, and what arrives counts.
"""

import contextlib
import queue
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_contract.batches import MAX_BATCH_BYTES
from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import BrokerError
from edge_contract.topics import ROOT
from fleet.adapters.broker_login import LinkFiles

__all__ = ["Offer", "examine"]

_WAIT_S: Final = 5.0
_SHARED: Final = 6
_UNSPOKEN: Final = "Unsupported protocol version"
_GONE: Final = "it closed the connection without a word"

Said = tuple[str, bytes, bool, int]


@dataclass(frozen=True)
class Offer:
    """What a broker does for us.

    Attributes:
        level: The highest version of MQTT that it speaks: 5, or 4 for 3.1.1.
        qos1, wildcard, retained, large: What the fleet cannot do without; large is a message of 100 KB.
        shared: Shared subscriptions, which only workers need.
    """

    level: int
    qos1: bool
    wildcard: bool
    retained: bool
    large: bool
    shared: bool

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it cannot do and must, in words."""
        wanted = {
            "wildcard subscriptions": self.wildcard,
            "messages at QoS 1": self.qos1,
            "retained messages": self.retained,
            f"messages of {MAX_BATCH_BYTES // 1000} KB": self.large,
        }
        return tuple(words for words, is_there in wanted.items() if not is_there)

    @property
    def version(self) -> str:
        """MQTT's version as people write it."""
        return "5" if self.level >= 5 else "3.1.1"

    def to_json(self) -> dict[str, Any]:
        found = {"mqtt": self.version, "qos1": self.qos1, "wildcard": self.wildcard, "retained": self.retained}
        return {**found, "large": self.large, "shared": self.shared, "lacks": list(self.lacks)}


class _RefusedError(BrokerError):
    """The broker answered CONNECT with no."""


class _Guest:
    """One connection that says and hears a few messages."""

    def __init__(self, address: tuple[str, int], files: LinkFiles, level: int) -> None:
        self.heard: queue.Queue[Said] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        name = f"{SERVER_NAME}-check-{secrets.token_hex(4)}"
        protocol = mqtt.MQTTv5 if level >= 5 else mqtt.MQTTv311
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, reconnect_on_failure=False)
        if (context := files.context()) is not None:
            client.tls_set_context(context)
        if files.user:
            client.username_pw_set(files.user, files.password or None)
        client.on_connect = lambda _c, _d, _f, reason, properties: self._answers.put((reason, properties))
        client.on_subscribe = lambda _c, _d, _mid, reasons, _p: self._answers.put(reasons)
        client.on_message = lambda _c, _d, m: self.heard.put((m.topic, bytes(m.payload), m.retain, m.qos))
        client.on_disconnect = lambda *_: self._answers.put(None)
        self.client, self._where = client, f"{address[0]}:{address[1]}"
        try:
            _greet(address, context)  # before paho does, which leaves a socket behind where TLS fails
            client.connect(*address, keepalive=30)
        except ssl.SSLCertVerificationError as error:
            fix = "give broker_ca, or let the broker show a certificate of 'strop fleet broker files'"
            what = f"its certificate is not trusted: {error.verify_message}"
            raise BrokerError(what, where=self._where, fix=fix) from error
        except OSError as error:
            raise BrokerError(f"does not answer: {error}", where=self._where) from error
        client.loop_start()

    def welcome(self) -> Any:
        """Return the properties of CONNACK, None where there are none.

        Raises:
            BrokerError: The broker refuses us.
        """
        answer = self._answer()
        if answer is None:
            raise _RefusedError(_GONE, where=self._where, fix="see its log: certificate, user, version of MQTT")
        reason, properties = answer
        if reason.is_failure:
            fix = "see broker_user, broker_password_file and broker_certificate"
            raise _RefusedError(f"refuses the server: {reason}", where=self._where, fix=fix)
        return properties

    def _answer(self) -> Any:
        try:
            return self._answers.get(timeout=_WAIT_S)
        except queue.Empty:
            return None

    def subscribe(self, name: str) -> int:
        """Return the granted QoS, -1 if it was refused."""
        self.client.subscribe(name, 1)
        reasons = self._answer()
        return -1 if not reasons or reasons[0].is_failure else int(reasons[0].value)

    def unsubscribe(self, name: str) -> None:
        """End a subscription; what was under way may still come."""
        self.client.unsubscribe(name)

    def say(self, name: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1."""
        self.client.publish(name, payload, qos=1, retain=retain)

    def hears(self, accept: Callable[[Said], bool]) -> bool:
        """Return True as soon as something fit comes."""
        deadline = time.monotonic() + _WAIT_S
        while (left := deadline - time.monotonic()) > 0 and self.client.is_connected():
            with contextlib.suppress(queue.Empty):
                if accept(self.heard.get(timeout=min(left, 0.2))):
                    return True
        return False

    def leave(self) -> None:
        """Disconnect and end the thread."""
        self.client.on_disconnect = None
        self.client.disconnect()
        self.client.loop_stop()


def _greet(address: tuple[str, int], context: ssl.SSLContext | None) -> None:
    """Open a connection and close it again; raises OSError."""
    with socket.create_connection(address, _WAIT_S) as plain:
        if context is not None:
            with context.wrap_socket(plain, server_hostname=address[0]):
                pass


def examine(address: tuple[str, int], files: LinkFiles, tenant: str) -> Offer:
    """Try a broker out and return what it offers.

    Args:
        address: Host and port.
        files: How to reach it; ``level`` is the highest version that is tried.
        tenant: Below whose topics the guests talk.

    Raises:
        BrokerError: It does not answer, is not who it should be, or refuses us.
    """
    with contextlib.ExitStack() as stack:
        level, first, told = _welcomed(stack, address, files)
        second = stack.enter_context(_guest(address, files, level))
        second.welcome()
        place = f"{ROOT}/{tenant}/.check/{secrets.token_hex(6)}"
        granted = second.subscribe(f"{ROOT}/{tenant}/.check/+") if _has(told, "WildcardSubscriptionAvailable") else -1
        wildcard = granted >= 0
        if not wildcard:
            granted = second.subscribe(place)
        qos1 = granted == 1 and _has(told, "MaximumQoS") and _arrives(first, second, place, b"1")
        large = qos1 and _arrives(first, second, place, bytes(MAX_BATCH_BYTES))
        retained = _has(told, "RetainAvailable") and first.client.is_connected() and _is_kept(first, second, place)
        shared = _has(told, "SharedSubscriptionAvailable") and qos1 and _is_shared(first, second, place)
        return Offer(level, qos1, wildcard, retained, large, shared)


def _welcomed(stack: contextlib.ExitStack, address: tuple[str, int], files: LinkFiles) -> tuple[int, _Guest, Any]:
    """Return the version that both speak, the guest that spoke it, and what it was told."""
    for level in (5, 4) if files.level >= 5 else (4,):
        guest = stack.enter_context(_guest(address, files, level))
        try:
            return level, guest, guest.welcome()
        except _RefusedError as error:
            if level == 4 or not (_GONE in error.what or _UNSPOKEN in error.what):
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _guest(address: tuple[str, int], files: LinkFiles, level: int) -> Iterator[_Guest]:
    guest = _Guest(address, files, level)
    try:
        yield guest
    finally:
        guest.leave()


def _has(told: Any, name: str) -> bool:
    """Return what CONNACK says about a feature; what is not said is there (MQTT 5, 3.2.2.3)."""
    return bool(getattr(told, name, 1))


def _arrives(speaker: _Guest, listener: _Guest, name: str, payload: bytes) -> bool:
    speaker.say(name, payload)
    return listener.hears(lambda said: said[:2] == (name, payload) and said[3] == 1)


def _is_kept(speaker: _Guest, late: _Guest, place: str) -> bool:
    """A retained message is there for who comes later."""
    name = f"{place}/kept"
    info = speaker.client.publish(name, b"kept", qos=1, retain=True)
    with contextlib.suppress(RuntimeError, ValueError):
        info.wait_for_publish(_WAIT_S)
    is_kept = late.subscribe(name) >= 0 and late.hears(lambda said: said[0] == name and said[2])
    speaker.say(name, b"", retain=True)
    return is_kept


def _is_shared(first: _Guest, second: _Guest, place: str) -> bool:
    """Each message goes to one of two members, and to one only."""
    name = f"{place}/shared"
    filters = f"$share/strop-check/{name}"
    if min(first.subscribe(filters), second.subscribe(filters)) < 0:
        return False
    for i in range(_SHARED):
        first.say(name, b"%d" % i)
    found: list[bytes] = []
    deadline = time.monotonic() + _WAIT_S
    while len(found) < _SHARED and time.monotonic() < deadline:
        found += _drained(first, name) + _drained(second, name)
        time.sleep(0.01)
    time.sleep(0.1)  # a second copy would come now
    found += _drained(first, name) + _drained(second, name)
    return sorted(found) == [b"%d" % i for i in range(_SHARED)]


def _drained(guest: _Guest, name: str) -> list[bytes]:
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            said = guest.heard.get_nowait()
            if said[0] == name:
                found.append(said[1])
    return found

# SPDX-License-Identifier: Apache-2.0
"""The few MQTT packets that a feed of telemetry needs, as bytes; level 5 is MQTT 5, level 4 is 3.1.1.

MQTT Version 5.0 (OASIS Standard, 7 March 2019): 2.1 fixed header, 3.1 CONNECT, 3.3 PUBLISH, 3.4 PUBACK, 3.8 SUBSCRIBE.
Version 3.1.1 (29 October 2014) has the same packets without properties.
"""

import struct
from typing import Final, NamedTuple

from edge_contract.errors import BrokerError

__all__ = [
    "CONNACK",
    "DISCONNECT",
    "PINGREQ",
    "PUBLISH",
    "SUBACK",
    "Cutter",
    "Publish",
    "connect",
    "disconnect",
    "puback",
    "publish",
    "read_publish",
    "subscribe",
]

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
SUBACK: Final = 0x90
DISCONNECT: Final = 0xE0
PINGREQ: Final = b"\xc0\x00"
_MAX_PACKET: Final = 4_000_000
_NO_PROPERTIES: Final = b"\x00"
_CLEAN_START: Final = 2


class Publish(NamedTuple):
    """One message that came."""

    topic: str
    payload: bytes
    mid: int
    retain: bool


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _varint(len(body)) + body


def connect(client_id: str, keepalive_s: int, *, level: int = 5, user: str = "", password: str = "") -> bytes:
    """Return CONNECT with a clean start and no session afterwards."""
    flags = _CLEAN_START | 0x80 * bool(user) | 0x40 * bool(password)
    head = _text("MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive_s)
    who = b"".join(_text(one) for one in (client_id, *filter(None, (user, password))))
    return _packet(0x10, head + _properties(level) + who)


def subscribe(mid: int, filters: list[str], qos: int, *, level: int = 5) -> bytes:
    """Return SUBSCRIBE for some filters."""
    wanted = b"".join(_text(one) + bytes([qos]) for one in filters)
    return _packet(0x82, struct.pack("!H", mid) + _properties(level) + wanted)


def _properties(level: int) -> bytes:
    return _NO_PROPERTIES if level >= 5 else b""


def publish(topic: str, payload: bytes, *, level: int = 5) -> bytes:
    r"""Return PUBLISH with QoS 0.

    Example:
        >>> publish("a/b", b"x")
        b'0\x07\x00\x03a/b\x00x'
    """
    return _packet(PUBLISH, _text(topic) + _properties(level) + payload)


def puback(mid: int) -> bytes:
    r"""Return PUBACK: taken.

    Example:
        >>> puback(258)
        b'@\x02\x01\x02'
    """
    return b"\x40\x02" + struct.pack("!H", mid)


def disconnect() -> bytes:
    """Return DISCONNECT: on purpose."""
    return b"\xe0\x00"


def read_publish(first: int, body: bytes, *, level: int = 5) -> Publish:
    """Return the message in a PUBLISH packet.

    Raises:
        BrokerError: It is malformed.

    Example:
        >>> read_publish(0x31, publish("a/b", b"x")[2:])
        Publish(topic='a/b', payload=b'x', mid=0, retain=True)
    """
    try:
        at = 2 + (body[0] << 8 | body[1])
        topic, mid = body[2:at].decode(), 0
        if first & 0x06:
            mid, at = body[at] << 8 | body[at + 1], at + 2
        if level < 5:
            return Publish(topic, body[at:], mid, bool(first & 1))
        if not body[at]:  # no properties: nearly every message
            return Publish(topic, body[at + 1 :], mid, bool(first & 1))
        length, shift = 0, 0
        while (digit := body[at]) & 0x80 and shift < 21:
            length, shift, at = length | (digit & 0x7F) << shift, shift + 7, at + 1
        at += 1 + (length | (digit & 0x7F) << shift)
        return Publish(topic, body[at:], mid, bool(first & 1))
    except (IndexError, UnicodeDecodeError) as error:
        raise BrokerError("the broker sent a malformed message") from error


class Cutter:
    r"""Cuts a stream of bytes into packets (first byte, body).

    Example:
        >>> cutter = Cutter()
        >>> cutter.feed(puback(1)[:3]), cutter.feed(puback(1)[3:])
        ([], [(64, b'\x00\x01')])
    """

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the packets that are complete now.

        Raises:
            BrokerError: A length that no packet has.
        """
        data = self._data + data if self._data else data
        found, at, size = list[tuple[int, bytes]](), 0, len(data)
        while size - at > 2:
            low, high = data[at + 1], data[at + 2]
            if not low & 0x80:  # nearly every packet: a length of one byte or two
                body, end = at + 2, at + 2 + low
            elif not high & 0x80:
                body, end = at + 3, at + 3 + (low & 0x7F | high << 7)
            elif (head := _head(data, at)) is None:
                break
            else:
                body, end = head
            if end > size:
                break
            found.append((data[at], data[body:end]))
            at = end
        if size - at == 2 and not data[at + 1]:  # a packet without a body
            found.append((data[at], b""))
            at = size
        self._data = data[at:]
        return found


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the body of the packet at a place begins and ends, None if that is not known yet."""
    length = 0
    for shift in (0, 7, 14, 21):
        at += 1
        if at >= len(data):
            return None
        length |= (data[at] & 0x7F) << shift
        if not data[at] & 0x80:
            if length > _MAX_PACKET:
                break
            return at + 1, at + 1 + length
    raise BrokerError("the broker sent a packet without end")

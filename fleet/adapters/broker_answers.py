# SPDX-License-Identifier: Apache-2.0
"""What a broker answers to CONNECT and SUBSCRIBE: an empty text, or why it refuses, in words.

MQTT 5.0, tables 3-1 (CONNACK) and 3-8 (SUBACK); MQTT 3.1.1, table 3.1 (CONNACK) and section 3.9.3 (SUBACK).
"""

from typing import Final

from edge_contract.errors import BrokerError
from fleet.adapters.mqtt_frames import CONNACK

__all__ = ["is_unspoken", "refusal"]

_OLD: Final = {
    1: "it does not speak this version of MQTT",
    2: "it does not take this client id",
    3: "it is not available",
    4: "wrong user name or password",
    5: "not authorised",
}
_NEW: Final = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x84: "it does not speak this version of MQTT",
    0x85: "it does not take this client id",
    0x86: "wrong user name or password",
    0x87: "not authorised",
    0x88: "it is not available",
    0x89: "it is busy",
    0x8A: "banned",
    0x8F: "it does not take this topic filter",
    0x97: "quota exceeded",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "it has no shared subscriptions",
    0x9F: "connection rate exceeded",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no wildcard subscriptions",
}


def refusal(kind: int, body: bytes, level: int) -> str:
    r"""Return why an answer refuses us, empty if it does not.

    Args:
        kind: ``CONNACK`` or ``SUBACK``.
        body: The packet without its fixed header.
        level: 5, or 4 for MQTT 3.1.1.

    Raises:
        BrokerError: The answer is cut short.

    Example:
        >>> refusal(0x20, b"\0\0\0", 5), refusal(0x20, b"\0\x86\0", 5), refusal(0x90, b"\0\1\1\x80", 4)
        ('', 'wrong user name or password', 'unspecified error')
    """
    try:
        if kind == CONNACK:
            codes, known = body[1:2], _NEW if level >= 5 and len(body) > 2 else _OLD
            bad = [code for code in codes if code]
        else:
            codes, known = body[2 + (_properties(body, 2) if level >= 5 else 0) :], _NEW
            bad = [code for code in codes if code >= 0x80]
        if not codes:
            raise IndexError
    except IndexError as error:
        raise BrokerError("the broker sent a malformed answer") from error
    return known.get(bad[0], f"reason {bad[0]:#04x}") if bad else ""


def is_unspoken(body: bytes) -> bool:
    """True if a CONNACK says that the broker does not speak our version of MQTT, in its own version's words."""
    return body[1:2] in (b"\x01", b"\x84")


def _properties(body: bytes, at: int) -> int:
    """Return how many bytes the properties take, with their length before them."""
    length, size = 0, 0
    while True:
        digit = body[at + size]
        length |= (digit & 0x7F) << 7 * size
        size += 1
        if not digit & 0x80 or size == 4:
            return size + length

# SPDX-License-Identifier: Apache-2.0
"""Brokers by URL: ``mqtts://host:8883``; several for the nodes of a cluster, tried in turn."""

import re
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import UsageError

__all__ = ["PORTS", "BrokerUrls", "read_address", "read_urls"]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""Ports that IANA gave to MQTT without and with TLS."""

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?:(?P<user>[^@/]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@,]+)(?::(?P<port>\d{1,5}))?/?"
)
_FORM: Final = "write mqtts://HOST:PORT, several with commas between them"


@dataclass(frozen=True)
class BrokerUrls:
    """Where a broker's nodes answer.

    Attributes:
        addresses: Host and port of each node, in the order in which they are tried.
        is_tls: ``mqtts``.
    """

    addresses: tuple[tuple[str, int], ...]
    is_tls: bool

    def __str__(self) -> str:
        scheme = "mqtts" if self.is_tls else "mqtt"
        return ",".join(f"{scheme}://{_bracketed(host)}:{port}" for host, port in self.addresses)


def read_urls(text: str, where: str = "broker") -> BrokerUrls:
    """Return the addresses in a list of URLs.

    Raises:
        UsageError: No URL, another scheme, TLS for some and not for others, or a user name or password inside: a
            command line and a settings file are read by many, so secrets have places of their own.

    Example:
        >>> read_urls("mqtts://a.example, mqtts://[::1]:8884")
        BrokerUrls(addresses=(('a.example', 8883), ('::1', 8884)), is_tls=True)
        >>> str(read_urls("mqtt://b"))
        'mqtt://b:1883'
    """
    found = [_read(part, where) for part in text.replace(",", " ").split()]
    if not found:
        raise UsageError("names no broker", where=where, fix=_FORM)
    schemes = {scheme for scheme, _ in found}
    if len(schemes) > 1:
        raise UsageError("mixes mqtt:// and mqtts://", where=where, fix="give all nodes the same scheme")
    return BrokerUrls(tuple(dict.fromkeys(address for _, address in found)), schemes == {"mqtts"})


def _read(url: str, where: str) -> tuple[str, tuple[str, int]]:
    match = _URL.fullmatch(url)
    if match is None or match["scheme"] not in PORTS:
        shown = re.sub(r"//[^@/]*@", "//…@", url)[:80]
        raise UsageError(f"{shown!r} is no broker's URL", where=where, fix=_FORM)
    if match["user"] is not None:
        fix = "set broker_user and broker_password_file in fleet.toml, or STROP_BROKER_USER and STROP_BROKER_PASSWORD"
        raise UsageError(f"a broker's URL holds no secrets ({match['host']})", where=where, fix=fix)
    return match["scheme"], (_host(match["host"]), _port(match["port"] or str(PORTS[match["scheme"]]), where))


def read_address(text: str, where: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``.

    Raises:
        UsageError: Another form.

    Example:
        >>> read_address("mqtt.example.org:8883", "device_broker")
        ('mqtt.example.org', 8883)
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{text!r} is not HOST:PORT", where=where)
    return _host(host), _port(port, where)


def _host(text: str) -> str:
    return text.strip("[]")


def _port(text: str, where: str) -> int:
    if not 0 < int(text) < 65536:
        raise UsageError(f"{text} is not a port", where=where)
    return int(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

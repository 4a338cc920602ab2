# SPDX-License-Identifier: Apache-2.0
"""The only place that spells an MQTT topic, both ways.

::

    strop/v1/<tenant>/<device>/state/birth       up    retained, QoS 1
                              /state/death       up    retained, QoS 1, the will
                              /twin/desired      down  retained, QoS 1, versioned
                              /twin/reported     up    retained, QoS 1; also the heartbeat
                              /job/next          down  retained, QoS 1, signed
                              /job/next/<model>  down  the same for one of several models
                              /job/software      down  the same for the agent's own software
                              /job/<id>/status   up    QoS 1
                              /cmd/<type>/<id>   down  QoS 1, result on …/result (up)
                              /tm/<class>        up    QoS 1, batches of at most 100 KB
                              /tm/ack            down  QoS 0, after the server's commit
                              /log/<id>          up    QoS 1, chunks of at most 100 KB
"""

import re
from dataclasses import dataclass
from typing import Final

from edge_contract.errors import TopicError

__all__ = ["CHANNELS", "DOWN", "NOT_EVERYWHERE", "ROOT", "UP", "Topic", "is_name", "parse", "server_filters", "topic"]

ROOT: Final = "strop/v1"

UP: Final = ("state/birth", "state/death", "twin/reported", "job/+/status", "cmd/+/+/result", "tm/+", "log/+")
DOWN: Final = ("twin/desired", "job/next", "job/next/+", "job/software", "cmd/+/+", "tm/ack")
NOT_EVERYWHERE: Final = ("job/next/+", "job/software")
"""Of ``DOWN``, what a server of the version before does not speak: a broker may refuse it, and nothing is lost."""
CHANNELS: Final = UP + DOWN
"""What can be said, as MQTT filters below ``<tenant>/<device>``. ``tm/ack`` is the server's alone."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


@dataclass(frozen=True)
class Topic:
    """One parsed topic: whose it is, and the channel below the device's level."""

    tenant: str
    device: str
    channel: str

    def __str__(self) -> str:
        return f"{ROOT}/{self.tenant}/{self.device}/{self.channel}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The channel's levels, such as ``("job", "01J…", "status")``."""
        return tuple(self.channel.split("/"))


def is_name(text: str) -> bool:
    """True if text may stand in a topic as a tenant, a device, a class or an id.

    Example:
        >>> is_name("pi-01"), is_name("a/b"), is_name("+")
        (True, False, False)
    """
    return _NAME.match(text) is not None


def _matches(channel: str, pattern: str) -> bool:
    have, want = channel.split("/"), pattern.split("/")
    return len(have) == len(want) and all(w in ("+", h) for h, w in zip(have, want, strict=True))


def topic(tenant: str, device: str, channel: str) -> str:
    """Return the full topic of a channel of a device.

    Raises:
        TopicError: A name that may not stand in a topic, or a channel that nobody speaks.

    Example:
        >>> topic("default", "pi-01", "tm/drift")
        'strop/v1/default/pi-01/tm/drift'
    """
    for kind, name in (("tenant", tenant), ("device", device)):
        if not is_name(name):
            fix = "use letters, digits, '.', '_' and '-', at most 63"
            raise TopicError(f"{name!r} is not a {kind} name", fix=fix)
    if not all(is_name(part) for part in channel.split("/")):
        raise TopicError(f"{channel!r} is not a channel name")
    if not any(_matches(channel, pattern) for pattern in CHANNELS):
        raise TopicError(f"nobody speaks on channel {channel!r}", fix=f"use one of {', '.join(CHANNELS)}")
    return f"{ROOT}/{tenant}/{device}/{channel}"


def parse(text: str) -> Topic:
    """Return the parts of a full topic.

    Raises:
        TopicError: Another root, another protocol version, or a channel that nobody speaks.

    Example:
        >>> parse("strop/v1/default/pi-01/job/01J/status").parts
        ('job', '01J', 'status')
    """
    levels = text.split("/")
    if levels[:2] != ROOT.split("/") or len(levels) < 5:
        raise TopicError(f"{text[:80]!r} is not below {ROOT}/<tenant>/<device>/")
    found = Topic(levels[2], levels[3], "/".join(levels[4:]))
    topic(found.tenant, found.device, found.channel)
    return found


def server_filters(tenant: str) -> tuple[str, ...]:
    """Return the subscriptions by which a server hears all devices of a tenant.

    ``tm/+`` also matches the server's own ``tm/ack``; the server drops those by name.

    Example:
        >>> server_filters("default")[0]
        'strop/v1/default/+/state/birth'
    """
    return tuple(f"{ROOT}/{tenant}/+/{channel}" for channel in UP)

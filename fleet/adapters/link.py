# SPDX-License-Identifier: Apache-2.0
"""The server's own connection to the broker: hears all devices of a tenant, and publishes for them.

A worker's connection is a member of a shared subscription (MQTT 5): the broker gives each batch to one of them.
Telemetry is subscribed class by class, because ``tm/+`` would bring our own acknowledgements back.
"""

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_contract.batches import CLASSES
from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import BrokerError
from edge_contract.topics import server_filters
from fleet.adapters.broker_login import LinkFiles

__all__ = ["Hears", "LinkFiles", "ServerLink"]

_log = logging.getLogger("strop.fleet.link")
_CONNECT_S: Final = 10.0
_KEEPALIVE_S: Final = 30

OnMessage = Callable[[str, bytes, bool], None]


@dataclass(frozen=True)
class Hears:
    """What one of the server's connections listens to.

    Attributes:
        state: Births, deaths, twins, jobs and commands.
        telemetry: Batches.
        group: Name of a shared subscription; empty for a connection that hears everything by itself.
        member: This connection's client id in that group.

    Example:
        >>> Hears(state=False, group="ingest", member="server-1").filters("default")[0]
        '$share/ingest/strop/v1/default/+/tm/metric'
    """

    state: bool = True
    telemetry: bool = True
    group: str = ""
    member: str = SERVER_NAME

    def filters(self, tenant: str) -> list[str]:
        """Return the subscriptions."""
        every = server_filters(tenant)
        batches = [f"{one[:-1]}{cls}" for one in every if one.endswith("/tm/+") for cls in CLASSES]
        found = [one for one in every if self.state and not one.endswith("/tm/+")] + batches * self.telemetry
        return [f"$share/{self.group}/{one}" if self.group else one for one in found]


class ServerLink:
    """A paho client in its own thread; connects again by itself after the broker went away.

    Args:
        tenant: Whose devices to hear.
        files: mTLS identity.
        on_message: Called with (topic, payload, retained) in paho's thread.
        on_ready: Called after each (re)connection, when the subscriptions stand.
        hears: What to listen to; all of it unless workers share the telemetry.
    """

    def __init__(
        self,
        tenant: str,
        files: LinkFiles,
        *,
        on_message: OnMessage,
        on_ready: Callable[[], None],
        hears: Hears | None = None,
    ) -> None:
        self._tenant, self._on_message, self._on_ready = tenant, on_message, on_ready
        self._ready, hears = threading.Event(), hears or Hears()
        self._filters = [(topic, 1) for topic in hears.filters(tenant)]
        self._files, self._context, self._address = files, files.context(), ("", 0)
        protocol = mqtt.MQTTv5 if hears.group and files.level >= 5 else mqtt.MQTTv311
        self._client = self._made(hears.member, protocol)
        self._client.reconnect_delay_set(1, 5)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = self._connected
        self._client.on_subscribe = self._subscribed
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._heard

    @property
    def is_connected(self) -> bool:
        """True while the broker hears us."""
        return self._client.is_connected()

    def start(self, host: str, port: int) -> None:
        """Connect and wait until the subscriptions stand.

        Raises:
            BrokerError: The broker does not answer, or refuses our certificate.
        """
        self._address = host, port
        self._connect(self._client)
        if self._files.others:
            self._client.on_pre_connect = self._another()
        self._client.loop_start()
        if not self._ready.wait(_CONNECT_S):
            self.stop()
            raise BrokerError(f"{host}:{port} took no subscription within {_CONNECT_S:.0f} s", fix="see its log")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the broker, QoS 1; without a connection paho keeps it until there is one."""
        self._client.publish(topic, payload, qos=1, retain=retain)

    def acknowledge(self, topic: str, payload: bytes) -> None:
        """Send an acknowledgement, QoS 0: where it is lost the device sends its batch again, and is told again."""
        self._client.publish(topic, payload, qos=0)

    def take_over(self, client_id: str) -> None:
        """Connect once under a device's client id: the broker then ends the connection that has it (MQTT 3.1.4)."""
        client = self._made(client_id, mqtt.MQTTv311)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        try:
            self._connect(client)
        except BrokerError as error:  # it is down: nobody is connected to it either
            _log.warning("no connection of '%s' to end: %s", client_id, error)
            return
        client.loop_start()
        connected.wait(_CONNECT_S)
        client.disconnect()
        client.loop_stop()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _made(self, client_id: str, protocol: Any) -> mqtt.Client:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        if self._context is not None:
            client.tls_set_context(self._context)
        if self._files.user:
            client.username_pw_set(self._files.user, self._files.password or None)
        return client

    def _connect(self, client: mqtt.Client) -> None:
        """Connect to the first node that answers."""
        nodes = (self._address, *self._files.others)
        for last, (host, port) in enumerate(nodes, 1 - len(nodes)):
            try:
                client.connect(host, port, keepalive=_KEEPALIVE_S)
                return
            except OSError as error:  # ssl.SSLError is one
                if not last:
                    raise BrokerError(f"no connection to {host}:{port}: {error}") from error

    def _another(self) -> Callable[[mqtt.Client, Any], None]:
        """Return what lets each new attempt of paho's go to the next node."""
        nodes = itertools.cycle((self._address, *self._files.others))
        return lambda client, _data: client.connect_async(*next(nodes), keepalive=_KEEPALIVE_S)

    def _connected(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            _log.error("the broker refused the server: %s", reason)
            return
        client.subscribe(self._filters)

    def _subscribed(self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            _log.error("the broker refused a subscription: %s", reasons)
            return
        self._ready.set()
        try:
            self._on_ready()
        except Exception:
            _log.exception("republishing failed")

    def _disconnected(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            _log.warning("lost the broker: %s", reason)

    def _heard(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            self._on_message(message.topic, bytes(message.payload), message.retain)
        except Exception:  # one message must never end the thread that reads all others
            _log.exception("a message on %s was not taken", message.topic)

# SPDX-License-Identifier: Apache-2.0
"""Inputs that come as messages on an MQTT topic: .npy files, pictures, or JSON lists of numbers."""

import importlib
import itertools
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.array_bytes import MAGIC, from_npy
from edge_agent.runner.pictures import decode
from edge_agent.runner.sources.base import Pushed, Taken, read_spec
from edge_contract.errors import DataError, MissingDependencyError, StropError, UsageError

__all__ = ["MqttSource", "client", "open_spec"]

Array = NDArray[Any]
_WAITING: Final = 8
_KEPT: Final = 1000
"""Messages that paho keeps while the broker is away; it knows no limit by itself."""
MAX_MESSAGE: Final = 8 * 1024 * 1024


def client(name: str, address: str) -> Any:
    """Return a paho client that connects by itself, again and again; its loop runs already.

    Args:
        name: For its id.
        address: ``host:port``.

    Raises:
        MissingDependencyError: paho is not installed.
        UsageError: No such address.
    """
    try:
        paho = importlib.import_module("paho.mqtt.client")
    except ImportError as error:
        raise MissingDependencyError("paho-mqtt is not installed", fix="pip install 'strop[agent]'") from error
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"broker {address!r}", where=name, fix='write broker = "127.0.0.1:1883"')
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, reconnect_on_failure=True)
    made.reconnect_delay_set(1, 60)
    made.max_queued_messages_set(_KEPT)
    made.connect_async(host, int(port))
    made.loop_start()
    return made


class MqttSource(Pushed):
    """Subscribes to a topic; the newest messages wait, older ones are counted as lost."""

    def __init__(self, name: str, broker: str, topic: str, wake: Callable[[], None]) -> None:
        super().__init__(name, wake, room=_WAITING, keeps_newest=True)
        self._numbers, self._topic = itertools.count(), topic
        self._client = client(name, broker)
        self._client.on_message = self._hear
        self._client.on_connect = lambda made, *_: made.subscribe(topic, qos=1)
        if self._client.is_connected():  # it may have been quicker than the line above
            self._client.subscribe(topic, qos=1)

    def _hear(self, _client: Any, _user: Any, message: Any) -> None:
        try:
            raw: Any = _array(message.payload)
        except StropError as error:
            raw = str(error)  # no array: refused and counted under its number
        self.push(Taken(f"{self.name}:{next(self._numbers)}", raw))

    def close(self) -> None:
        super().close()
        self._client.disconnect()
        self._client.loop_stop()


def _array(payload: bytes) -> Array:
    if len(payload) > MAX_MESSAGE:
        raise DataError(f"{len(payload)} bytes, more than {MAX_MESSAGE}", where="message")
    if payload.startswith(MAGIC):
        return from_npy(payload)
    if not payload.lstrip().startswith(b"["):
        return decode(payload, where="message")
    try:
        found = np.asarray(json.loads(payload))
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON list: {error}"[:200], where="message") from error
    if found.dtype.kind == "i" and found.size and found.min() >= 0 and found.max() <= 255:
        return found.astype(np.uint8)
    return found.astype(np.float32) if found.dtype.kind in "if" else found


def open_spec(name: str, spec: dict[str, Any], now: float, wake: Callable[[], None]) -> MqttSource:
    """Open a topic; raises UsageError or MissingDependencyError. A broker that is down is waited for."""
    del now
    f = read_spec(spec, f"source '{name}'", "mqtt", ("broker", "topic"))
    return MqttSource(name, f.text("broker", "127.0.0.1:1883"), f.text("topic"), wake)

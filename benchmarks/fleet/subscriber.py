# SPDX-License-Identifier: Apache-2.0
"""The yardstick: a paho subscriber whose callback does nothing but count. Prints when the last message came."""

import json
import ssl
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

__all__ = ["main"]


def main() -> None:
    """Subscribe by the settings on standard input, say so, count, and print the time of the last."""
    settings = json.loads(sys.stdin.readline())
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare", protocol=mqtt.MQTTv311)
    context = ssl.create_default_context(cafile=settings["ca"])
    context.load_cert_chain(settings["certificate"], settings["key"])
    client.tls_set_context(context)
    count, done = 0, threading.Event()

    def heard(_client: mqtt.Client, _data: object, _message: mqtt.MQTTMessage) -> None:
        nonlocal count
        count += 1
        if count == settings["count"]:
            done.set()

    def connected(*_: object) -> None:
        client.subscribe(f"strop/v1/{settings['tenant']}/+/tm/metric", 1)

    client.on_connect = connected
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.on_message = heard
    client.connect(settings["host"], settings["port"])
    client.loop_start()
    done.wait(120)
    print(json.dumps({"ended": time.monotonic(), "count": count}), flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()

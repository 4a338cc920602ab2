# SPDX-License-Identifier: Apache-2.0
"""paho-mqtt alone: what every Python client at a broker costs at least."""

import sys
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

__all__ = ["main"]


def main(port: int) -> None:
    """Connect, say ready, and stay."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "bare")
    client.connect("127.0.0.1", port, keepalive=60)
    client.loop_start()
    client.subscribe("bare/jobs/+", 1)
    client.publish("bare/alive", b"{}", 1).wait_for_publish()
    print("ready", flush=True)
    while True:
        time.sleep(60)
        client.publish("bare/alive", b"{}", 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))

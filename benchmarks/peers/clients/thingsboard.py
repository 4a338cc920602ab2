# SPDX-License-Identifier: Apache-2.0
"""ThingsBoard's Python client: telemetry, attributes, remote calls and firmware over MQTT."""

import sys
import time

__all__ = ["main"]


def main(port: int) -> None:
    """Connect, say ready, and stay."""
    from tb_device_mqtt import TBDeviceMqttClient

    client = TBDeviceMqttClient("127.0.0.1", port=port, username="bench")
    client.connect()
    while not client.is_connected():
        time.sleep(0.01)
    client.subscribe_to_all_attributes(lambda *_: None)
    client.send_telemetry({"alive": 1})
    print("ready", flush=True)
    while True:
        time.sleep(60)
        client.send_telemetry({"alive": 1})


if __name__ == "__main__":
    main(int(sys.argv[1]))

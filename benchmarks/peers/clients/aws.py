# SPDX-License-Identifier: Apache-2.0
"""AWS IoT's device SDK with its client for jobs; plain MQTT, where it would use TLS."""

import sys
import time

__all__ = ["main"]


def main(port: int) -> None:
    """Connect, say ready, and stay."""
    from awscrt import io, mqtt
    from awsiot import iotjobs

    bootstrap = io.ClientBootstrap(io.EventLoopGroup(1), io.DefaultHostResolver(io.EventLoopGroup(1)))
    connection = mqtt.Connection(mqtt.Client(bootstrap), "127.0.0.1", port, "bench", keep_alive_secs=60)
    connection.connect().result(20)
    jobs = iotjobs.IotJobsClient(connection)
    request = iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name="bench")
    jobs.subscribe_to_next_job_execution_changed_events(request, mqtt.QoS.AT_LEAST_ONCE, lambda *_: None)[0].result(20)
    connection.publish("bench/alive", "{}", mqtt.QoS.AT_LEAST_ONCE)[0].result(20)
    print("ready", flush=True)
    while True:
        time.sleep(60)
        connection.publish("bench/alive", "{}", mqtt.QoS.AT_LEAST_ONCE)


if __name__ == "__main__":
    main(int(sys.argv[1]))

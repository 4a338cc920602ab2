# SPDX-License-Identifier: Apache-2.0
"""The feed of telemetry against a real mosquitto, and its packets against paho's."""

import queue
import random
import secrets
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from edge_contract.batches import TelemetryAck
from edge_contract.errors import BrokerError
from fleet.adapters import ca, credentials
from fleet.adapters import mqtt_frames as frames
from fleet.adapters.broker import BrokerFiles, Mosquitto, find_mosquitto
from fleet.adapters.feed import Feed
from fleet.adapters.intake import acknowledgement
from fleet.adapters.link import Hears, LinkFiles
from tests.support.fleet_server import until

NAME = "strop/v1/default/pi/tm/metric"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    try:
        find_mosquitto()
    except BrokerError as error:
        pytest.skip(str(error))
    data = tmp_path_factory.mktemp("feed")
    credentials.init(data, now=time.time())
    server = ca.issue_server(data / "ca", "127.0.0.1", now=time.time())
    client = ca.issue_client(data / "ca", now=time.time())
    made = Mosquitto(data / "broker", "default", "127.0.0.1", 0, files=BrokerFiles(data / "ca" / "ca.crt", *server))
    made.start()
    made.link = LinkFiles(data / "ca" / "ca.crt", *client)
    yield made
    made.stop()


class Speaker:
    """A paho client with the server's identity."""

    def __init__(self, broker):
        self.heard = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=secrets.token_hex(4))
        self.client.tls_set(str(broker.link.ca), str(broker.link.certificate), str(broker.link.key))
        self.client.on_connect = lambda c, *_: c.subscribe("strop/v1/default/+/tm/ack", 1)
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda _c, _d, m: self.heard.put((m.topic, bytes(m.payload)))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert ready.wait(10)

    def say(self, payload, name=NAME):
        self.client.publish(name, payload, qos=1).wait_for_publish(10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def feeds(broker):
    """A function that starts a feed and returns it with the list of what it hears."""
    made = []

    def start(group="", member=""):
        heard = []
        hears = Hears(state=False, group=group, member=member or secrets.token_hex(4))
        feed = Feed("default", broker.link, hears, lambda *said: heard.append(said))
        feed.start("127.0.0.1", broker.port)
        made.append(feed)
        return feed, heard

    yield start
    for feed in made:
        feed.stop()


@pytest.fixture
def speaker(broker):
    made = Speaker(broker)
    yield made
    made.close()


def test_what_is_said_is_heard_and_answered(feeds, speaker):
    feed, heard = feeds()
    payloads = [random.Random(i).randbytes(size) for i, size in enumerate((0, 1, 1000, 20_000, 100_000, 5))]
    for payload in payloads:
        speaker.say(payload)
    until(lambda: len(heard) == len(payloads))
    assert heard == [(NAME, payload, False) for payload in payloads]
    for i in range(200):
        feed.acknowledge("strop/v1/default/pi/tm/ack", b"%d" % i)
    assert [speaker.heard.get(timeout=10)[1] for _ in range(200)] == [b"%d" % i for i in range(200)]
    time.sleep(0.1)
    assert len(heard) == len(payloads)  # our own acknowledgements do not come back


def test_two_members_share_what_is_said(feeds, speaker):
    (_, one), (_, two) = feeds("ingest"), feeds("ingest")
    for i in range(40):
        speaker.say(b"%d" % i)
    until(lambda: len(one) + len(two) == 40)
    assert sorted(int(payload) for _, payload, _ in one + two) == list(range(40))
    assert one
    assert two


def test_it_comes_back_after_the_broker(broker, feeds, speaker):
    feed, heard = feeds()
    broker.stop()
    until(lambda: not feed.is_connected)
    feed.acknowledge("strop/v1/default/pi/tm/ack", b"lost")  # to nobody: it must not pile up or raise
    broker.start()
    until(lambda: feed.is_connected)
    until(speaker.client.is_connected)
    speaker.say(b"again")
    until(lambda: heard)
    assert heard[-1][1] == b"again"


def test_a_listener_that_raises_ends_nothing(broker, speaker):
    heard = []

    def raises(_name, payload, _retained):
        heard.append(payload)
        raise ValueError("no")

    feed = Feed("default", broker.link, Hears(state=False, member="raises"), raises)
    feed.start("127.0.0.1", broker.port)
    for i in range(3):
        speaker.say(b"%d" % i)
    until(lambda: len(heard) == 3)
    feed.stop()


def test_a_broker_that_is_not_there_is_said_in_one_line(broker, tmp_path):
    feed = Feed("default", broker.link, Hears(state=False), print)
    with pytest.raises(BrokerError, match=r"no connection to 127.0.0.1:1: "):
        feed.start("127.0.0.1", 1)
    feed.stop()


# --- packets


@given(st.text(min_size=1, max_size=30), st.binary(max_size=300), st.integers(1, 65535), st.data())
def test_packets_survive_any_cut(name, payload, mid, data):
    stream = frames.publish(name, payload) + frames.puback(mid) + frames.publish("a/b", b"") * 2
    cutter, found, at = frames.Cutter(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream)))
        found += cutter.feed(stream[at : at + step])
        at += step
    assert [first for first, _ in found] == [0x30, 0x40, 0x30, 0x30]
    assert frames.read_publish(*found[0]) == (name, payload, 0, False)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_a_fault(body):
    try:
        frames.read_publish(0x32, body)
    except BrokerError as error:
        assert "malformed" in str(error)


def test_a_length_without_end_is_refused():
    with pytest.raises(BrokerError, match="without end"):
        frames.Cutter().feed(b"\x30\xff\xff\xff\xff\x01")


@given(st.text(), st.sampled_from(["metric", "drift"]), st.integers(0, 2**62))
def test_the_fast_acknowledgement_is_the_canonical_one(boot, cls, up_to):
    boot = boot.encode("utf-8", "ignore").decode()
    assert acknowledgement(boot, cls, up_to) == TelemetryAck(boot, cls, up_to).to_bytes()

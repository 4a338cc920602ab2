# SPDX-License-Identifier: Apache-2.0
"""What a stranger's broker offers is found out by trying; what it lacks is said in one line."""

import time

import pytest

from edge_contract.errors import BrokerError
from fleet.adapters import broker_answers, ca
from fleet.adapters import mqtt_frames as frames
from fleet.adapters.broker import find_mosquitto, free_port
from fleet.adapters.broker_check import Offer, examine
from fleet.adapters.broker_login import LinkFiles
from fleet.adapters.external_broker import ExternalBroker
from fleet.config import FleetConfig
from tests.support.mqtt_gate import Gate, Stranger, passwords

pytestmark = pytest.mark.broker

ALL = Offer(5, qos1=True, wildcard=True, retained=True, large=True, shared=True)


def told(number, value):
    """A property of CONNACK."""
    return bytes([number, value])


def a_login(password="right", **more):
    return LinkFiles(None, "none", "none", is_tls=False, user="strop-server", password=password, **more)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Four listeners: a whole one, one without retained, one of QoS 0, one that lets the server speak nowhere."""
    try:
        find_mosquitto()
    except BrokerError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("stranger")
    secrets = passwords(folder, **{"strop-server": "right"})
    acl = folder / "acl"
    acl.write_text("user strop-server\ntopic readwrite strop/v1/#\n")
    forbids = folder / "forbids"
    forbids.write_text("user strop-server\ntopic read strop/v1/#\n")
    ports = {name: free_port("127.0.0.1") for name in ("whole", "qos0", "forbids")}
    lines = []
    for name, port in ports.items():
        lines += [f"listener {port} 127.0.0.1", f"password_file {secrets}", "allow_anonymous false"]
        lines += [f"acl_file {forbids if name == 'forbids' else acl}", *(["max_qos 0"] if name == "qos0" else [])]
    made = Stranger(folder, lines, ports["whole"])
    made.ports = ports
    yield made
    made.kill()


@pytest.fixture
def gate(stranger):
    made = []

    def opened(**how):
        made.append(Gate(stranger.ports["whole"], **how))
        return "127.0.0.1", made[-1].port

    yield opened
    for one in made:
        one.close()


def test_a_whole_broker_does_all(stranger):
    assert examine(("127.0.0.1", stranger.port), a_login(), "default") == ALL
    assert ALL.lacks == ()
    assert ALL.to_json()["mqtt"] == "5"


@pytest.mark.parametrize("how", [{"only_old": True}, {"hangs_up": True}], ids=str)
def test_a_broker_of_3_1_1_is_spoken_to_in_its_version(gate, how):
    found = examine(gate(**how), a_login(), "default")
    assert (found.level, found.version, found.lacks) == (4, "3.1.1", ())


@pytest.mark.parametrize(
    ("says", "lacks", "shared"),
    [
        (told(0x25, 0), ("retained messages",), True),
        (told(0x28, 0), ("wildcard subscriptions",), True),
        (told(0x2A, 0), (), False),
        (told(0x24, 0), ("messages at QoS 1", "messages of 100 KB"), False),
    ],
)
def test_what_a_broker_says_that_it_lacks_is_believed(gate, says, lacks, shared):
    found = examine(gate(says=says), a_login(), "default")
    assert (found.lacks, found.shared) == (lacks, shared)


def test_what_is_not_said_is_tried(stranger, monkeypatch):
    monkeypatch.setattr("fleet.adapters.broker_check._WAIT_S", 0.3)
    old = a_login(level=4)  # 3.1.1 has no words for it
    found = examine(("127.0.0.1", stranger.ports["qos0"]), old, "default")
    assert found.lacks[0] == "messages at QoS 1"
    found = examine(("127.0.0.1", stranger.ports["forbids"]), old, "default")
    assert "messages at QoS 1" in found.lacks
    assert "retained messages" in found.lacks


def test_the_server_does_not_start_on_half_a_broker(gate, stranger):
    host, port = gate(says=told(0x25, 0) + told(0x2A, 0))
    config = FleetConfig(broker=f"mqtt://{host}:{port}", device_broker="h:1")
    with pytest.raises(BrokerError, match=r"lacks retained messages; see its settings and its access list") as caught:
        ExternalBroker(config, a_login()).start()
    assert "\n" not in str(caught.value)
    host, port = gate(says=told(0x2A, 0))
    config = FleetConfig(broker=f"mqtt://{host}:{port}", device_broker="h:1")
    assert not ExternalBroker(config, a_login()).start().shared
    with pytest.raises(BrokerError, match="has no shared subscriptions; leave telemetry to the server"):
        ExternalBroker(config, a_login()).start(for_workers=True)


def test_who_is_refused_is_told_so(stranger):
    for level in (5, 4):
        with pytest.raises(BrokerError, match=r"refuses the server: (Not|Bad).*; see broker_user"):
            examine(("127.0.0.1", stranger.port), a_login("wrong", level=level), "default")
    with pytest.raises(BrokerError, match="does not answer"):
        examine(("127.0.0.1", 1), a_login(), "default")


def test_nodes_are_tried_in_turn(stranger):
    config = FleetConfig(broker=f"mqtt://127.0.0.1:1,mqtt://127.0.0.1:{stranger.port}", device_broker="h:1")
    broker = ExternalBroker(config, a_login(others=(("127.0.0.1", stranger.port),)))
    assert broker.start() == ALL
    assert broker.files.level == 5


def test_a_certificate_of_strangers_is_named(tmp_path):
    ca.create_ca(tmp_path / "ours", now=time.time())
    ca.create_ca(tmp_path / "theirs", now=time.time())
    certificate, key = ca.issue_server(tmp_path / "theirs", now=time.time())
    pair = ca.issue_client(tmp_path / "ours", now=time.time())
    port = free_port("127.0.0.1")
    lines = [f"listener {port} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}", "allow_anonymous true"]
    broker = Stranger(tmp_path / "broker", lines, port)
    try:
        with pytest.raises(BrokerError, match=r"its certificate is not trusted: .*; give broker_ca"):
            examine(("127.0.0.1", port), LinkFiles(tmp_path / "ours" / "ca.crt", *pair), "default")
        assert examine(("127.0.0.1", port), LinkFiles(tmp_path / "theirs" / "ca.crt", *pair), "default") == ALL
    finally:
        broker.kill()


def test_answers_of_both_versions_are_read():
    assert broker_answers.refusal(frames.CONNACK, b"\x00\x04", 4) == "wrong user name or password"
    assert broker_answers.refusal(frames.CONNACK, b"\x00\x01", 5) == "it does not speak this version of MQTT"
    reason = b"\x1f\x00\x02no"  # a reason string before the codes
    suback = b"\x00\x01" + bytes([len(reason)]) + reason + b"\x01\x87"
    assert broker_answers.refusal(frames.SUBACK, suback, 5) == "not authorised"
    assert broker_answers.refusal(frames.SUBACK, b"\x00\x01\x01\x02", 4) == ""
    with pytest.raises(BrokerError, match="malformed"):
        broker_answers.refusal(frames.SUBACK, b"\x00\x01", 5)

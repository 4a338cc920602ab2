# SPDX-License-Identifier: Apache-2.0
"""The server on a broker of somebody else: with a password, in 3.1.1, on two bridged nodes; and with a worker."""

import json
import secrets
import threading
import time

import pytest
from typer.testing import CliRunner

from edge_contract.batches import TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.errors import BrokerError
from edge_contract.states import Phase, Status
from fleet.adapters import ca, credentials
from fleet.adapters.broker import find_mosquitto, free_port
from fleet.adapters.broker_files import write_files
from fleet.adapters.broker_login import LinkFiles
from fleet.adapters.feed import Feed
from fleet.adapters.link import Hears, ServerLink
from fleet.cli import app
from fleet.config import load_config
from fleet.worker import WorkerPlace, work
from tests.support.fleet_server import FleetProcess, until
from tests.support.mqtt_gate import Gate, Stranger, passwords

pytestmark = pytest.mark.broker

USERS = {"strop-server": "the server's own secret"}


@pytest.fixture(scope="module", autouse=True)
def mosquitto():
    try:
        find_mosquitto()
    except BrokerError as error:
        pytest.skip(str(error))


def a_node(folder, files, bridge_to=0):
    """A broker as its operator would set it up: devices by certificate, the server by password."""
    devices, server = free_port("127.0.0.1"), free_port("127.0.0.1")
    text = (files / "mosquitto.conf").read_text().replace("listener 8883", f"listener {devices} 127.0.0.1")
    lines = [line for line in text.splitlines() if line]
    users = passwords(folder, **USERS, bridge="between nodes")
    acl = folder / "acl"
    acl.write_text((files / "acl").read_text() + "user bridge\ntopic readwrite #\n")
    lines += [f"listener {server} 127.0.0.1", f"password_file {users}", "allow_anonymous false", f"acl_file {acl}"]
    if bridge_to:
        lines += [
            "connection cluster",
            f"address 127.0.0.1:{bridge_to}",
            "topic strop/v1/# both 1",
            "restart_timeout 1",
        ]
        lines += ["remote_username bridge", "remote_password between nodes", "try_private true"]
    made = Stranger(folder, lines, server)
    made.devices = devices
    return made


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A data folder, what its broker's operator gets, and the broker."""
    folder = tmp_path_factory.mktemp("external")
    data, files = folder / "data", folder / "for-the-broker"
    credentials.init(data, now=time.time())
    write_files(data, files, "default", ["127.0.0.1"], now=time.time())
    broker = a_node(folder / "broker", files)
    secret = data / "broker.password"
    secret.write_text(USERS["strop-server"] + "\n")
    secret.chmod(0o600)
    lines = [f"broker = 'mqtt://127.0.0.1:{broker.port}'", f"device_broker = '127.0.0.1:{broker.devices}'"]
    lines += ["broker_user = 'strop-server'", f"broker_password_file = '{secret}'"]
    (data / "fleet.toml").write_text("\n".join(lines) + "\n")
    yield data, files, broker
    broker.kill()


@pytest.fixture(scope="module")
def server(ground, tmp_path_factory):
    made = FleetProcess(ground[0], tmp_path_factory.mktemp("keys") / "keys").start()
    made.trust()
    yield made
    made.close()


def test_a_fleet_lives_on_a_broker_of_others(ground, server, bundles, tmp_path):
    _, _, broker = ground
    assert server.endpoints["broker"] == {"host": "127.0.0.1", "port": broker.devices}
    assert not (server.data / "broker").exists()  # none of our own
    assert server.send("GET", "/readyz").json()["broker"]
    server.register(bundles["1.0.0"][0])
    device = server.device(tmp_path / "pi", "pi").connect()
    rollout = server.call("POST", "/rollouts", {"model": "digits", "bundle": bundles["1.0.0"][1]})["id"]
    device.install(device.order())
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED", "the rollout")
    assert device.send_batch(device.rows("metric", [{"n": 1}])).up_to_seq == 1
    spy = server.device(tmp_path / "spy", "spy").connect()
    spy.say("twin/reported", b"{}", device="pi")  # the access list that we wrote holds here, too
    assert device.send_batch(device.rows("metric", [{"n": 2}])).up_to_seq == 2
    assert server.call("GET", "/devices/pi")["device"] == "pi"
    assert not [one for one in server.call("GET", "/dead-letters")["letters"] if "pi" in one["topic"]]
    spy.close()
    device.close()


def test_the_server_survives_its_broker_and_says_all_again(ground, server, bundles, tmp_path):
    _, _, broker = ground
    until(lambda: server.send("GET", "/readyz").status_code == 200, "readiness")
    device = server.device(tmp_path / "pi2", "pi2").connect()
    server.register(bundles["1.1.0"][0])
    document = {"model": "digits", "bundle": bundles["1.1.0"][1], "waves": [{"devices": ["pi2"]}]}
    rollout = server.call("POST", "/rollouts", document)["id"]
    job = device.order()
    device.status(job.job_id, Status.IN_PROGRESS, Phase.DOWNLOADING, 2)
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["executions"][0]["phase"] == "downloading", "its word")
    device.close()
    broker.kill()  # with everything that it retained
    until(lambda: not server.send("GET", "/healthz").json()["broker"], "that the server sees it")
    broker.start()
    until(lambda: server.send("GET", "/healthz").json()["broker"], "the server's return")
    device.connect()
    device.install(device.order())
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED", "the rollout")
    device.close()


def test_a_worker_shares_the_telemetry_there(ground, server, tmp_path):
    data, _, _ = ground
    config = load_config(data)
    ready, stop, failed = threading.Event(), threading.Event(), []

    def run():
        try:
            work(WorkerPlace(data, "", "default", ("127.0.0.1", ground[2].port), named=config), ready.set, stop)
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        assert failed == []
        device = server.device(tmp_path / "pi3", "pi3").connect()
        assert device.send_batch(device.rows("metric", [{"n": 1}])).up_to_seq == 1
        assert device.wait("tm/ack")  # the server takes it, too, so there are two acknowledgements, and one row
        assert server.call("GET", "/devices/pi3")["device"] == "pi3"
        device.close()
    finally:
        stop.set()
        thread.join(20)


def test_the_commands_say_what_a_broker_offers_and_needs(ground, server, tmp_path):
    data = ground[0]
    run = CliRunner()
    told = run.invoke(app, ["broker", "check", "--data", str(data), "--json"])
    assert told.exit_code == 0, told.output
    expected = {
        "mqtt": "5",
        "qos1": True,
        "wildcard": True,
        "retained": True,
        "large": True,
        "shared": True,
        "lacks": [],
    }
    assert json.loads(told.output) == expected
    assert "does all that is needed" in run.invoke(app, ["broker", "check", "--data", str(data)]).output
    out = tmp_path / "out"
    made = run.invoke(app, ["broker", "files", str(out), "--data", str(data), "--name", "mqtt.example.org"])
    assert made.exit_code == 0, made.output
    names = {"acl", "acl-emqx.conf", "broker.crt", "broker.key", "ca.crt", "mosquitto.conf", "revoked.crl"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "broker.key").stat().st_mode & 0o077 == 0
    before = (out / "broker.crt").read_bytes()
    assert run.invoke(app, ["broker", "files", str(out), "--data", str(data)]).exit_code == 0  # the newest revocations
    assert (out / "broker.crt").read_bytes() == before
    refused = run.invoke(app, ["broker", "files", str(tmp_path / "none"), "--data", str(data)])
    assert "the broker's name is missing" in str(refused.exception)
    wrong = run.invoke(app, ["broker", "check", "--data", str(data), "--broker", "mqtt://127.0.0.1:1"])
    assert "does not answer" in str(wrong.exception)


class Ear:
    """The server's two connections, and what they heard."""

    def __init__(self, address, **more):
        files = LinkFiles(
            None, "none", "none", is_tls=False, user="strop-server", password=USERS["strop-server"], **more
        )
        self.heard, self.ready = [], []
        hear = lambda name, payload, retained: self.heard.append((name, payload))  # noqa: E731
        ear = {"on_message": hear, "on_ready": lambda: self.ready.append(1)}
        self.link = ServerLink(
            "default", files, hears=Hears(telemetry=False, member=f"strop-server-{secrets.token_hex(4)}"), **ear
        )
        self.feed = Feed("default", files, Hears(state=False, member=f"strop-feed-{secrets.token_hex(4)}"), hear)
        self.link.start(*address)
        self.feed.start(*address)

    def close(self):
        self.feed.stop()
        self.link.stop()


def batch(n):
    return encode_batch(TelemetryBatch("pi4", "b", "metric", n - 1, (TelemetryRow(n, 1.0, {"n": n}),)))


def test_a_broker_of_3_1_1_will_do(ground, server, tmp_path):
    gate = Gate(ground[2].port, only_old=True)
    new = Feed("default", LinkFiles(None, "n", "n", is_tls=False), Hears(state=False), print)
    with pytest.raises(BrokerError, match="it does not speak this version of MQTT"):
        new.start("127.0.0.1", gate.port)
    new.stop()
    ear = Ear(("127.0.0.1", gate.port), level=4)
    try:
        device = server.device(tmp_path / "pi4", "pi4").connect()
        device.say("tm/metric", batch(1))
        until(lambda: any(payload == batch(1) for _, payload in ear.heard), "telemetry")
        until(lambda: any(name.endswith("pi4/state/birth") for name, _ in ear.heard), "a birth")
        ear.link.publish("strop/v1/default/pi4/twin/desired", b"", retain=True)
        ear.feed.acknowledge("strop/v1/default/pi4/tm/ack", b"in 3.1.1")
        assert device.wait("tm/ack", lambda payload: payload == b"in 3.1.1")
        device.close()
    finally:
        ear.close()
        gate.close()


def test_the_server_goes_over_to_another_node(ground, tmp_path):
    _, files, _ = ground
    first = a_node(tmp_path / "a", files)
    second = a_node(tmp_path / "b", files, bridge_to=first.port)
    ear = Ear(("127.0.0.1", first.port), others=(("127.0.0.1", second.port),))
    try:
        from fleet.adapters.broker_check import examine

        files_of = LinkFiles(None, "n", "n", is_tls=False, user="strop-server", password=USERS["strop-server"])
        assert examine(("127.0.0.1", second.port), files_of, "default").lacks == ()
        speaker = Ear(("127.0.0.1", second.port))  # a device's side of the second node
        name = "strop/v1/default/pi5/state/birth"
        until(lambda: speaker.link.publish(name, b"over the bridge") or ear.heard, "the bridge")
        assert ear.heard[0] == (name, b"over the bridge")
        first.kill()
        until(lambda: len(ear.ready) == 2 and ear.link.is_connected and ear.feed.is_connected, "the way over")
        speaker.link.publish(name, b"on the second")
        until(lambda: (name, b"on the second") in ear.heard, "what is said there")
        speaker.close()
    finally:
        ear.close()
        second.kill()
        first.kill()


def test_a_certificate_for_the_broker_is_of_the_fleets_authority(ground):
    data, files, _ = ground
    names = ca.facts((files / "broker.crt").read_bytes())
    assert names.name == "Strop broker"
    assert (files / "ca.crt").read_bytes() == (data / "ca" / "ca.crt").read_bytes()

# SPDX-License-Identifier: Apache-2.0
"""Revocation and clones against the whole server: its broker, its listeners, its API."""

import json
import shutil
import socket
import ssl
import time
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_agent.adapters import renewal, tls, tuf_client
from edge_agent.adapters.enrol import enrol
from edge_agent.adapters.trust import TrustHelper
from edge_agent.capture.keeper import Keeper
from edge_contract.errors import DownloadError, EnrolmentError
from export.keys import signing
from fleet import cli
from tests.support.fleet_bundle import Matcher, profile_of, write_bundle
from tests.support.fleet_server import FleetProcess, SimulatedDevice, until

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    made = FleetProcess(folder / "server", folder / "keys").start()
    try:
        made.trust()
        yield made
    finally:
        made.close()


def asks(server, folder):
    connection = tls.connect(server.endpoints["device"], tls.device_context(folder / "identity"))
    try:
        return tls.exchange(connection, "GET", "/identity")[0]
    finally:
        connection.close()


def at_the_broker(server, folder):
    """What the broker does with a certificate: its alert, or nothing within a moment."""
    where = server.endpoints["broker"]
    with socket.create_connection((where["host"], where["port"]), 5) as plain:
        secured = tls.device_context(folder / "identity").wrap_socket(plain, server_hostname=where["host"])
        with secured:
            secured.settimeout(0.5)
            try:
                return secured.recv(1)
            except TimeoutError:
                return "waits for our first word"
            except ssl.SSLError as error:
                return error.reason


def test_a_revoked_device_is_cut_off_at_the_broker_and_at_the_listener_and_others_stay(server, tmp_path):
    lost, other = (server.device(tmp_path / name, name).connect() for name in ("lost", "other"))
    try:
        until(lambda: server.call("GET", "/devices/lost")["online"], "the device is online")
        assert asks(server, tmp_path / "lost") == 200
        assert server.call("POST", "/devices/lost/revoke", {"reason": "stolen"}) == {"revoked": 1}
        until(lambda: not lost.client.is_connected(), "the broker ends the connection")
        assert at_the_broker(server, tmp_path / "lost") == "SSLV3_ALERT_CERTIFICATE_REVOKED"
        assert at_the_broker(server, tmp_path / "other") == "waits for our first word"
        with pytest.raises((EnrolmentError, DownloadError), match="refuses this device's certificate"):
            asks(server, tmp_path / "lost")
        with pytest.raises(EnrolmentError, match="was revoked: stolen"):
            renewal.care(tmp_path / "lost", "lost", time.time(), force=True)
        lost.client.loop_stop()
        assert asks(server, tmp_path / "other") == 200
        assert other.client.is_connected()
        shown = server.call("GET", "/devices/lost")
        assert (shown["certificate"]["revoked"], shown["certificate"]["reason"]) == (True, "stolen")
        token = server.call("POST", "/tokens")["token"]
        assert server.send("POST", "/api/v1/devices/lost/revoke", {"reason": ""}).status_code == 400
        server.call("DELETE", "/devices/lost")
        enrol(tmp_path / "lost", server.endpoints["enrol"], token, "lost", replace=True)
        assert asks(server, tmp_path / "lost") == 200
    finally:
        other.close()
        lost.close()


def strop(server, *words):
    """Run ``strop fleet …`` against the server and return what it printed as JSON."""
    done = CliRunner().invoke(cli.app, [*words, "--data", str(server.data), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_online_key_is_rotated_from_the_command_line_and_devices_follow(server, tmp_path):
    server.device(tmp_path / "pi-k", "pi-k")
    bundle = write_bundle(tmp_path / "bundle", "1.0.0", profile_of(Matcher()))
    server.register(tmp_path / "bundle")
    refresh = partial(tuf_client.refresh, tmp_path / "pi-k", server.endpoints["device"], [bundle], time.time())
    assert bundle in refresh()
    before = strop(server, "keys", "show")
    out = tmp_path / "next.pub"
    assert strop(server, "keys", "rotate", "--out", str(out))["public"] == out.read_text()
    assert strop(server, "keys", "rotate", "--out", str(out))["public"] == out.read_text()  # the same one waits
    rotation = signing.rotate_keys(server.keys, online_public=out.read_bytes())
    strop(server, "trust", str(server.keys / "root.json"))
    after = strop(server, "keys", "show")
    assert before["next_key"] == ""
    assert after["online_key"] != before["online_key"]
    assert (after["root"]["version"], after["next_key"]) == (2, "")
    server.call("POST", "/models", {"bundle": bundle, "targets": rotation.targets.decode()})
    assert bundle in refresh()


def test_a_capture_from_the_command_line_to_an_npz_and_its_deletion(server, tmp_path):
    server.device(tmp_path / "pi-c", "pi-c")
    words = ["--hours", "1", "--random", "1.0", "--max-samples", "3"]
    campaign = strop(server, "capture", "start", "pi-c", *words)["id"]
    helper = TrustHelper(tmp_path / "pi-c")
    assert helper.capture("pi-c", allowed=True, may_send=True)["campaign"] == campaign
    keeper = Keeper(tmp_path / "pi-c", "digits")
    frames = [np.full((4, 4), n, np.uint8) for n in range(3)]
    assert [keeper.offer(frame, confidence=0.5) for frame in frames] == ["random"] * 3
    assert helper.capture("pi-c", allowed=True, may_send=True)["sent"] == 3
    assert strop(server, "capture", "list")[0]["samples"] == 3
    strop(server, "capture", "stop", campaign)
    strop(server, "capture", "export", campaign, "--out", str(tmp_path / "out.npz"))
    found = np.load(tmp_path / "out.npz")
    assert all(np.array_equal(found[f"pi-c_{n + 1}"], frames[n]) for n in range(3))
    assert server.send("GET", f"/api/v1/captures/{campaign}/samples", token="wrong").status_code == 401
    assert server.send("GET", f"/api/v1/captures/{campaign}/samples/pi-c/9").status_code == 404
    assert strop(server, "capture", "delete", campaign)["samples"] == 3
    assert strop(server, "capture", "list") == []
    assert not list((server.data / "captures").glob("*"))


def test_a_device_that_was_removed_is_cut_off_and_comes_back_by_a_token(server, tmp_path):
    server.device(tmp_path / "gone", "gone")
    server.call("DELETE", "/devices/gone")
    assert at_the_broker(server, tmp_path / "gone") == "SSLV3_ALERT_CERTIFICATE_REVOKED"
    token = server.call("POST", "/tokens")["token"]
    enrol(tmp_path / "gone", server.endpoints["enrol"], token, "gone", replace=True)
    assert at_the_broker(server, tmp_path / "gone") == "waits for our first word"


def test_a_renewed_device_goes_on_and_its_page_shows_the_new_end(server, tmp_path):
    server.device(tmp_path / "pi", "pi").close()
    before = server.call("GET", "/devices/pi")["certificate"]
    done = renewal.care(tmp_path / "pi", "pi", time.time(), force=True)
    after = server.call("GET", "/devices/pi")["certificate"]
    assert before["serial"] != after["serial"] == done["serial"]
    assert 364 < after["days_left"] <= 365
    SimulatedDevice(server, tmp_path / "pi", "pi").connect().close()
    verbs = [e["action"] for e in server.call("GET", "/audit?limit=5")["entries"]]
    assert "certificate.renew" in verbs


def test_two_machines_with_one_identity_are_noticed_and_forgiven(server, tmp_path):
    device = server.device(tmp_path / "twin", "twin").connect()
    try:
        for boot in ("a", "b", "a", "b"):
            device.boot = boot
            device.report()
        clone = until(lambda: server.call("GET", "/devices/twin")["clone"]["evidence"], "the clone is noticed")
        assert clone == ["two machines speak: starts a and b take turns"]
        assert server.call("POST", "/devices/twin/forgive") == {"cleared": "twin"}
        assert server.call("GET", "/devices/twin")["clone"]["suspected"] is False
    finally:
        device.close()

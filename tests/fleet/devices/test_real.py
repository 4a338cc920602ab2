# SPDX-License-Identifier: Apache-2.0
"""The whole server, its broker, a real agent process, and two machines with one identity."""

import csv
import json
import queue
import shutil
import ssl
import time
import zipfile

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.adapters import tls
from edge_agent.adapters.enrol import enrol
from edge_agent.capture import ring
from edge_contract.errors import DownloadError, EnrolmentError
from fleet.adapters import ca
from fleet.cli import app
from tests.support.agent_process import AgentProcess
from tests.support.fleet_server import FleetProcess, SimulatedDevice, until

pytestmark = pytest.mark.broker

CONFIG = """device = "real"
runtime = "litert"
[network]
reconnect_max_s = 1
[settings]
heartbeat_s = 1
[capture]
allowed = true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    folder = tmp_path_factory.mktemp("devices")
    made = FleetProcess(folder / "server", folder / "keys")
    made.data.mkdir()
    (made.data / "fleet.toml").write_text("quarantine_clones = true\n")
    made.start()
    try:
        made.trust()
        yield made
    finally:
        made.close()


@pytest.fixture
def strop(server, capsys):
    """Run ``strop fleet`` and return what it prints."""

    def run(*words):
        capsys.readouterr()
        app([*map(str, words), "--data", str(server.data)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def retained(server, device):
    """Channels on which the broker holds something of a device, as the server's own name may hear."""
    certificate, key = ca.issue_client(server.data / "ca", now=time.time())
    context = ssl.create_default_context(cafile=str(server.data / "ca" / "ca.crt"))
    context.load_cert_chain(certificate, key)
    found, heard = set(), queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=mqtt.MQTTv311)
    client.tls_set_context(context)
    client.on_message = lambda _c, _d, message: found.add(message.topic.partition(f"/{device}/")[2])
    client.on_connect = lambda c, *_: c.subscribe(f"strop/v1/default/{device}/#", 1)
    client.on_subscribe = lambda *_: heard.put(True)
    client.connect(server.endpoints["broker"]["host"], server.endpoints["broker"]["port"])
    client.loop_start()
    heard.get(timeout=30)
    time.sleep(0.3)  # retained messages follow the SUBACK at once
    client.disconnect()
    client.loop_stop()
    return found


@pytest.fixture(scope="module")
def real(server, tmp_path_factory):
    """A real agent that enrolled with a token of a batch."""
    folder = tmp_path_factory.mktemp("agent") / "data"
    tokens = server.call("POST", "/tokens", {"count": 2, "batch": "b1", "name": "re*", "labels": {"site": "a"}})
    enrol(folder, server.endpoints["enrol"], tokens["token"], "real")
    (folder / "agent.toml").write_text(CONFIG)
    agent = AgentProcess(folder)
    until(lambda: server.call("GET", "/devices/real")["online"], "the agent's birth")
    yield folder
    agent.stop()


def test_ping_logs_and_diagnostics_of_a_real_agent(real, strop, tmp_path):
    found = json.loads(strop("device", "ping", "real", "--json"))
    assert 0 < found["round_trip_s"] < 20
    assert abs(found["clock_ahead_s"]) < 20
    assert "real answered in" in strop("device", "ping", "real")
    text = strop("device", "logs", "real", "--lines", "3")
    lines = text.splitlines()
    assert lines[0] == "== agent.log"
    assert 1 <= lines.index("== runner.log") - 1 <= 3
    assert " info " in lines[1]
    strop("device", "diagnostics", "real", "--out", tmp_path / "found.zip")
    with zipfile.ZipFile(tmp_path / "found.zip") as archive:
        assert "logs/agent.log" in archive.namelist()
        told = json.loads(archive.read("diagnostics.json"))
    assert told["status"]
    assert "PRIVATE KEY" not in json.dumps(told)


def test_a_real_agent_takes_settings_and_tells_what_it_rejects(real, server, strop):
    strop("group", "new", "a", "--query", "site:a", "--priority", "3")
    strop("group", "config", "a", "window_s=120", "heartbeat_s=2")
    strop("device", "config", "--where", "device:real", "heartbeat_s=1", "colour=red")

    def settled():
        found = server.call("GET", "/devices/real/config")
        return found if found["reported_version"] == found["desired_version"] > 0 else None

    until(settled, "the settings are taken over")
    lines = strop("device", "config", "real", "--explain").splitlines()
    rows = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    assert rows["heartbeat_s"].split()[1:] == ["1", "1.0", "device", "in", "force"]
    assert rows["window_s"].split()[1:] == ["120", "120.0", "group", "a", "in", "force"]
    assert rows["colour"].endswith("rejected: unknown setting")
    assert any("overruled" in line and "group a" in line for line in lines)
    assert "real" in strop("device", "list", "rejected:colour and group:a and in_sync")
    strop("device", "config", "real", "colour=null")


def test_a_campaign_reaches_a_real_agent_at_once(real, server, strop):
    campaign = strop("capture", "start", "real", "--hours", "1", "--random", "1").split()[1]
    until(lambda: (order := ring.read_order(real)) and order.campaign == campaign, "the order is there")
    strop("capture", "stop", campaign)
    until(lambda: ring.read_order(real) is None, "the order is forgotten")


def test_quarantine_release_and_what_is_kept_apart(real, server, strop):
    assert "quarantined: looks odd" in strop("device", "quarantine", "real", "--reason", "looks odd")
    version = server.call("GET", "/devices/real")["desired"]["version"]
    until(lambda: server.call("GET", "/devices/real")["desired_version"] == version, "the agent hears of it")
    assert "real: quarantined by operator: looks odd" in strop("device", "list", "quarantined")
    until(lambda: server.call("GET", "/devices/real")["standing"]["rows_apart"], "rows are kept apart")
    assert "rows kept apart" in strop("device", "show", "real")
    assert "rows taken in" in strop("device", "release", "real", "--accept")
    assert "standing" not in server.call("GET", "/devices/real")


def test_two_machines_with_one_identity_are_held_and_shown(server, strop, tmp_path):
    one = server.device(tmp_path / "one", "twin")
    two = SimulatedDevice(server, tmp_path / "one", "twin", boot="boot2")  # a copied card
    for _ in range(3):
        one.connect().close()
        two.connect().close()
    held = until(lambda: server.call("GET", "/devices/twin").get("standing"), "quarantine")
    assert held["reason"] == "clone suspected: two machines speak: starts boot1 and boot2 take turns"
    told = strop("device", "list", "clone and quarantined")
    assert "twin: CLONE? two machines speak" in told
    assert "device revoke NAME" in told
    assert "what to do" in strop("device", "show", "twin")
    strop("device", "release", "twin")
    assert strop("device", "list", "clone").splitlines()[1:] == []
    one.connect()  # it is there while it is decommissioned
    assert retained(server, "twin") >= {"twin/desired", "twin/reported", "state/birth"}
    answer = json.loads(strop("device", "decommission", "twin", "--delete-data", "--json"))
    until(lambda: retained(server, "twin") == set(), "the broker holds nothing of it")
    one.close()
    assert answer["deleted"]
    assert server.send("GET", "/api/v1/devices/twin").status_code == 404
    with pytest.raises((EnrolmentError, DownloadError), match="refuses this device's certificate"):
        where = tls.connect(server.endpoints["device"], tls.device_context(tmp_path / "one" / "identity"))
        tls.exchange(where, "GET", "/identity")


def test_a_device_that_is_away_is_told_of_in_words(server, strop, tmp_path):
    server.device(tmp_path / "away", "away").connect().close()
    found = server.call("POST", "/devices/away/commands/ping")
    shown = server.call("GET", f"/devices/away/commands/{found['id']}")
    assert (shown["state"], shown["kind"]) == ("waiting", "ping")
    assert "away gave no answer within" in shown["why"]


def test_tokens_of_a_batch_are_written_listed_and_taken_back(server, strop, tmp_path):
    out = tmp_path / "tokens.csv"
    words = ("--count", "5", "--out", out, "--batch", "b9", "--name", "cam-{n:2}", "--site", "a", "--tag", "lab")
    strop("enrol", "new", *words)
    assert out.stat().st_mode & 0o777 == 0o600
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"cam-0{i}" for i in range(1, 6)]
    assert {row["labels"] for row in rows} == {"lab site=a"}
    enrol(tmp_path / "cam", server.endpoints["enrol"], rows[2]["token"], "cam-03")
    listed = strop("enrol", "list", "--batch", "b9")
    assert listed.count(" open ") == 4
    assert "cam-03" in listed
    assert rows[0]["token"] not in listed
    assert "took back 4 tokens" in strop("enrol", "revoke", "b9")
    assert "cam-03" in strop("device", "list", "site:a and tag:lab")
    assert "no device has a label 'sitte'; do you mean 'site'?" in strop("device", "list", "sitte:a")
    strop("device", "untag", "cam-03", "lab")
    strop("device", "tag", "--where", "device:cam-*", "floor=2")
    assert json.loads(strop("device", "list", "floor>1", "--json"))[0]["labels"] == {"floor": "2", "site": "a"}


def test_the_api_answers_in_pages_and_refuses_in_one_line(server, strop):
    for name in ("p1", "p2", "p3"):
        server.call("PUT", f"/groups/{name}", {"query": "online"})
    answer = server.send("GET", "/api/v1/devices?limit=1&sort=-last_seen")
    assert len(answer.json()) == 1
    assert int(answer.headers["x-total-count"]) >= 1
    for path, status in (
        ("/devices?q=and", 400),
        ("/devices?cursor=x", 400),
        ("/devices?limit=0", 400),
        ("/devices?sort=" + "x" * 200, 400),
        ("/groups/none", 400),
        ("/devices/none/config", 404),
        ("/devices/none/commands/x", 400),
    ):
        refused = server.send("GET", f"/api/v1{path}")
        assert refused.status_code == status, path
        assert "\n" not in refused.json()["error"]
    for method, path, document in (
        ("POST", "/devices/labels", {"put": {"a": "b"}}),
        ("POST", "/devices/labels", [1]),
        ("POST", "/devices/config", {"where": "all", "set": 5}),
        ("PUT", "/groups/x y", {}),
        ("PUT", "/groups/x", {"query": "site:a", "devices": ["p"]}),
        ("POST", "/tokens", {"count": 10_000}),
        ("POST", "/tokens", {"labels": {"online": "x"}}),
        ("POST", "/devices/none/quarantine", {}),
        ("POST", "/devices/none/decommission", {"delete": True}),
    ):
        assert server.send(method, f"/api/v1{path}", document).status_code == 400, path
        anonymous = server.send(method, f"/api/v1{path}", document, token="wrong")
        assert anonymous.status_code == 401, path

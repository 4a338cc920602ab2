# SPDX-License-Identifier: Apache-2.0
"""The whole server as a process: starts, refuses, restarts, is killed, and leaves nothing behind."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from edge_contract.batches import TelemetryAck, encode_batch
from edge_contract.states import Phase, Status
from tests.support.fleet_server import SERVE, until

pytestmark = pytest.mark.broker


def attempt(*words, env=None):
    """Run ``strop fleet serve`` that must refuse; return (exit code, lines of stderr)."""
    command = [sys.executable, "-c", SERVE, "fleet", "serve", *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=60, env=env, check=False)
    return done.returncode, done.stderr.decode().strip().splitlines()


def free_ports():
    return [word for name in ("http", "device", "enrol", "mqtt") for word in (f"--{name}-port", "0")]


def mosquittos(data: Path):
    """Return the ids of mosquitto processes that serve a data folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if words[0].endswith("mosquitto") and str(data.resolve()) in " ".join(words):
                found.append(int(folder.name))
    return found


def test_it_starts_says_where_and_stops_clean(new_server):
    server = new_server()
    assert server.send("GET", "/healthz").json() == {"ok": True, "broker": True, "database": True}
    assert server.endpoints["pid"] == server.process.pid
    assert mosquittos(server.data)
    assert server.stop() == 0
    assert mosquittos(server.data) == []
    assert not (server.data / "endpoints.json").exists()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("option", ["--http-port", "--device-port", "--enrol-port", "--mqtt-port"])
def test_a_busy_port_is_one_line_and_nothing_is_left_running(tmp_path, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = attempt("--data", tmp_path / "d", *free_ports(), option, port)
    assert code == 1
    assert len(lines) == 1
    assert f"port {port} on 127.0.0.1" in lines[0]
    assert option in lines[0]
    assert mosquittos(tmp_path / "d") == []


def test_without_mosquitto_it_says_how_to_install_it(tmp_path):
    code, lines = attempt("--data", tmp_path / "d", *free_ports(), env={**os.environ, "PATH": ""})
    assert (code, len(lines)) == (1, 1)
    assert "mosquitto, the MQTT broker, is not installed; install it: sudo apt-get install mosquitto" in lines[0]


def test_two_servers_on_one_data_folder_are_refused(new_server):
    server = new_server()
    code, lines = attempt("--data", server.data, *free_ports())
    assert (code, len(lines)) == (1, 1)
    assert "another fleet server runs on this data folder" in lines[0]
    assert server.send("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--host", "0.0.0.0"], 2, "devices cannot reach '0.0.0.0'; add --public-host NAME"),
        (["--host", "0.0.0.0", "--public-host", "x"], 2, "the operator listener is plain HTTP and would leave"),
        (["--http-port", "70000"], 2, "http_port = 70000 is not a port"),
    ],
)
def test_unsafe_or_wrong_words_are_refused(tmp_path, words, code, line):
    found, lines = attempt("--data", tmp_path / "d", *free_ports(), *words)
    assert found == code
    assert len(lines) == 1
    assert line in lines[0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port = 1", "unknown key 'port'"),
        ("retention_days = 'x'", "is not a float"),
        ("= 3", "not TOML"),
        ("tenant = 'a/b'", "not a tenant name"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path, text, line):
    (tmp_path / "fleet.toml").write_text(text)
    code, lines = attempt("--data", tmp_path, *free_ports())
    assert code == 2
    assert line in lines[0]


def test_secrets_are_readable_by_their_owner_alone(new_server):
    server = new_server()
    secrets = [*server.data.rglob("*.key"), server.data / "operator.token", server.data / "broker" / "acl"]
    assert len(secrets) == 7, secrets
    assert [oct(path.stat().st_mode)[-3:] for path in secrets] == ["600"] * 7
    assert oct(server.data.stat().st_mode)[-3:] in ("700", "755")  # the folder was the test's own


def seed(server, tmp_path, bundles, *names):
    server.trust()
    for version in ("1.0.0", "1.1.0"):
        server.register(bundles[version][0])
    return [server.device(tmp_path / name, name).connect() for name in names]


def order(server, bundles, version, **more):
    document = {"model": "digits", "bundle": bundles[version][1], "waves": [{"count": 1}, {"rest": True}], **more}
    return server.call("POST", "/rollouts", document)["id"]


def test_a_restart_changes_nothing_but_time(new_server, tmp_path, bundles):
    """The server is killed in the middle of a wave; broker and database are found again and the rollout ends."""
    server = new_server()
    one, two = seed(server, tmp_path, bundles, "pi-1", "pi-2")
    rollout = order(server, bundles, "1.0.0")
    job = one.order()
    one.status(job.job_id, Status.IN_PROGRESS, Phase.DOWNLOADING, 2)
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["executions"][0]["phase"] == "downloading")
    before = server.call("GET", f"/rollouts/{rollout}")
    one.close()
    two.close()
    server.kill()

    server.start()
    assert server.call("GET", f"/rollouts/{rollout}") == before
    one.connect()
    assert one.order().job_id == job.job_id  # republished: the new broker held nothing
    one.install(job)
    two.connect()
    two.install(two.order())
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED", "the rollout's end")
    assert [e["status"] for e in server.call("GET", f"/rollouts/{rollout}")["executions"]] == ["SUCCEEDED"] * 2
    assert server.call("GET", "/audit")["broken_at"] is None
    one.close()
    two.close()


def test_what_was_acknowledged_survives_a_kill_at_once(new_server, tmp_path, bundles):
    server = new_server()
    (device,) = seed(server, tmp_path, bundles, "pi-1")
    sent = device.rows("metric", [{"n": i} for i in range(40)])
    acked = device.send_batch(sent)
    server.kill()
    device.close()
    with sqlite3.connect(server.data / "fleet.db") as db:
        kept = [row[0] for row in db.execute("SELECT seq FROM telemetry WHERE class = 'metric' ORDER BY seq")]
    db.close()
    assert (acked.up_to_seq, kept) == (40, list(range(1, 41)))


def test_a_broker_that_dies_is_started_again_and_knows_what_it_must(new_server, tmp_path, bundles):
    server = new_server()
    (device,) = seed(server, tmp_path, bundles, "pi-1")
    order(server, bundles, "1.0.0")
    job = device.order()
    device.close()
    (broker,) = mosquittos(server.data)
    os.kill(broker, signal.SIGKILL)
    until(lambda: mosquittos(server.data) not in ([], [broker]), "a new broker")
    until(lambda: server.send("GET", "/readyz").status_code == 200, "readiness")
    device.connect()
    assert device.order().job_id == job.job_id
    batch = device.rows("event", [{"kind": "hello"}])
    device.say("tm/event", encode_batch(batch))  # the server is ready, so it hears telemetry, too
    assert TelemetryAck.from_bytes(device.wait("tm/ack")).up_to_seq == 1
    device.close()


def test_a_killed_server_takes_its_broker_with_it_and_its_port_is_free(new_server):
    server = new_server()
    port = server.endpoints["broker"]["port"]
    server.kill()
    until(lambda: mosquittos(server.data) == [], "the broker's end")
    server.start("--mqtt-port", str(port))
    assert server.endpoints["broker"]["port"] == port
    assert len(mosquittos(server.data)) == 1


def test_devices_and_strangers_are_told_apart_on_every_listener(new_server, tmp_path, bundles):
    server = new_server()
    (device,) = seed(server, tmp_path, bundles, "pi-1")
    device.close()
    identity = tmp_path / "pi-1" / "identity"
    import ssl

    trusting = ssl.create_default_context(cafile=str(identity / "ca.crt"))
    url = server.endpoints["device"]
    with pytest.raises((httpx.HTTPError, ssl.SSLError)):
        httpx.get(f"{url}/tuf/timestamp.json", verify=trusting, trust_env=False)
    known = ssl.create_default_context(cafile=str(identity / "ca.crt"))
    known.load_cert_chain(identity / "device.crt", identity / "device.key")
    with httpx.Client(base_url=url, verify=known, trust_env=False) as client:
        assert client.get("/tuf/timestamp.json").json()["signed"]["_type"] == "timestamp"
        assert client.get("/tuf/2.root.json").status_code == 404
        assert client.get("/tuf/..%2fonline.key").status_code == 404
        files = json.loads((bundles["1.0.0"][0] / "manifest.json").read_bytes())["files"]
        model = next(entry for entry in files if entry["path"] == "model.tflite")
        whole = client.get(f"/blobs/{model['sha256']}")
        assert (len(whole.content), whole.headers["etag"]) == (model["size"], f'"{model["sha256"]}"')
        assert "immutable" in whole.headers["cache-control"]
        part = client.get(
            f"/blobs/{model['sha256']}", headers={"range": "bytes=100-199", "if-range": whole.headers["etag"]}
        )
        assert (part.status_code, part.content) == (206, whole.content[100:200])
        other = client.get(f"/blobs/{model['sha256']}", headers={"range": "bytes=100-199", "if-range": '"x"'})
        assert other.status_code == 200
        tail = client.get(f"/blobs/{model['sha256']}", headers={"range": f"bytes={model['size'] + 5}-"})
        assert tail.status_code == 416
        assert client.get(f"/blobs/{'0' * 64}").status_code == 404
        assert client.get("/blobs/..%2f..%2foperator.token").status_code in (404, 422)
    with httpx.Client(base_url=server.endpoints["enrol"], verify=trusting, trust_env=False) as client:
        assert client.get("/ca.pem").text == (identity / "ca.crt").read_text()
        refused = client.post("/enrol", json={"token": "strop1.aa.bb", "device": "pi-9", "csr": ""})
        assert (refused.status_code, next(iter(refused.json()))) == (403, "error")
        assert client.post("/enrol", content=b"{").status_code == 400
        assert client.post("/enrol", content=b"x" * 100_000).status_code == 413


def test_an_unsigned_upload_is_not_handed_to_devices(new_server, tmp_path, bundles):
    import hashlib
    import ssl

    server = new_server()
    (device,) = seed(server, tmp_path, bundles, "pi-1")
    device.close()
    data = b"uploaded, never signed"
    digest = hashlib.sha256(data).hexdigest()
    server.call("PUT", f"/blobs/{digest}", content=data)
    identity = tmp_path / "pi-1" / "identity"
    context = ssl.create_default_context(cafile=str(identity / "ca.crt"))
    context.load_cert_chain(identity / "device.crt", identity / "device.key")
    answer = httpx.get(f"{server.endpoints['device']}/blobs/{digest}", verify=context, trust_env=False)
    assert answer.status_code == 404

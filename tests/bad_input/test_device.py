# SPDX-License-Identifier: Apache-2.0
"""A device with a wrong certificate, and a device that is sent a corrupted bundle: nothing gets through."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.adapters.enrol import enrol
from edge_contract import canonical
from edge_contract.batches import TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.messages import Birth
from edge_contract.topics import topic
from tests.bad_input.refusals import PROGRAM, one_line, unchanged, until
from tests.edge_agent.runner import bundles
from tests.support.fleet_server import client


@contextlib.contextmanager
def running(data: Path):
    """``strop agent run`` as a device would run it; ended with SIGTERM, and it must end well."""
    child = subprocess.Popen([PROGRAM, "agent", "run", "--data", data, "--quiet"], stderr=subprocess.PIPE, text=True)
    try:
        yield child
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=30)
        assert (child.returncode, said) == (0, "")
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def _log(data: Path) -> str:
    path = data / "logs" / "agent.log"
    return path.read_text() if path.exists() else ""


def _ask(data: Path, operation: str, **fields) -> dict:
    """Ask the device's trust helper, a process of its own, as the agent does."""
    request = canonical.dumps({"op": operation, "data": str(data), **fields})
    done = subprocess.run([sys.executable, "-m", "edge_agent.trust_helper"], input=request, capture_output=True)
    return json.loads(done.stdout)


@pytest.fixture
def stranger(fleet, foreign_fleet, tmp_path) -> Path:
    """A device of another fleet that is pointed at ours, and believes our CA: only its certificate is wrong."""
    data = tmp_path / "stranger"
    shutil.copytree(foreign_fleet / "device", data)
    ours = fleet.devices / "pi-01" / "identity"
    for name in ("ca.crt", "endpoints.json", "root.json", "job.pub"):
        shutil.copy(ours / name, data / "identity" / name)
    (data / "agent.toml").write_text('device = "pi-01"\nruntime = "onnxruntime"\n[network]\nreconnect_max_s = 1\n')
    return data


def test_a_certificate_of_another_ca_gets_nothing_and_the_log_says_why(fleet, stranger):
    with unchanged(fleet.state, stranger / "identity"):
        with running(stranger):
            until(lambda: "offline: " in _log(stranger), "the log says that the broker refused")
        refused = _ask(stranger, "refresh", base_url=fleet.endpoints["device"], targets=["0" * 64])
    assert "certificate" in next(line for line in _log(stranger).splitlines() if "offline: " in line)
    assert refused["ok"] is False
    assert "certificate" in refused["what"] + refused["fix"]
    assert "enrol" in refused["fix"]


def test_a_device_may_not_speak_in_the_name_of_another(fleet):
    """Both are ours; pi-01 writes what would be pi-02's birth and results. Its own words are the fence behind them."""
    before = fleet.call("GET", "/devices/pi-02")
    broker, speaker = fleet.endpoints["broker"], client(fleet.devices / "pi-01", "pi-01")
    speaker.connect(broker["host"], broker["port"])
    speaker.loop_start()
    try:
        for name in ("pi-02", "pi-01"):
            birth = Birth(name, "boot1", 1, "0.1.0", "litert", "2.3.0", {}, time.time())
            rows = (TelemetryRow(1, time.time(), {"results": []}),)
            speaker.publish(
                topic("default", name, "tm/result"), encode_batch(TelemetryBatch(name, "boot1", "event", 0, rows)), 1
            )
            speaker.publish(topic("default", name, "state/birth"), birth.to_bytes(), 1).wait_for_publish(20)
        until(lambda: fleet.call("GET", "/devices/pi-01")["online"], "pi-01 is heard in its own name")
    finally:
        speaker.disconnect()
        speaker.loop_stop()
    assert fleet.call("GET", "/devices/pi-02") == before
    assert not before["online"]


def test_an_agent_with_a_broken_configuration_does_not_start(strop, tmp_path):
    (tmp_path / "agent.toml").write_text('device = "pi"\nruntime = "litert"\nsource = "camera"\n')
    with unchanged(tmp_path):
        strop.refuses(
            2, "agent.toml: unknown key 'source'; use one of device, ", words=("agent", "run", "--data", tmp_path)
        )


def test_a_damaged_identity_is_said_in_the_log_and_inference_goes_on(fleet, tmp_path):
    shutil.copytree(fleet.devices / "pi-01" / "identity", tmp_path / "identity")
    (tmp_path / "agent.toml").write_text('device = "pi-01"\nruntime = "onnxruntime"\n')
    (tmp_path / "identity" / "device.key").write_text("no key")
    with unchanged(tmp_path / "identity", fleet.state), running(tmp_path):
        line = until(lambda: [one for one in _log(tmp_path).splitlines() if "no usable identity" in one], "the reason")
    assert "strop agent enrol" in line[0]


def test_a_folder_without_a_device_names_the_way_to_enrol(strop, tmp_path):
    with unchanged(tmp_path):
        for verb in ("run", "status"):
            strop.refuses(
                2, f"{tmp_path}: there is no agent.toml; ", "agent enrol", words=("agent", verb, "--data", tmp_path)
            )


@pytest.fixture
def rotten(fleet, tmp_path) -> str:
    """The version of a bundle that was registered well; then a byte of its file flipped on the server's disk."""
    shutil.copytree(fleet.keys, tmp_path / "keys")
    bundle = bundles.build(tmp_path / "bundle", seed=5, version="5.0.0")
    fleet.register(bundle)
    blob = next(entry.sha256 for entry in bundles.manifest_of(bundle).files if entry.path == "model.onnx")
    path = fleet.data / "blobs" / blob[:2] / blob
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "5.0.0"


def test_a_device_that_gets_a_corrupted_file_keeps_what_it_had_and_the_rollout_stops(strop, fleet, rotten, tmp_path):
    data = tmp_path / "pi-rot"
    enrol(data, fleet.endpoints["enrol"], fleet.call("POST", "/tokens")["token"], "pi-rot")
    (data / "agent.toml").write_text('device = "pi-rot"\nruntime = "onnxruntime"\n')
    with running(data):
        words = ("fleet", "rollout", "start", "compass", rotten, "--wave", "pi-rot", "--json", *fleet.words())
        name = json.loads(strop.run(*words).stdout)["id"]
        ended = strop.run("fleet", "rollout", "watch", name, "--timeout-s", "60", *fleet.words())
        until(lambda: fleet.call("GET", "/devices/pi-rot")["online"], "it stays online")
    assert ended.returncode == 1
    one_line(ended.stderr.splitlines(keepends=True)[-1], f"rollout {name}: ABORTED: ", "pi-rot", "has other bytes")
    shown = fleet.call("GET", "/devices/pi-rot")
    assert shown["models"].get("compass", {"running": ""})["running"] == ""
    assert not list((data / "models").rglob("model.onnx"))
    until(lambda: not fleet.call("GET", "/devices/pi-rot")["online"], "its last word is stored")

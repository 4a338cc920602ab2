# SPDX-License-Identifier: Apache-2.0
"""A device of an earlier release at today's server, over the real broker, word by word as it was recorded.

The cores are held to the recordings by ``tests/edge_contract/test_recorded.py``; here certificates, access list,
subscriptions and retained messages stand between them.
"""

from pathlib import Path

import pytest

from edge_contract import PROTOCOL_VERSION, canonical
from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, decode_batch, encode_batch
from edge_contract.jobs import JobDocument, Signed
from edge_contract.states import Phase
from tests.support.device_sim import NEW, OLD, Device
from tests.support.fleet_server import until

pytestmark = pytest.mark.broker

RECORDED = Path(__file__).parents[1] / "vectors" / "recorded"
VERSIONS = sorted(path.name for path in RECORDED.iterdir())
WAY = ("accepted", "downloading", "verifying", "staged", "activating", "health_check", "committing")


def words(version, folder="up"):
    return {path.name: path.read_bytes() for path in (RECORDED / version / folder).iterdir()}


class Elder:
    """A device that says what its release said, with the names of this fleet's bundles and orders put in."""

    def __init__(self, device, version, bundles):
        self.device, self.words, self.names = device, words(version), {OLD: bundles[0], NEW: bundles[1]}

    def say(self, name, channel, **changes):
        payload = self.words[f"{name}.json"]
        for recorded, real in self.names.items():
            payload = payload.replace(recorded.encode(), real.encode())
        document = canonical.loads(payload) | changes
        self.device.say(channel, canonical.dumps(document), retain=not channel.startswith("job"))

    def batch(self, cls):
        self.device.say(f"tm/{cls}", self.words[f"batch-{cls}.bin"])
        said = lambda payload: TelemetryAck.from_bytes(payload).cls == cls  # noqa: E731
        return TelemetryAck.from_bytes(self.device.wait("tm/ack", said)).up_to_seq


@pytest.fixture
def elder(server, tmp_path, bundles, request):
    """The recorded device, whose name is pi, enrolled and connected."""
    device = server.device(tmp_path / "pi", "pi").connect()
    yield Elder(device, request.param, (bundles["1.0.0"][1], bundles["1.1.0"][1]))
    device.close()
    server.send("DELETE", "/api/v1/devices/pi")


@pytest.mark.parametrize("elder", VERSIONS, indirect=True)
def test_an_earlier_device_is_known_heard_and_updated(server, elder, bundles):
    elder.say("birth", "state/birth")
    elder.say("reported-idle", "twin/reported")
    assert server.call("GET", "/devices/pi")["agent_version"] == "0"
    for cls in ("metric", "event", "result", "drift"):
        assert elder.batch(cls) == decode_batch(elder.words[f"batch-{cls}.bin"]).rows[-1].seq
    document = {"model": "digits", "bundle": bundles["1.1.0"][1], "waves": [{"devices": ["pi"]}]}
    rollout = server.call("POST", "/rollouts", document)["id"]
    order = elder.device.wait("job/next", lambda payload: bool(payload))
    job = JobDocument.from_bytes(Signed.from_bytes(order).payload)
    recorded = Signed.from_bytes(words(elder_version(elder), "down")["order.json"])
    theirs, ours = canonical.loads(recorded.payload), canonical.loads(Signed.from_bytes(order).payload)
    assert set(theirs) <= set(ours)  # whatever the earlier reader asks for is there
    assert {key: type(value) for key, value in theirs.items()} == {key: type(ours[key]) for key in theirs}
    for phase in WAY:
        elder.say(f"job-status-{phase}", f"job/{job.job_id}/status", job_id=job.job_id)
    shown = lambda: server.call("GET", f"/rollouts/{rollout}")["executions"][0]["phase"]  # noqa: E731
    until(lambda: shown() == Phase.COMMITTING, "the recorded way")
    elder.say("reported-new", "twin/reported")
    elder.say("job-status-done", f"job/{job.job_id}/status", job_id=job.job_id)
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "COMPLETED", "the rollout")
    assert not [one for one in server.call("GET", "/dead-letters")["letters"] if "/pi/" in one["topic"]]


def elder_version(elder):
    return next(version for version in VERSIONS if words(version) == elder.words)


def told(version, where):
    """How a refusal begins; versions count from 1."""
    return f"{where}: protocol version {version}," if version > 0 else f"{where}.v: {version} is below 1"


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 2, PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2])
def test_the_server_refuses_a_stranger_version_and_says_so(server, devices, version):
    (device,) = devices(f"far{version}")
    batch = TelemetryBatch(device.name, device.boot, "metric", 0, (TelemetryRow(1, 1.0, {"n": 1}),))
    packed = canonical.dumps(batch.to_json() | {"v": version})
    device.say("tm/metric", b"\x00" + packed)
    letters = lambda: [one for one in server.call("GET", "/dead-letters")["letters"] if device.name in one["topic"]]  # noqa: E731
    (letter,) = until(letters, "a dead letter")
    assert letter["reason"].startswith(told(version, "batch"))
    device.say("tm/metric", encode_batch(batch))  # nothing was taken of it, and the device may go on
    assert TelemetryAck.from_bytes(device.wait("tm/ack")).up_to_seq == 1


@pytest.mark.parametrize("version", [PROTOCOL_VERSION - 2, PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2])
def test_a_device_refuses_a_stranger_version_and_goes_on(version):
    said, device = words(VERSIONS[-1], "down"), Device()
    device.run(2)
    desired = canonical.loads(said["desired.json"])
    device.say("twin/desired", canonical.dumps(desired | {"v": version}))
    device.say("job/next", canonical.dumps(canonical.loads(said["order.json"]) | {"v": version}))
    device.run(3)
    assert device.state.twin.version == 0
    assert device.status() == ""
    refused = [one["reason"] for kind in ("event", "alarm") for one in device.server.bodies(kind) if "reason" in one]
    assert [reason.partition(" we speak")[0] for reason in refused] == [
        told(version, "desired"),
        told(version, "envelope"),
    ]
    device.say("twin/desired", said["desired.json"])
    device.say("job/next", said["order.json"])
    device.run(80)
    assert device.state.twin.version == 4
    assert device.status() == "SUCCEEDED"

# SPDX-License-Identifier: Apache-2.0
"""A message speaks for the device and the tenant of its topic and for nobody else: a matrix over all that goes up."""

import json

import pytest

from edge_contract import log_chunks
from edge_contract.batches import CLASSES, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import JobStatus
from edge_contract.messages import Birth, Death, ReportedState
from edge_contract.states import Phase, Status
from edge_contract.topics import UP

ROOT = "strop/v1/default"


def plain_batch(cls, device):
    return encode_batch(TelemetryBatch(device, "b1", cls, 0, (TelemetryRow(1, 2.0, {"n": 1}),)))


# Channel → the payload in which a device speaks; the names are those of ``topics.UP``.
KINDS = {
    "state/birth": lambda device: Birth(device, "b1", 1, "0.1", "litert", "2.3", {}, 5.0).to_bytes(),
    "state/death": lambda device: Death(device, "b1", 1).to_bytes(),
    "twin/reported": lambda device: ReportedState(device, "b1", 0, {}, {}, {}, {}, 6.0).to_bytes(),
    "job/j1/status": lambda device: JobStatus("j1", device, Status.FAILED, Phase.FAILED, 1, "", {}, 1.0).to_bytes(),
    "cmd/ping/k1/result": lambda device: json.dumps({"v": 1, "ok": True, "device": device}).encode(),
    "log/k1": lambda device: with_fields(log_chunks.split("logs", b"a line")[0], device=device),
    **{f"tm/{cls}": lambda device, cls=cls: plain_batch(cls, device) for cls in CLASSES},
}


def with_fields(payload, **fields):
    """The same message with more fields; of a batch, its plain wire form."""
    if payload[:1] == b"\x01":
        import zlib

        return b"\0" + with_fields(zlib.decompress(payload[1:]), **fields)
    return json.dumps({**json.loads(payload), **fields}).encode()


def test_the_matrix_has_every_kind_that_goes_up():
    heads = {channel.split("/")[0] + "/" + channel.split("/")[-1] for channel in UP}
    kinds = {name.split("/")[0] + "/" + name.split("/")[-1] for name in KINDS}
    assert {head for head in heads if "+" not in head} <= kinds
    assert {head.split("/")[0] for head in heads} == {name.split("/")[0] for name in KINDS}


@pytest.fixture(scope="module")
def bureau(tmp_path_factory):
    from fleet.adapters import credentials
    from fleet.adapters.stores import open_store
    from tests.fleet.devices.conftest import Bureau

    folder = tmp_path_factory.mktemp("owners")
    credentials.init(folder, now=1000.0)
    made = Bureau(folder, open_store(folder))
    made.enrolled("pi", "other")
    yield made
    made.store.close()


def refused(bureau, channel, payload, tenant="default"):
    """What the newest dead letter says after a message of the device pi; it must be a new one."""
    before = len(bureau.dead_letters())
    acks = len(bureau.acks)
    done = bureau.ingest.handle(f"strop/v1/{tenant}/pi/{channel}", payload)
    assert done is not None
    done.exception()
    bureau.store.write(lambda db: None)
    found = bureau.dead_letters()
    assert len(found) == before + 1, f"{channel} was believed"
    assert len(bureau.acks) == acks, f"{channel} was acknowledged"
    return found[-1]


@pytest.mark.parametrize("channel", KINDS)
def test_a_body_that_names_another_device_is_a_dead_letter(bureau, channel):
    assert "the payload names device 'other'" in refused(bureau, channel, KINDS[channel]("other"))


@pytest.mark.parametrize("channel", KINDS)
def test_a_body_that_names_another_tenant_is_a_dead_letter(bureau, channel):
    payload = with_fields(KINDS[channel]("pi"), tenant="acme")
    assert "the payload names tenant 'acme'" in refused(bureau, channel, payload)
    assert "the payload names tenant" in refused(bureau, channel, with_fields(KINDS[channel]("pi"), tenant=["default"]))


@pytest.mark.parametrize("channel", KINDS)
def test_a_topic_of_another_tenant_is_a_dead_letter(bureau, channel):
    assert "is of another tenant" in refused(bureau, channel, KINDS[channel]("pi"), tenant="acme")


@pytest.mark.parametrize("channel", KINDS)
def test_the_own_tenant_may_be_named(bureau, channel):
    """It changes nothing: what is refused then is refused for another reason."""
    before = len(bureau.dead_letters())
    bureau.hear("pi", channel, with_fields(KINDS[channel]("pi"), tenant="default"))
    assert not [words for words in bureau.dead_letters()[before:] if "tenant" in words or "names device" in words]


def test_nothing_of_a_stranger_reached_the_records(bureau):
    record = bureau.read(lambda db: db.execute("SELECT boot FROM devices WHERE device = 'other'").fetchone())
    assert record["boot"] == ""
    rows = bureau.read(lambda db: db.execute("SELECT COUNT(*) FROM telemetry WHERE device = 'other'").fetchone()[0])
    assert rows == 0

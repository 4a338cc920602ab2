# SPDX-License-Identifier: Apache-2.0
"""Dead letters: kept with the reason, shown, and read once more when the reason is gone."""

import base64

import pytest

from edge_contract.batches import TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.errors import UsageError
from fleet.adapters import tables, telemetry
from tests.fleet.test_operations import ROOT, Office


@pytest.fixture
def office(tmp_path, open_store):
    made = Office(tmp_path, {}, open_store)
    made.operations.letters.take = made.ingest.handle
    yield made
    made.store.close()


def batch(device="late"):
    return encode_batch(TelemetryBatch(device, "b1", "metric", 0, (TelemetryRow(1, 2.0, {"n": 3}),)))


def hear(office, payload, device="late"):
    future = office.ingest.handle(f"{ROOT}/{device}/tm/metric", payload)
    future.exception()
    office.store.write(lambda _: None)


def test_a_letter_is_read_once_its_device_is_enrolled(office):
    hear(office, batch())
    (letter,) = office.operations.letters.newest(10)
    assert letter["reason"].endswith("the device is not enrolled here; enrol it again")
    shown = office.operations.letters.show(letter["id"])
    assert base64.b64decode(shown["payload"]) == batch()
    office.enrolled("late")
    assert office.operations.letters.requeue(letter["id"], "op") == {"id": letter["id"], "read": True}
    assert office.operations.letters.newest(10) == []
    assert office.store.read(lambda db: telemetry.count_rows(db, "late")) == {"metric": 1}
    entry = office.store.read(tables.all_audit)[0]
    assert (entry.actor, entry.action, entry.detail) == ("op", "letter.requeue", {"read": True})


@pytest.mark.parametrize("payload", [batch(), b"\x01garbage"])
def test_a_letter_that_still_cannot_be_read_is_a_new_one(office, payload):
    hear(office, payload)
    (before,) = office.operations.letters.newest(10)
    assert not office.operations.letters.requeue(before["id"], "op")["read"]
    office.store.write(lambda _: None)
    (after,) = office.operations.letters.newest(10)
    assert (after["reason"], after["id"] > before["id"]) == (before["reason"], True)


def test_a_row_inside_a_message_is_no_message(office):
    office.enrolled("late")
    rows = (TelemetryRow(1, 2.0, {"rows": "none", "bundle": ""}),)
    office.ingest.handle(
        f"{ROOT}/late/tm/result", encode_batch(TelemetryBatch("late", "b", "result", 0, rows))
    ).result()
    (letter,) = office.operations.letters.newest(10)
    with pytest.raises(UsageError, match="which is no topic"):
        office.operations.letters.requeue(letter["id"], "op")
    with pytest.raises(UsageError, match="dead letter 999 is not kept"):
        office.operations.letters.show(999)

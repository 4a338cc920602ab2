# SPDX-License-Identifier: Apache-2.0
"""The intake's thread: groups are committed beside the reader, acknowledged after, bounded, and drained at the end."""

import threading
import time

import pytest

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.errors import MessageError
from edge_contract.messages import DesiredState
from edge_contract.topics import Topic
from fleet.adapters import intake as under_test
from fleet.adapters import tables, telemetry
from fleet.adapters.intake import Arrival, Intake
from fleet.core.inventory import DeviceRecord
from tests.support.fleet_server import until


class Place:
    """An intake over a store, with what it acknowledged and refused."""

    def __init__(self, store):
        self.store, self.acks, self.failed, self.groups = store, [], [], []
        self.intake = Intake(
            store,
            lambda *_: None,
            clock=lambda: 1000.0,
            acknowledge=lambda topic, payload: self.acks.append((topic, payload)),
            failed=lambda arrival, error: self.failed.append((arrival.batch.device, error)),
        )
        record = DeviceRecord("pi", 1.0, desired=DesiredState(0, {}, {}))
        store.write(lambda db: tables.put_device(db, record))
        here = store.here
        store.here = lambda job: (self.groups.append(len(self.acks)), here(job))[1]

    def take(self, seq, device="pi", boot="b1"):
        batch = TelemetryBatch(device, boot, "metric", seq - 1, (TelemetryRow(seq, 1.0, {"n": seq}),))
        self.intake.take(Arrival(Topic("default", device, "tm/metric"), b"", batch))

    def rows(self):
        return [row["seq"] for row in self.store.read(lambda db: telemetry.rows(db, "pi", "metric", 0, 10_000))]


@pytest.fixture
def place(open_store, tmp_path):
    made = Place(open_store(tmp_path))
    yield made
    made.intake.stop()


def test_before_the_start_the_caller_stores(place):
    place.take(1)
    assert (place.rows(), place.acks) == ([], [])
    place.intake.pause()
    assert (place.rows(), len(place.acks)) == ([1], 1)


def test_the_thread_stores_in_groups_and_acknowledges_each_batch_once(place):
    place.intake.start()
    for seq in range(1, 1501):
        place.take(seq, boot=f"b{seq % 700}")
    until(lambda: sum(len(p) for p in [place.rows()]) == 1500)
    until(lambda: place.store.read(tables.counts).get("rows") == 1500)
    assert place.store.read(tables.counts) == {"batches": 1500, "rows": 1500}
    assert place.failed == []
    assert len(place.groups) < 1500 / 3, "a commit for a batch would be none for a group"


def test_one_batch_alone_does_not_wait_for_company(place):
    place.intake.start()
    place.take(1)
    until(lambda: place.acks)
    assert place.rows() == [1]


def test_a_reader_that_is_faster_than_the_disk_waits(place, monkeypatch):
    monkeypatch.setattr(under_test, "_MOST", 8)
    goes, here = threading.Event(), place.store.here
    place.store.here = lambda job: (goes.wait(10), here(job))[1]
    place.intake.start()
    taken = []
    reader = threading.Thread(target=lambda: [(place.take(seq), taken.append(seq)) for seq in range(1, 101)])
    reader.start()
    until(lambda: len(taken) >= 7)
    time.sleep(0.05)
    assert len(taken) < 100, "no more than a group at work and one that waits"
    goes.set()
    reader.join()
    until(lambda: len(place.rows()) == 100)


def test_the_end_stores_what_was_taken(place):
    place.intake.start()
    for seq in range(1, 301):
        place.take(seq)
    place.intake.stop()
    assert place.rows() == list(range(1, 301))
    place.take(301)  # an intake that has ended still stores
    place.intake.pause()
    assert len(place.rows()) == 301


def test_one_bad_batch_in_a_group_costs_the_others_nothing(place, monkeypatch):
    keep = under_test.keep_sorted

    def picky(db, batches, now, unfold):
        if any(batch.boot == "bad" for batch in batches):
            raise ValueError("a text without UTF-8 form")
        return keep(db, batches, now, unfold)

    monkeypatch.setattr(under_test, "keep_sorted", picky)
    place.intake.start()
    for seq in range(1, 41):
        place.take(seq, boot="bad" if seq == 20 else "b1")
    until(lambda: len(place.rows()) == 39)
    until(lambda: place.failed)
    ((device, error),) = place.failed
    assert device == "pi"
    assert isinstance(error, MessageError)
    assert "cannot be stored" in str(error)


def test_a_stranger_among_the_batches_is_named(place):
    place.intake.start()
    for seq in range(1, 4):
        place.take(seq, device="ghost" if seq == 2 else "pi", boot=f"b{seq}")
    until(lambda: place.failed)
    assert place.rows() == [1, 3]
    assert [(device, str(error)) for device, error in place.failed] == [
        ("ghost", "ghost: the device is not enrolled here; enrol it again")
    ]

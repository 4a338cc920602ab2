# SPDX-License-Identifier: Apache-2.0
"""A device whose clock is wrong, or jumps, loses nothing and keeps nothing for ever: age counts from the arrival."""

import base64

import pytest

from edge_contract.batches import TelemetryBatch, TelemetryRow
from edge_contract.messages import DesiredState
from fleet.adapters import retention, tables, telemetry
from fleet.core.inventory import DeviceRecord

DAY, NOW = 86_400.0, 1_800_000_000.0
KEPT = 30 * DAY
BODIES = {
    "result": {"bundle": "ab", "first": 0, "rows": [["cam:1", 3, 0.5]]},
    "drift": {"bundle": "ab", "summary": base64.b64encode(b"summary").decode()},
}


class Place:
    """A store with one device, whose rows come in at a time of the server's."""

    def __init__(self, store):
        self.store, self.seq = store, 0
        record = DeviceRecord("pi", 1.0, desired=DesiredState(0, {}, {}))
        store.write(lambda db: tables.put_device(db, record))

    def hear(self, measured, received):
        """A result and a drift window of one moment."""
        self.seq += 1
        for cls, body in BODIES.items():
            batch = TelemetryBatch("pi", "boot", cls, self.seq - 1, (TelemetryRow(self.seq, measured, body),))
            self.store.write(lambda db, b=batch: telemetry.keep_batch(db, b, received, lambda *_: ("ok", {})))

    def swept(self, now):
        """Kept results and windows after a round at a time."""
        self.store.write(lambda db: retention.sweep(db, now - KEPT))
        return self.store.read(lambda db: (telemetry.result_count(db, "pi"), telemetry.window_count(db, "pi")))


@pytest.fixture
def place(open_store, tmp_path):
    return Place(open_store(tmp_path))


@pytest.mark.parametrize(
    "measured",
    [
        0.0,  # a board without a battery
        NOW - 3650 * DAY,  # a jump back by ten years
        NOW + 3650 * DAY,
        NOW + 3000.0,  # less than an hour ahead: it is believed, and may not stretch its stay
        NOW - DAY,
        NOW - 60 * DAY,  # offline for two months: it has just come, and is looked at first
    ],
)
def test_what_came_stays_for_its_days_whatever_the_clock_said(place, measured):
    place.hear(measured, NOW)
    assert place.swept(NOW + KEPT - 1.0) == (1, 1)
    assert place.swept(NOW + KEPT + 1.0) == (0, 0)


def test_a_clock_that_jumps_between_rows_changes_no_order_of_leaving(place):
    for day, jump in enumerate((0.0, +400 * DAY, -400 * DAY, +0.5 * DAY, -20 * DAY)):
        place.hear(NOW + day * DAY + jump, NOW + day * DAY)
    left = [place.swept(NOW + KEPT + day * DAY + 1.0) for day in range(5)]
    assert left == [(4 - day, 4 - day) for day in range(5)]


def test_its_own_word_stays_beside_the_arrival(place):
    place.hear(0.0, NOW)
    (row,) = place.store.read(lambda db: telemetry.rows(db, "pi", "result", 0, 9))
    assert (row["time"], row["received"]) == (0.0, NOW)
    (window,) = place.store.read(lambda db: telemetry.windows(db, "pi", 9))
    assert window.time == NOW, "a chart cannot show 1970"


def test_rows_from_before_the_column_go_by_their_measured_time(place):
    """A worker of the version before writes no arrival."""
    names = "device, time, bundle, ref, class, confidence"

    def write(db):
        for at in (NOW - 40 * DAY, NOW - DAY):
            db.execute(f"INSERT INTO results ({names}) VALUES (?,?,?,?,?,?)", ("pi", at, "ab", "cam:1", 3, 0.5))

    place.store.write(write)
    assert place.swept(NOW) == (1, 0)
